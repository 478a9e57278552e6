"""The plan of an encoding run: which files go into which shard, with which codec and settings.

    corpus + content hashes + codec + settings -> Plan (JSON) -> encode_shard(plan, 0), encode_shard(plan, 1), ...

A plan is complete: whoever holds it writes the same bytes for shard `index`, on any machine, in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints

from vidlbc.errors import InputError, ShardError, one_line
from vidlbc.shards.content import Content, contents_of
from vidlbc.shards.corpus import SPLITS, Corpus, locate
from vidlbc.shards.layout import MANIFEST, dump_json, write_atomic

FORMAT = 1


class HasFingerprint(Protocol):
    """Anything that names the weights it decodes with."""

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Settings:
    """What, besides source and weights, decides the bytes (but for those in `_INVISIBLE`)."""

    qp: int = 32
    context: bool = True
    clip_frames: int = 256
    max_side: int | None = None
    backend: str = "auto"
    model: str = "default"
    temporal: str | None = None
    precision: str = "fp32"
    block: int = 16
    deadline_s: float = 60.0
    variant: str | None = None
    psnr: float | None = None
    bpp_per_db: float | None = None
    bitrate: float | None = None
    rdo: bool = False
    every: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.qp <= 63:
            raise InputError(f"qp={self.qp}: expected a whole number from 0 to 63")
        for name in ("clip_frames", "block", "every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.max_side is not None and self.max_side < 16:
            raise InputError(f"max_side={self.max_side}: expected at least 16 pixels, or null")
        if self.deadline_s <= 0:
            raise InputError(f"deadline_s={self.deadline_s}: expected seconds above 0")
        if not isinstance(self.rdo, bool):
            raise InputError(f"rdo={self.rdo}: expected true, false or null")
        for name, (unit, most) in _TARGETS.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or not 0 < value < most):
                raise InputError(f"{name}={value}: expected {unit} above 0 and below {most}, or null")
        given = [name for name in (*_TARGETS, "variant") if getattr(self, name) is not None]
        if len(given) > 1:
            choices = f"{', '.join(_TARGETS)} and variant"
            raise InputError(f"{given[0]} and {given[1]} are both given: expected one of {choices}")

    @property
    def target(self) -> tuple[str, float] | None:
        """What rate control aims at (`vidlbc.rate_control.Target`); None: `qp` for all clips."""
        return next(((n, getattr(self, n)) for n in _TARGETS if getattr(self, n) is not None), None)

    @property
    def step(self) -> int:
        """Frames of the source from one coded frame to the next."""
        return self.every or 1

    def visible(self) -> dict[str, Any]:
        """The settings that show in the bytes; those of _LATER only where set, so that older shards keep their keys."""
        shown = {name: value for name, value in asdict(self).items() if name not in _INVISIBLE}
        return {name: value for name, value in shown.items() if name not in _LATER or value not in (None, False)}


# `model` and `temporal` say where the weights were found; the fingerprint says what they are.
_INVISIBLE = ("block", "deadline_s", "model", "temporal")
_TARGETS = {"psnr": ("dB", 100), "bitrate": ("kbit/s", 10**9), "bpp_per_db": ("bits per pixel", 100)}
_LATER = ("variant", *_TARGETS, "rdo", "every")


@dataclass(frozen=True)
class Source:
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
class Plan:
    """Everything that `encode_shard` needs. `root` and `output` may move: they are not part of `identity`."""

    root: str
    output: str
    form: str
    fingerprint: str
    settings: Settings
    classes: tuple[str, ...]
    sources: tuple[Source, ...]
    shards: tuple[ShardRange, ...]

    @cached_property
    def identity(self) -> str:
        """32 hex characters: equal for plans that give equal shards."""
        listed = [asdict(source) for source in self.sources]
        ranges = [asdict(shard) for shard in self.shards]
        return _hash(FORMAT, self.fingerprint, self.settings.visible(), list(self.classes), listed, ranges)

    def key(self, source: Source, start: int, stop: int) -> str:
        """The dot-free name of the clip of frames `[start, stop)` of `source`: content, span, codec, settings."""
        visible = self.settings.visible()
        del visible["clip_frames"]  # the span says it
        return _hash(source.sha256, start, stop, self.fingerprint, visible, source.occurrence)

    def save(self) -> None:
        """Write `OUT/manifest/plan.json` and `labels.json`, atomically."""
        folder = Path(self.output) / MANIFEST
        write_atomic(folder / "labels.json", dump_json({"classes": list(self.classes)}, indent=1))
        data = {name: value for name, value in asdict(self).items() if name != "output"}
        write_atomic(folder / "plan.json", dump_json({"format": FORMAT, **data}))

    @staticmethod
    def load(output: str | Path) -> Plan:
        """The plan of a shard folder. Raises ShardError when there is none, or it is damaged."""
        path = Path(output) / MANIFEST / "plan.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("format") != FORMAT:
                found = ascii(data.get("format"))[:40]
                raise ShardError(f"{path}: plan format {found}, this version reads {FORMAT}")
            plan = Plan(
                root=_of_type("root", data["root"], str),
                output=str(output),
                form=_of_type("form", data["form"], str),
                fingerprint=_of_type("fingerprint", data["fingerprint"], str),
                settings=_built(Settings, data["settings"]),
                classes=tuple(_of_type("a class", name, str) for name in data["classes"]),
                sources=tuple(_built(Source, source) for source in data["sources"]),
                shards=tuple(_built(ShardRange, shard) for shard in data["shards"]),
            )
            if any(not 0 <= shard.first <= shard.last <= len(plan.sources) for shard in plan.shards):
                raise ValueError(f"a shard holds others than the {len(plan.sources)} sources")
            if any(shard.split not in (*SPLITS, None) for shard in plan.shards):
                raise ValueError(f"a shard's split is none of {', '.join(SPLITS)}")
            if not (plan.fingerprint.isalnum() and plan.fingerprint.isascii()):
                raise ValueError("the fingerprint is none")
            return plan
        except FileNotFoundError:
            raise ShardError(f"{path}: no such file; {output} is not a folder of shards") from None
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"{path}: damaged plan ({one_line(error)})") from None


def make_plan(
    corpus: Corpus,
    output: str | Path,
    codec: HasFingerprint,
    settings: Settings | None = None,
    *,
    shard_videos: int = 32,
    contents: Mapping[str, Content] | None = None,
) -> Plan:
    """Plan a run. `contents`: `contents_of(corpus)`, where it is at hand already. Raises InputError for bad values.

    Within a split, sources are ordered by the hash of their path: any shard holds a fair mix of classes, which is
    what stock streaming readers need, and the order does not depend on who listed the folder.
    """
    if shard_videos < 1:
        raise InputError(f"shard_videos={shard_videos}: expected at least 1")
    settings = settings or Settings()
    contents = contents_of(corpus) if contents is None else contents
    ranks = {split: rank for rank, split in enumerate((*SPLITS, None))}
    items = sorted(corpus.items, key=lambda item: (ranks[item.split], _hash(item.path, item.start, item.stop)))
    first: dict[tuple[Any, ...], str] = {}
    occurrences: dict[tuple[Any, ...], int] = {}
    sources = []
    for item in items:
        content = contents[item.path]
        # A file that cannot be read has no content to compare: its path stands in.
        span = (content.sha256 or item.path, item.start, item.stop)
        sample = (*span, item.label, item.split)
        repeat_of = first.get(sample)
        if repeat_of is None:
            first[sample] = item.path
            occurrences[span] = occurrences.get(span, -1) + 1
        sources.append(Source(**asdict(item), **asdict(content), repeat_of=repeat_of, occurrence=occurrences[span]))
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


def begin(plan: Plan) -> Plan:
    """Save the plan, or accept the equal one that is there. Raises ShardError naming what differs from it."""
    folder = Path(plan.output)
    if (folder / MANIFEST / "plan.json").exists():
        stored = Plan.load(folder)
        if stored.identity != plan.identity:
            told = "; ".join(differences(stored, plan))
            raise ShardError(f"{folder}: holds shards of another run ({told}); choose a new folder")
    elif any(folder.glob("[0-9]*.tar")):
        raise ShardError(f"{folder}: holds tars but no {MANIFEST}/plan.json; choose a new folder")
    plan.save()
    return plan


def differences(there: Plan, here: Plan) -> list[str]:
    """In words, what makes two plans differ."""
    found = []
    if there.fingerprint != here.fingerprint:
        found.append(f"codec weights {there.fingerprint[:8]} there, {here.fingerprint[:8]} here")
    for field in fields(Settings):
        old, new = getattr(there.settings, field.name), getattr(here.settings, field.name)
        if old != new and field.name not in _INVISIBLE:
            found.append(f"{field.name}={old} there, {field.name}={new} here")
    if there.classes != here.classes:
        found.append(f"{len(there.classes)} classes there, {len(here.classes)} here, or other names")
    old_paths, new_paths = {s.path for s in there.sources}, {s.path for s in here.sources}
    for extra, text in ((new_paths - old_paths, "here, not there"), (old_paths - new_paths, "there, not here")):
        if extra:
            found.append(f"{len(extra)} files {text}, such as {min(extra)}")
    if old_paths == new_paths and set(there.sources) != set(here.sources):
        changed = {s.path for s in set(there.sources) ^ set(here.sources)}
        found.append(f"{len(changed)} files changed in content, label, group or split, such as {min(changed)}")
    return found or ["other shard sizes (shard_videos)"]


def choice_of_rdo(wanted: bool | None, output: str | Path, sees_past: bool) -> bool:
    """What `rdo` of None stands for: what an earlier run into `output` did, else whether the priors see the past.

    Under the intra prior alone there is nothing to gain.
    """
    if wanted is not None:
        return wanted
    try:
        return Plan.load(output).settings.rdo
    except ShardError:
        return sees_past


def known_contents(output: str | Path, corpus: Corpus) -> dict[str, Content]:
    """Contents of a corpus, from the plan in `output` where a file's size is still the same: resuming hashes nothing.

    A file changed at equal size is caught when it is encoded: its bytes are hashed again then.
    """
    try:
        stored = {source.path: Content(source.sha256, source.size) for source in Plan.load(output).sources}
    except ShardError:
        return {}
    known = {}
    for path in {item.path for item in corpus.items} & stored.keys():
        file, member = locate(corpus.root, path)
        if stored[path].sha256 and file.is_file() and (member or file.stat().st_size == stored[path].size):
            known[path] = stored[path]
    return known


def _built(kind: type, data: Mapping[str, Any]) -> Any:
    """From JSON. Raises KeyError, TypeError, ValueError where `data` is none of its kind."""
    kinds = _kinds_of(kind)
    return kind(**{name: _of_type(name, value, *kinds[name]) for name, value in data.items()})


@cache
def _kinds_of(kind: type) -> dict[str, tuple[type, ...]]:
    """What each field may be; a whole number will do for a float."""
    kinds = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(kind).items()}
    return {name: (*found, int) if float in found else found for name, found in kinds.items()}


def _of_type(name: str, value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"{name}={str(value)[:60]}")
    # ValueError also where it is no text, but half of a surrogate pair.
    if isinstance(value, str) and b"\0" in value.encode():
        raise ValueError(f"{name} holds a zero")
    return value


def _hash(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
