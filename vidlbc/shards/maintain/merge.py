"""Several shard folders of one codec become one; the bitstreams are copied as they are.

folders --> plans, one behind another, repeats marked --> shard by shard: check, leave repeats out, copy --> new folder

The result is what encoding the corpora one after another into one folder would have given: a file of the same bytes,
label and split as an earlier one is a repeat of it, and its clips are kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidlbc.errors import InputError, ShardError
from vidlbc.shards.encode import is_done
from vidlbc.shards.layout import ShardFiles, clean_stale, exclusive, workspace
from vidlbc.shards.maintain.check import dropped_in, read_shard, read_table, verdicts_in
from vidlbc.shards.maintain.join import followed_by, stored_sources
from vidlbc.shards.manifest import Manifest, gather, write_manifest
from vidlbc.shards.plan import Plan, PlannedFile, mark_repeats
from vidlbc.shards.resume import begin, differences
from vidlbc.shards.sources import FileVerdict
from vidlbc.shards.table import ClipRow
from vidlbc.shards.writer import add_clip, finish_shard, open_tar


@dataclass(frozen=True)
class Merged:
    """A merged folder. `repeats`: (source, folder, the equal source that was there before) of what was left out."""

    plan: Plan
    manifest: Manifest
    repeats: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class _From:
    """Where a shard of the merged folder comes from."""

    plan: Plan
    index: int


def merge_folders(
    folders: Sequence[str | Path], output: str | Path, *, progress: Callable[[int], None] = lambda shards: None
) -> Merged:
    """Merge shard folders into `output`, a new folder; the same call goes on with one that was interrupted.

    Label maps must agree, number by number, as far as the shorter goes: nothing is renumbered. Raises InputError for
    fewer than two folders, ShardError for other weights, settings or labels, unfinished or damaged shards, an `output`
    that holds other shards, a full disk; whole shards are left.
    """
    inputs = [Path(folder) for folder in folders]
    if len({path.resolve() for path in [*inputs, Path(output)]}) < len(inputs) + 1 or len(inputs) < 2:
        raise InputError("merge: expected two or more different folders of shards, input=[A,B], and another output")
    plans = [Plan.load(folder) for folder in inputs]
    for plan in plans[1:]:
        _check_alike(plans[0], plan)
    merged, repeats = _joined(plans, str(output))
    origins = [_From(plan, index) for plan in plans for index in range(len(plan.shards))]
    with exclusive(Path(output)):
        clean_stale(Path(output))
        merged = begin(merged)
        keys: set[str] = set()
        for index, origin in enumerate(origins):
            files = ShardFiles(Path(output), index)
            if not is_done(merged, index):
                _copy_shard(merged, files, origin, keys)
            keys |= {row["key"] for row in read_table(files)[0] or ()}
            progress(1)
        manifest = write_manifest(merged)
    return Merged(merged, manifest, tuple(repeats))


def _check_alike(first: Plan, other: Plan) -> None:
    if first.fingerprint != other.fingerprint or first.settings.visible() != other.settings.visible():
        same_files = replace(other, sources=first.sources, shards=first.shards, classes=first.classes, additions=())
        told = "; ".join(differences(replace(first, additions=()), same_files))
        raise ShardError(f"{other.output}: cannot be merged with {first.output}: {told} (there: {first.output})")
    for label, (one, two) in enumerate(zip(first.classes, other.classes, strict=False)):
        if one != two:
            raise ShardError(
                f"{other.output}: cannot be merged with {first.output}: label {label} is '{two}', there '{one}';"
                " labels are not renumbered; give both corpora one class list, or add the videos to the first folder"
            )


def _joined(plans: Sequence[Plan], output: str) -> tuple[Plan, list[tuple[str, str, str]]]:
    """The merged folder's plan, and what it leaves out. Reads stats and tells unfinished shards."""
    classes = max((plan.classes for plan in plans), key=len)
    merged: Plan | None = None
    stored: list[PlannedFile] = []
    repeats = []
    for plan in plans:
        kept: list[PlannedFile] = []
        whole = set(stored_sources(plan, gather(plan).files))
        for part in plan.parts:
            sources = mark_repeats(part.sources, [*stored, *kept])
            repeats += [
                (new.path, plan.output, new.repeat_of)
                for old, new in zip(part.sources, sources, strict=True)
                if new.repeat_of is not None and old.repeat_of is None
            ]
            kept += [new for old, new in zip(part.sources, sources, strict=True) if old in whole]
            part = replace(part, output=output, classes=classes, sources=tuple(sources))
            merged = part if merged is None else followed_by(merged, part)
        stored += kept
    assert merged is not None
    return merged, repeats


def _copy_shard(merged: Plan, files: ShardFiles, origin: _From, keys: set[str]) -> None:
    old_files = ShardFiles(Path(origin.plan.output), origin.index)
    contents = read_shard(origin.plan, old_files)
    if contents.problems:
        raise ShardError(
            f"{origin.plan.output}: {contents.problems[0]}; repair it first (tools/shards.py repair"
            f" input={origin.plan.output})"
        )
    old_part, old_shard = origin.plan.part(origin.index)
    part, shard = merged.part(files.index)
    old_sources = old_part.sources[old_shard.first : old_shard.last]
    sources = part.sources[shard.first : shard.last]
    new_of = {old.video: new for old, new in zip(old_sources, sources, strict=True) if old.repeat_of is None}
    stats = contents.stats or {}
    rows: list[ClipRow] = []
    with workspace(files) as work:
        with open_tar(work, files) as tar, open(old_files.tar, "rb") as bitstreams:
            for clip in contents.clips:
                source = new_of[clip.row["video"]]
                key = part.key(source, clip.row["start"], clip.row["stop"])
                if source.repeat_of is not None or key in keys:
                    continue
                row: ClipRow = {**clip.row, "key": key, "video": source.video}
                bitstreams.seek(clip.offset)
                add_clip(tar, row, bitstreams, bool(merged.classes))
                rows.append(row)
        verdicts = [
            _verdict(verdict, source, rows)
            for verdict, source in zip(verdicts_in(stats, old_sources) or (), sources, strict=True)
        ]
        finish_shard(merged, files, work, rows, verdicts, dropped_in(stats))


def _verdict(verdict: FileVerdict, source: PlannedFile, rows: Sequence[ClipRow]) -> FileVerdict:
    """What became of a source in the merged folder."""
    if source.repeat_of is not None:
        empty = replace(verdict, status="ok", reason="", frames=0, clips=0, bytes=0, decoder="", decoder_version="")
        return replace(empty, repeat_of=source.repeat_of)
    clips = [row for row in rows if row["video"] == source.video]
    frames, size = sum(row["frames"] for row in clips), sum(row["bytes"] for row in clips)
    return replace(verdict, repeat_of=None, clips=len(clips), frames=frames, bytes=size)
