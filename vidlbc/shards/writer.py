"""The three files of a shard, from rows, bitstreams and verdicts; in a work folder first, then into place.

    open_tar --> add_clip, ... --> finish_shard: table, stats --fsync, rename--> tar, table, stats, in that order

Equal input gives equal bytes: members have no time and no owner.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vidlbc.run.atomic_files import dump_json, publish
from vidlbc.shards.layout import ShardFiles
from vidlbc.shards.plan import Plan
from vidlbc.shards.sources import FileVerdict
from vidlbc.shards.table import ClipRow, shard_table, table_bytes, without_place


def open_tar(work: Path, files: ShardFiles) -> tarfile.TarFile:
    """The shard's tar, empty, in the work folder."""
    return tarfile.open(work / files.tar.name, "w", format=tarfile.USTAR_FORMAT)


def add_clip(tar: tarfile.TarFile, row: ClipRow, bitstream: BinaryIO, labelled: bool) -> None:
    """Add KEY.vlbc, KEY.json (the row, without `tar` and `offset`) and KEY.cls, the label.

    `labelled`: some of the corpus are; those that are not have -1 then, for readers want the same members of each.
    """
    tar.addfile(member(f"{row['key']}.vlbc", row["bytes"]), bitstream)
    meta = clip_json(row)
    tar.addfile(member(f"{row['key']}.json", len(meta)), io.BytesIO(meta))
    if labelled or row["label"] is not None:
        label = b"-1" if row["label"] is None else str(row["label"]).encode()
        tar.addfile(member(f"{row['key']}.cls", len(label)), io.BytesIO(label))


def clip_json(row: ClipRow) -> bytes:
    """What KEY.json holds."""
    return dump_json(without_place(row))


def member(name: str, size: int) -> tarfile.TarInfo:
    """A tar member with nothing of this machine: time, owner and group are 0, their names empty."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def finish_shard(
    plan: Plan,
    files: ShardFiles,
    work: Path,
    rows: Sequence[ClipRow],
    verdicts: Sequence[FileVerdict],
    dropped: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write the table and the stats of the tar in `work`, and put all three into place; returns the stats.

    `rows`: of the tar's clips, in its order. `verdicts`: of the shard's files. `dropped`: see `stats_of`.
    """
    tar_path = work / files.tar.name
    with tarfile.open(tar_path) as tar:  # where each bitstream lies, as a reader will find it
        offsets = {info.name: info.offset_data for info in tar}
    placed: list[ClipRow] = [{**row, "tar": files.tar.name, "offset": offsets[f"{row['key']}.vlbc"]} for row in rows]
    table = table_bytes(shard_table(placed))
    parquet_path = work / files.parquet.name
    parquet_path.write_bytes(table)
    stats = stats_of(plan, files.index, tar_path.stat().st_size, table, rows, verdicts, dropped)
    stats_path = work / files.stats.name
    stats_path.write_bytes(dump_json(stats, indent=1))
    # A stale stats file must not vouch, even for a moment, for a tar that is being replaced.
    files.stats.unlink(missing_ok=True)
    publish(tar_path, files.tar)
    publish(parquet_path, files.parquet)
    publish(stats_path, files.stats)
    return stats


def stats_of(
    plan: Plan,
    index: int,
    tar_bytes: int,
    table: bytes,
    rows: Sequence[ClipRow],
    verdicts: Sequence[FileVerdict],
    dropped: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The stats of shard `index`: sums of its rows, and the verdict of every listed file.

    `dropped`: key, source, start and stop of clips that a repair could not save; named only where there are some.
    """
    part, shard = plan.part(index)
    stats: dict[str, Any] = {
        "plan": part.identity,
        "shard": index,
        "split": shard.split,
        "codec": plan.fingerprint,
        "qp": plan.settings.qp,
        "tar_bytes": tar_bytes,
        "parquet_bytes": len(table),
        "parquet_sha256": hashlib.sha256(table).hexdigest(),
        "n_files": len(verdicts),
        "n_failed": sum(verdict.status == "unreadable" for verdict in verdicts),
        "n_damaged": sum(verdict.status == "damaged" for verdict in verdicts),
        "n_repeats": sum(verdict.repeat_of is not None for verdict in verdicts),
        "n_clips": len(rows),
        "frames": sum(row["frames"] for row in rows),
        "pixels": sum(row["frames"] * row["height"] * row["width"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "estimated_bits": sum(row["estimated_bits"] for row in rows),
        "files": [verdict.to_json() for verdict in verdicts],
    }
    if short := sum(map(_falls_short, rows)):
        stats["n_short"] = short
    stats |= {"dropped": [dict(clip) for clip in dropped]} if dropped else {}
    return {**stats, "sha256": stats_digest(stats)}


def _falls_short(row: ClipRow) -> bool:
    """Whether a clip is worse than the quality, or larger than the rate, that was asked for."""
    if row["target"] is None or row["reached"] is None:
        return False
    from vidlbc.codec.rate_control import Target  # it brings torch

    return not Target.parse(row["target"]).met(row["reached"])


def stats_digest(stats: Mapping[str, Any]) -> str:
    """sha256 (hex) over all of the stats but this itself: the verdicts lie nowhere else in the shard."""
    return hashlib.sha256(dump_json({k: v for k, v in stats.items() if k != "sha256"})).hexdigest()
