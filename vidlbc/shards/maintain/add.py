"""New videos for a folder that holds shards already: shards behind the others, which stay as they are.

corpus --labels by name--> items not listed yet --make_plan--> one more part of the folder's plan --> encode_corpus

The settings and the weights are those of the folder. Killed, the same call goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidlbc.data.content import Content, contents_of
from vidlbc.data.corpus import SPLITS, Corpus, Item
from vidlbc.errors import InputError, ShardError
from vidlbc.shards.encode import is_done
from vidlbc.shards.launchers.local import encode_corpus
from vidlbc.shards.maintain.join import followed_by, stored_sources
from vidlbc.shards.manifest import Manifest, gather
from vidlbc.shards.plan import Plan, PlannedFile, make_plan
from vidlbc.shards.sources import ClipCodec


@dataclass(frozen=True)
class Added:
    """What came to a folder: `first_shard` to the last are new. `listed`: items that the folder knew already."""

    plan: Plan
    manifest: Manifest
    first_shard: int
    files: int
    repeats: int
    listed: int
    warnings: tuple[str, ...]


def add_videos(
    folder: str | Path,
    corpus: Corpus,
    codec: ClipCodec,
    *,
    split: str | None = None,
    shard_videos: int = 32,
    contents: Mapping[str, Content] | None = None,
    **options: Any,
) -> Added:
    """Encode the items of `corpus` that `folder` does not list yet into new shards; `options`: of `encode_corpus`.

    Labels are matched by name with the folder's label map. `split`: of items that have none. An item is listed where
    its root, path, content, label, split and frames are; equal content elsewhere is a repeat, as within one run.
    Raises InputError for a label outside the map or a missing split, ShardError for other weights than the folder's,
    a folder in use, or one with unfinished shards of videos that are not in `corpus`.
    """
    plan = Plan.load(folder)
    if codec.fingerprint != plan.fingerprint:
        raise ShardError(
            f"{folder}: written with weights {plan.fingerprint[:8]}, the codec at hand has {codec.fingerprint[:8]};"
            " other weights need a folder of their own"
        )
    corpus = fitted(corpus, plan, split)
    root = str(Path(corpus.root).resolve())
    contents = contents_of(corpus) if contents is None else contents
    here = {_place(item, contents[item.path].sha256) for item in corpus.items}
    if unfinished := [index for index in range(len(plan.shards)) if not is_done(plan, index)]:
        plan = _with_root(plan, unfinished, here, root)
        encode_corpus(plan, codec=codec, **options)
    files = gather(plan).files
    listed = {_place(source, source.sha256) for part in plan.parts if part.root == root for source in part.sources}
    new = [item for item in corpus.items if _place(item, contents[item.path].sha256) not in listed]
    first_shard = min(unfinished, default=len(plan.shards))
    warnings: tuple[str, ...] = ()
    if new:
        part = make_plan(
            replace(corpus, items=tuple(new)),
            folder,
            codec,
            plan.settings,
            shard_videos=shard_videos,
            contents=contents,
            earlier=stored_sources(plan, files),
        )
        warnings = tuple(_leaks(plan.sources, part.sources))
        plan = followed_by(plan, replace(part, classes=plan.classes))
    manifest, _ = encode_corpus(plan, codec=codec, **options)
    added = plan.sources[plan.shards[first_shard].first :] if first_shard < len(plan.shards) else ()
    repeats = sum(source.repeat_of is not None for source in added)
    return Added(plan, manifest, first_shard, len(added), repeats, len(corpus.items) - len(added), warnings)


def fitted(corpus: Corpus, plan: Plan, split: str | None) -> Corpus:
    """The corpus with the folder's label map and splits. Raises InputError where it does not fit them."""
    places = {name: label for label, name in enumerate(plan.classes)}
    used = {item.label for item in corpus.items} - {None}
    unknown = sorted({corpus.classes[label] for label in used if label is not None} - places.keys())
    if unknown:
        raise InputError(
            f"{corpus.source}: {len(unknown)} labels that {plan.output} does not have, such as '{unknown[0]}'"
            f" (it has {len(plan.classes)} classes: a new one needs a new folder)"
        )
    if split is not None and split not in SPLITS:
        raise InputError(f"split={split}: expected {', '.join(SPLITS)} or null")
    splits = {source.split for source in plan.sources} - {None}
    items = []
    for item in corpus.items:
        if item.split is None and split is None and splits:
            raise InputError(f"{corpus.source}: {item.path} has no split, the folder has: give split=")
        label = None if item.label is None else places[corpus.classes[item.label]]
        items.append(replace(item, label=label, split=item.split or split))
    return replace(corpus, items=tuple(items), classes=plan.classes)


def _place(item: Item | PlannedFile, sha256: str) -> tuple[Any, ...]:
    return item.path, item.label, item.split, item.start, item.stop, sha256


def _with_root(plan: Plan, unfinished: list[int], here: set[tuple[Any, ...]], root: str) -> Plan:
    """The plan with `root` for its unfinished parts. Raises ShardError where `here` does not hold all their sources.

    Encoded without them, their files would be judged missing, for good.
    """
    parts = list(plan.parts)
    for number in sorted({_part_number(plan, index) for index in unfinished}):
        part = parts[number]
        gone = [source for source in part.sources if _place(source, source.sha256) not in here]
        if gone:
            raise ShardError(
                f"{plan.output}: {len(unfinished)} shards of the videos in {part.root} are not finished"
                f" (first {unfinished[0]:05d}); finish those first, with the command that began them"
            )
        parts[number] = replace(part, root=root)
    additions = [replace(old, root=part.root) for old, part in zip(plan.additions, parts[1:], strict=True)]
    return replace(plan, root=parts[0].root, additions=tuple(additions))


def _part_number(plan: Plan, index: int) -> int:
    return sum(addition.first_shard <= index for addition in plan.additions)


def _leaks(there: tuple[PlannedFile, ...], new: tuple[PlannedFile, ...]) -> list[str]:
    """One line each for contents and groups that would lie on both sides of a split."""
    told = []
    for name, what in (("sha256", "of the same bytes as"), ("group", "of a group of")):
        splits: dict[str, set[str | None]] = {}
        for source in there:
            if getattr(source, name):
                splits.setdefault(getattr(source, name), set()).add(source.split)
        both = Counter(
            (source.split, other)
            for source in new
            for other in splits.get(getattr(source, name) or "", set()) - {source.split}
        )
        told += [f"{count} new files in {one} are {what} files in {other}" for (one, other), count in both.items()]
    return told
