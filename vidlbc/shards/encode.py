"""`encode_shard`: the pure function that every launcher calls. It knows files, bytes and one codec; no engine.

    sources of the shard --encode_source--> clips + verdicts --> work folder: tar, table, stats
       --fsync, rename--> 00000.tar, 00000.parquet, 00000_stats.json, in that order

Equal plans give equal bytes: no time, path of the machine, process id or order of arrival enters what is written.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidlbc.errors import ShardError
from vidlbc.run.lanes import in_lanes
from vidlbc.shards.claims import Claim, Notes
from vidlbc.shards.layout import ShardFiles, read_stats, workspace
from vidlbc.shards.plan import Plan
from vidlbc.shards.sources import ClipCodec, FileVerdict, OpenReader, encode_source, open_video
from vidlbc.shards.table import ClipRow
from vidlbc.shards.writer import add_clip, finish_shard, open_tar

# A file whose worker died this often is not opened again. No setting: the verdict is part of the shard's bytes.
DEATHS = 2


@dataclass(frozen=True)
class ShardReport:
    """What happened to one shard. `seconds` by the clock and of work by stage are this call's; the rest follows from
    the plan."""

    index: int
    skipped: bool
    files: int
    failed: int
    damaged: int
    repeats: int
    clips: int
    frames: int
    bytes: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)


def load_codec(plan: Plan, device: str = "auto") -> ClipCodec:
    """The plan's codec, by its name."""
    import vidlbc

    settings = plan.settings
    codec: ClipCodec = vidlbc.load(
        settings.model, device, settings.temporal, settings.precision, effort=settings.effort, keyint=settings.keyint
    )
    return codec


def is_done(plan: Plan, index: int) -> bool:
    """Is shard `index` finished? Raises ShardError when what lies there was made from another plan."""
    stats = read_stats(ShardFiles(Path(plan.output), index))
    if stats is not None and stats.get("plan") != plan.part(index)[0].identity:
        raise ShardError(f"{plan.output}/{index:05d}_stats.json: made from another plan; choose a new folder")
    return stats is not None


def encode_shard(
    plan: Plan,
    index: int,
    codec: ClipCodec | None = None,
    *,
    open_reader: OpenReader = open_video,
    progress: Callable[[Claim], None] | None = None,
    quarantined: Collection[int] = (),
    lanes: int | None = None,
) -> ShardReport:
    """Encode shard `index` of `plan` into its folder, or find it done. The bytes depend on plan and index alone.

    Unreadable and damaged files become verdicts. `quarantined`: places in `plan.sources` of files that killed DEATHS
    workers; they are not opened, and unreadable. `progress` is told after every block of frames. `lanes`: files that
    are encoded side by side; None: as many as suit the codec.

    Raises ShardError: index out of range, a codec of other weights than planned, a full disk; the folder then holds
    whole shards only, and a later call starts this one afresh.
    """
    if not 0 <= index < len(plan.shards):
        raise ShardError(f"shard {index}: the plan of {plan.output} has shards 0 to {len(plan.shards) - 1}")
    began = time.monotonic()
    files = ShardFiles(Path(plan.output), index)
    if is_done(plan, index):
        return report_of(read_stats(files) or {}, skipped=True, seconds=time.monotonic() - began)
    codec = codec or load_codec(plan)
    if codec.fingerprint != plan.fingerprint:
        raise ShardError(
            f"{plan.output}: planned for weights {plan.fingerprint[:8]}, the codec at hand has {codec.fingerprint[:8]}"
        )
    files.folder.mkdir(parents=True, exist_ok=True)
    with workspace(files) as work:
        if is_done(plan, index):  # by the process that was waited for
            return report_of(read_stats(files) or {}, skipped=True, seconds=time.monotonic() - began)
        with codec.clock.measured() as stages, Notes(work, progress) as notes:
            stats = _write_shard(plan, files, work, codec, open_reader, notes, quarantined, lanes or codec.lanes)
    return replace(report_of(stats, skipped=False, seconds=time.monotonic() - began), stages=stages)


def _write_shard(
    plan: Plan,
    files: ShardFiles,
    work: Path,
    codec: ClipCodec,
    open_reader: OpenReader,
    notes: Notes,
    quarantined: Collection[int],
    lanes: int,
) -> dict[str, Any]:
    part, shard = plan.part(files.index)
    rows: list[ClipRow] = []
    verdicts: list[FileVerdict] = []
    first = plan.shards[files.index].first

    def encoded(number: int) -> tuple[list[tuple[ClipRow, Path]], FileVerdict, Path]:
        source, place = part.sources[shard.first + number], first + number
        if place in quarantined:
            source = replace(source, problem=f"its worker died {DEATHS} times: quarantined")
        notes.take(place)
        own = work / str(place)
        own.mkdir()
        clips, verdict = encode_source(part, source, own, codec, open_reader, notes)
        notes.put_down(place, verdict.status == "unreadable")
        return clips, verdict, own

    with open_tar(work, files) as tar:
        with closing(in_lanes(encoded, shard.last - shard.first, lanes, notes.stop)) as files_in_order:
            for clips, verdict, own in files_in_order:
                with codec.clock.stage("files"):
                    for row, path in clips:
                        with open(path, "rb") as bitstream:
                            add_clip(tar, row, bitstream, bool(plan.classes))
                        rows.append(row)
                    shutil.rmtree(own)
                verdicts.append(verdict)
    with codec.clock.stage("files"):
        return finish_shard(plan, files, work, rows, verdicts)


def report_of(stats: dict[str, Any], *, skipped: bool, seconds: float) -> ShardReport:
    """The report of a shard from its stats."""
    return ShardReport(
        stats["shard"],
        skipped,
        stats["n_files"],
        stats["n_failed"],
        stats["n_damaged"],
        stats["n_repeats"],
        stats["n_clips"],
        stats["frames"],
        stats["bytes"],
        seconds,
    )
