"""Mend what can be mended: from the tar's own rows, from the sources, or, when told to, by letting damaged clips go.

problems of a shard --+-- every clip is whole --------> rewrite: tar, table, stats as they were
                      +-- the sources are at hand ----> remove: the encoding command makes the shard again
                      +-- neither, and drop=true -----> drop: the clips that are whole stay
                      +-- neither --------------------> leave

What is replaced goes to OUT/manifest/removed/SHARD.N/ first, with a note why; nothing is deleted.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vidlbc.data.content import content_of
from vidlbc.run.atomic_files import dump_json, full_disk_as_error, sync_folder, write_atomic
from vidlbc.shards.layout import MANIFEST, ShardFiles, clean_stale, exclusive, read_stats, workspace
from vidlbc.shards.maintain.check import (
    Problem,
    ShardContents,
    against_plan,
    against_verdicts,
    dropped_in,
    read_shard,
    verdict_of,
    verdicts_in,
    vouches,
)
from vidlbc.shards.maintain.folder import REMOVED, require_shards
from vidlbc.shards.maintain.scan import is_sound
from vidlbc.shards.manifest import write_manifest
from vidlbc.shards.plan import Plan, PlannedFile
from vidlbc.shards.sources import FileVerdict
from vidlbc.shards.table import ClipRow, without_place
from vidlbc.shards.writer import add_clip, finish_shard, open_tar

Action = Literal["rewrite", "remove", "drop", "leave"]
_VERDICT = re.compile(r"damaged \((\d+) frames\): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Repair:
    """What is, or would be, done about one shard, and why. `kept` and `lost`: clips, counted where that is known."""

    shard: str
    action: Action
    why: str
    kept: int
    lost: int
    problems: tuple[Problem, ...]


def repair_folder(
    folder: str | Path,
    *,
    apply: bool = False,
    drop: bool = False,
    progress: Callable[[int], None] = lambda shards: None,
) -> list[Repair]:
    """What repairs each damaged shard; done only with `apply`. Shards without a problem are not touched.

    Raises InputError where there is no folder of shards, ShardError for a damaged plan, a folder in use, a full disk.
    """
    folder = Path(folder)
    require_shards(folder)
    plan = Plan.load(folder)
    if not apply:
        return _repairs(plan, False, drop, progress)
    with exclusive(folder):
        clean_stale(folder)
        plan.save()  # the label map again; the plan is as it was
        repairs = _repairs(plan, True, drop, progress)
        whole = all(read_stats(ShardFiles(folder, index)) for index in range(len(plan.shards)))
        if whole and not any(repair.action == "leave" for repair in repairs):
            write_manifest(plan)
    return repairs


def _repairs(plan: Plan, apply: bool, drop: bool, progress: Callable[[int], None]) -> list[Repair]:
    found = []
    for index in range(len(plan.shards)):
        files = ShardFiles(Path(plan.output), index)
        if any(path.exists() for path in (files.tar, files.parquet, files.stats)):
            contents = read_shard(plan, files)
            if contents.problems:
                found.append(_repair(plan, files, contents, apply, drop))
        progress(1)
    return found


def _repair(plan: Plan, files: ShardFiles, contents: ShardContents, apply: bool, drop: bool) -> Repair:
    part, shard = plan.part(files.index)
    sources = part.sources[shard.first : shard.last]
    clips = _whole_clips(part, sources, files, contents) if files.tar.is_file() else []
    rows = [row for row, _ in clips]
    verdicts = _verdicts(plan, files, contents, sources, rows)
    lost = max(0, sum(verdict.clips for verdict in verdicts or ()) - len(rows))
    dropped = dropped_in(contents.stats or {})

    def told(action: Action, why: str) -> Repair:
        return Repair(files.stem, action, why, len(rows), lost, contents.problems)

    if verdicts and not against_verdicts(verdicts, sources, rows):
        repair = told("rewrite", f"all {len(rows)} clips are whole")
    elif (gone := _not_at_hand(part, sources)) is None:
        repair = told("remove", "its sources are at hand: encoding again makes it anew")
    elif drop and verdicts and rows:
        verdicts, newly = _without_lost(verdicts, sources, rows, contents)
        dropped += newly
        repair = told("drop", f"{lost} clips are lost; source {gone}")
    else:
        hint = "drop=true keeps the others" if verdicts and rows else "nothing here tells what it held"
        return told("leave", f"{f'{lost} clips are' if lost else 'it is'} damaged and source {gone}; {hint}")
    if not apply:
        return repair
    aside = _set_aside(files, repair)
    if repair.action == "remove":
        for path in (files.stats, files.parquet, files.tar):
            path.unlink(missing_ok=True)
        sync_folder(files.folder)
    else:
        with workspace(files) as work:
            with open_tar(work, files) as tar, open(files.tar if clips else os.devnull, "rb") as old:
                for row, offset in clips:
                    old.seek(offset)
                    add_clip(tar, row, old, bool(plan.classes))
            finish_shard(plan, files, work, rows, verdicts or [], dropped)
    return replace(repair, why=f"{repair.why}; what was there is in {MANIFEST}/{REMOVED}/{aside.name}")


def _set_aside(files: ShardFiles, repair: Repair) -> Path:
    """Keep the shard's files, as they are, under the manifest; hard links where the disk has them."""
    parent = files.folder / MANIFEST / REMOVED
    number = 1
    while (parent / f"{files.stem}.{number}").exists():
        number += 1
    aside = parent / f"{files.stem}.{number}"
    with full_disk_as_error(files.folder):
        aside.mkdir(parents=True)
        for path in (files.tar, files.parquet, files.stats):
            if not path.is_file():
                continue
            # Another suffix, so that nobody who looks for tars finds a damaged one.
            kept = aside / f"{path.name}.{REMOVED}"
            try:
                os.link(path, kept)
            except OSError:
                shutil.copyfile(path, kept)
        note = {"action": repair.action, "why": repair.why, "problems": [str(problem) for problem in repair.problems]}
        write_atomic(aside / "why.json", dump_json(note, indent=1))
    return aside


def _not_at_hand(part: Plan, sources: Sequence[PlannedFile]) -> str | None:
    """The first source that cannot be encoded again as planned, and why; None where all can."""
    for source in sources:
        if source.sha256 and source.repeat_of is None:
            content = content_of(part.root, source.path)
            if content.sha256 != source.sha256:
                return f"{source.path} {'cannot be read: ' + content.problem if content.problem else 'has changed'}"
    return None


def _without_lost(
    verdicts: Sequence[FileVerdict],
    sources: Sequence[PlannedFile],
    rows: Sequence[Mapping[str, Any]],
    contents: ShardContents,
) -> tuple[list[FileVerdict], list[dict[str, Any]]]:
    """The verdicts of what is left, and what is known of the clips that are not."""
    left = []
    for verdict, source in zip(verdicts, sources, strict=True):
        clips = [row for row in rows if row["video"] == source.video and source.repeat_of is None]
        if len(clips) < verdict.clips:
            reason = f"{verdict.clips - len(clips)} of {verdict.clips} clips dropped by a repair"
            verdict = replace(
                verdict,
                status="damaged" if clips else "unreadable",
                reason=f"{verdict.reason}; {reason}" if verdict.reason else reason,
                frames=sum(row["frames"] for row in clips),
                clips=len(clips),
                bytes=sum(row["bytes"] for row in clips),
            )
        left.append(verdict)
    whole = {row["key"] for row in rows}
    known = {row["key"]: row for row in [*(contents.table or ()), *(clip.row for clip in contents.clips)]}
    return left, [
        {"key": key, "source": row["source"], "start": row["start"], "stop": row["stop"]}
        for key, row in known.items()
        if key not in whole
    ]


def _whole_clips(
    part: Plan, sources: Sequence[PlannedFile], files: ShardFiles, contents: ShardContents
) -> list[tuple[ClipRow, int]]:
    """(row, offset) of every clip whose bitstream is what its row says, in the order that encoding gives."""
    places = {source.video: place for place, source in enumerate(sources) if source.repeat_of is None}

    def planned(row: ClipRow) -> bool:
        place = places.get(row["video"])
        return not against_plan(part, None if place is None else sources[place], row)

    found = {clip.row["key"]: (clip.row, clip.offset) for clip in contents.clips if clip.sound and planned(clip.row)}
    with open(files.tar, "rb") as tar:
        for listed in contents.table or ():
            row = without_place(listed)
            if row["key"] not in found and planned(row) and is_sound(tar, row, listed["offset"]):
                found[row["key"]] = row, listed["offset"]
    return sorted(found.values(), key=lambda clip: (places[clip[0]["video"]], clip[0]["start"]))


def _verdicts(
    plan: Plan,
    files: ShardFiles,
    contents: ShardContents,
    sources: Sequence[PlannedFile],
    rows: Sequence[Mapping[str, Any]],
) -> list[FileVerdict] | None:
    """The shard's verdicts: from its stats, else the manifest, else from the rows of a tar without a fault; or None."""
    if contents.stats and vouches(contents.stats) and (found := verdicts_in(contents.stats, sources)):
        return found
    if found := _from_manifest(plan, files.index, sources):
        return found
    if any(problem.file == files.tar.name for problem in contents.problems):
        return None
    made = [_from_rows(source, [row for row in rows if row["video"] == source.video]) for source in sources]
    return None if None in made else [verdict for verdict in made if verdict is not None]


def _from_manifest(plan: Plan, index: int, sources: Sequence[PlannedFile]) -> list[FileVerdict] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(Path(plan.output) / MANIFEST / "manifest.parquet")
        entries = [entry for entry in table.to_pylist() if entry.get("shard") == index]
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None
    if len(entries) != len(sources):
        return None
    found = [verdict_of(entry, source) for entry, source in zip(entries, sources, strict=True)]
    return None if None in found else [verdict for verdict in found if verdict is not None]


def _from_rows(source: PlannedFile, rows: Sequence[Mapping[str, Any]]) -> FileVerdict | None:
    """None where the clips do not tell: a file that gave none, and is no repeat, has its reason elsewhere."""
    if source.repeat_of is not None:
        rows = []
    elif not rows:
        return None
    damaged = _VERDICT.fullmatch(rows[0]["verdict"]) if rows else None
    names = ("path", "split", "label", "group", "start", "stop", "sha256", "size", "repeat_of")
    return FileVerdict(
        **{name: getattr(source, name) for name in names},
        status="damaged" if damaged else "ok",
        reason=" ".join(damaged[2].split()) if damaged else "",
        frames=sum(row["frames"] for row in rows),
        clips=len(rows),
        bytes=sum(row["bytes"] for row in rows),
        decoder=rows[0]["decoder"] if rows else "",
        decoder_version=rows[0]["decoder_version"] if rows else "",
    )
