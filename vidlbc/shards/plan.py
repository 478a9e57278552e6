"""The plan of an encoding run: which files go into which shard, with which codec and settings.

    corpus + content hashes + codec + settings -> Plan (JSON) -> encode_shard(plan, 0), encode_shard(plan, 1), ...

A plan is complete: whoever holds it writes the same bytes for shard `index`, on any machine, in any order.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from vidlbc.data.content import Content, contents_of
from vidlbc.data.corpus import SPLITS, Corpus
from vidlbc.errors import RETIRED, InputError, ShardError, one_line
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.typed_json import check_text, typed
from vidlbc.shards.layout import MANIFEST
from vidlbc.shards.settings import EncodingSettings

FORMAT = 1


class HasFingerprint(Protocol):
    """Anything that names the weights it decodes with."""

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class PlannedFile:
    """One item of the corpus with its content. `repeat_of`: an earlier item of the same bytes, label and split.

    `occurrence` counts items of the same bytes that differ in label or split: each of those keeps a sample of its own.
    """

    path: str
    label: int | None
    group: str | None
    split: str | None
    start: int | None
    stop: int | None
    sha256: str
    size: int
    problem: str = ""
    repeat_of: str | None = None
    occurrence: int = 0

    @property
    def span(self) -> tuple[Any, ...]:
        """Which frames of which content. A file that cannot be read has no content to compare: its path stands in."""
        return self.sha256 or self.path, self.start, self.stop

    @property
    def sample(self) -> tuple[Any, ...]:
        """What two sources must share for the second to be a repeat."""
        return *self.span, self.label, self.split

    @property
    def video(self) -> str:
        """Names the video across its clips: what per-video averages group by."""
        return _hash(self.sha256 or self.path, self.start, self.stop, self.occurrence)[:16]


@dataclass(frozen=True)
class ShardRange:
    """Sources `[first, last)` of the plan, all of one split."""

    split: str | None
    first: int
    last: int


@dataclass(frozen=True)
class Addition:
    """A corpus that came to the folder later: its sources and shards start at these places of the plan."""

    root: str
    form: str
    first_source: int
    first_shard: int


@dataclass(frozen=True)
class Plan:
    """Everything that `encode_shard` needs. `root` and `output` may move: they are not part of `identity`.

    With `additions`, corpora follow each other, with one codec, settings and label map: `parts` are their plans.
    """

    root: str
    output: str
    form: str
    fingerprint: str
    settings: EncodingSettings
    classes: tuple[str, ...]
    sources: tuple[PlannedFile, ...]
    shards: tuple[ShardRange, ...]
    additions: tuple[Addition, ...] = ()

    @cached_property
    def parts(self) -> tuple[Plan, ...]:
        """The plan of each corpus on its own, its sources and shards counted from 0; (self,) without additions."""
        if not self.additions:
            return (self,)
        places = [Addition(self.root, self.form, 0, 0), *self.additions]
        ends = [*self.additions, Addition("", "", len(self.sources), len(self.shards))]
        return tuple(
            replace(
                self,
                root=place.root,
                form=place.form,
                sources=self.sources[place.first_source : end.first_source],
                shards=tuple(
                    ShardRange(shard.split, shard.first - place.first_source, shard.last - place.first_source)
                    for shard in self.shards[place.first_shard : end.first_shard]
                ),
                additions=(),
            )
            for place, end in zip(places, ends, strict=True)
        )

    def part(self, index: int) -> tuple[Plan, ShardRange]:
        """The part that shard `index` belongs to, and the range of that part's sources that it holds."""
        number = bisect_right([addition.first_shard for addition in self.additions], index)
        first = self.additions[number - 1].first_shard if number else 0
        return self.parts[number], self.parts[number].shards[index - first]

    @cached_property
    def identity(self) -> str:
        """32 hex characters: equal for plans that give equal shards."""
        if self.additions:
            return _hash(FORMAT, [part.identity for part in self.parts])
        listed = [asdict(source) for source in self.sources]
        ranges = [asdict(shard) for shard in self.shards]
        return _hash(FORMAT, self.fingerprint, self.settings.visible(), list(self.classes), listed, ranges)

    def key(self, source: PlannedFile, start: int, stop: int) -> str:
        """The dot-free name of the clip of frames `[start, stop)` of `source`: content, span, codec, settings."""
        visible = self.settings.visible()
        del visible["clip_frames"]  # the span says it
        return _hash(source.sha256, start, stop, self.fingerprint, visible, source.occurrence)

    def save(self) -> None:
        """Write `OUT/manifest/plan.json` and `labels.json`, atomically."""
        folder = Path(self.output) / MANIFEST
        write_atomic(folder / "labels.json", dump_json({"classes": list(self.classes)}, indent=1))
        data = {name: value for name, value in asdict(self).items() if name != "output"}
        if not self.additions:
            del data["additions"]  # as it was before there were any
        write_atomic(folder / "plan.json", dump_json({"format": FORMAT, **data}))

    @staticmethod
    def load(output: str | Path) -> Plan:
        """The plan of a shard folder. Raises ShardError when there is none, or it is damaged, InputError where it is of
        temporal=chunk.
        """
        path = Path(output) / MANIFEST / "plan.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("format") != FORMAT:
                found = ascii(data.get("format"))[:40]
                raise ShardError(f"{path}: plan format {found}, this version reads {FORMAT}")
            plan = Plan(
                root=data["root"],
                output=str(output),
                form=data["form"],
                fingerprint=data["fingerprint"],
                settings=typed(EncodingSettings, data["settings"]),
                classes=tuple(data["classes"]),
                sources=tuple(typed(PlannedFile, source) for source in data["sources"]),
                shards=tuple(typed(ShardRange, shard) for shard in data["shards"]),
                additions=tuple(typed(Addition, addition) for addition in data.get("additions", ())),
            )
            plan._check()
        except FileNotFoundError:
            raise ShardError(f"{path}: no such file; {output} is not a folder of shards") from None
        except OSError as error:
            raise ShardError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ShardError(f"{path}: damaged plan ({one_line(error)})") from None
        if plan.settings.temporal == "chunk":
            raise InputError(f"{path}: shards were written with {RETIRED}")
        return plan

    def _check(self) -> None:
        """Raises ValueError where the numbers do not fit each other, TypeError where a name is none."""
        if not all(isinstance(text, str) for text in (self.root, self.form, self.fingerprint, *self.classes)):
            raise TypeError("root, form, fingerprint and classes: expected text")
        for text in (self.root, self.form, *self.classes):
            check_text(text)
        if not (self.fingerprint.isalnum() and self.fingerprint.isascii()):
            raise ValueError("the fingerprint is none")
        at = 0
        for shard in self.shards:
            if shard.split not in (*SPLITS, None):
                raise ValueError(f"a shard's split is none of {', '.join(SPLITS)}")
            if shard.first != at or shard.last <= at:
                raise ValueError(f"shard of sources {shard.first} to {shard.last}: expected one from {at} on")
            at = shard.last
        if at != len(self.sources):
            raise ValueError(f"shards of {at} sources, {len(self.sources)} are listed")
        for source in self.sources:
            if source.label is not None and not 0 <= source.label < len(self.classes):
                raise ValueError(f"label {source.label} of {source.path}: there are {len(self.classes)} classes")
        shard_starts = {shard.first: index for index, shard in enumerate(self.shards)}
        last = 0
        for addition in self.additions:
            if addition.first_shard <= last or shard_starts.get(addition.first_source) != addition.first_shard:
                raise ValueError(f"an addition from shard {addition.first_shard} on, which begins elsewhere")
            last = addition.first_shard


def make_plan(
    corpus: Corpus,
    output: str | Path,
    codec: HasFingerprint,
    settings: EncodingSettings | None = None,
    *,
    shard_videos: int = 32,
    contents: Mapping[str, Content] | None = None,
    earlier: Iterable[PlannedFile] = (),
) -> Plan:
    """Plan a run. `contents`: `contents_of(corpus)`, where it is at hand already. Raises InputError for bad values.

    `earlier`: sources that are in the folder already; a file of the same bytes, label and split is a repeat of theirs.

    Within a split, sources are ordered by the hash of their path: any shard holds a fair mix of classes, which is
    what stock streaming readers need, and the order does not depend on who listed the folder.
    """
    if shard_videos < 1:
        raise InputError(f"shard_videos={shard_videos}: expected at least 1")
    settings = settings or EncodingSettings()
    contents = contents_of(corpus) if contents is None else contents
    ranks = {split: rank for rank, split in enumerate((*SPLITS, None))}
    items = sorted(corpus.items, key=lambda item: (ranks[item.split], _hash(item.path, item.start, item.stop)))
    listed = [PlannedFile(**asdict(item), **asdict(contents[item.path])) for item in items]
    sources = mark_repeats(listed, earlier)
    shards = []
    for split in (*SPLITS, None):
        chosen = [index for index, source in enumerate(sources) if source.split == split]
        for low in range(0, len(chosen), shard_videos):
            part = chosen[low : low + shard_videos]
            shards.append(ShardRange(split, part[0], part[-1] + 1))
    return Plan(
        str(Path(corpus.root).resolve()),
        str(output),
        corpus.form,
        codec.fingerprint,
        settings,
        corpus.classes,
        tuple(sources),
        tuple(shards),
    )


def mark_repeats(sources: Iterable[PlannedFile], earlier: Iterable[PlannedFile] = ()) -> list[PlannedFile]:
    """The sources with `repeat_of` and `occurrence` as the sources before them, and `earlier` ones, decide."""
    first: dict[tuple[Any, ...], PlannedFile] = {}
    occurrences: dict[tuple[Any, ...], int] = {}
    for source in earlier:
        if source.sha256 and source.repeat_of is None:
            first.setdefault(source.sample, source)
            occurrences[source.span] = max(occurrences.get(source.span, 0), source.occurrence)
    marked = []
    for source in sources:
        original = first.get(source.sample)
        if original is None:
            occurrences[source.span] = occurrences.get(source.span, -1) + 1
            first[source.sample] = source
        repeat_of = None if original is None else original.path
        marked.append(replace(source, repeat_of=repeat_of, occurrence=occurrences[source.span]))
    return marked


def _hash(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
