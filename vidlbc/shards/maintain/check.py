"""Is a shard what its plan, its own rows and its own sums say? Every problem is told; none is raised.

tar --scan--> rows --+-- against the plan: source, span, key, label, split
                     +-- against 00000.parquet: row by row, and where each bitstream lies
                     +-- against 00000_stats.json: sums, sizes, a verdict for every planned file
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vidlbc.run.atomic_files import dump_json
from vidlbc.shards.layout import ShardFiles
from vidlbc.shards.maintain.scan import Clip, scan_tar
from vidlbc.shards.plan import Plan, PlannedFile
from vidlbc.shards.sources import FileVerdict
from vidlbc.shards.table import ClipRow, different, row_fault, with_all_columns
from vidlbc.shards.writer import stats_digest, stats_of

_STATUSES = ("ok", "damaged", "unreadable")


@dataclass(frozen=True)
class Problem:
    """Something wrong: in which file of the folder, about which clip (None: the whole file), and what."""

    file: str
    clip: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}: " + (f"clip {self.clip}: " if self.clip else "") + self.what


@dataclass(frozen=True)
class ShardContents:
    """What could be read of a shard. `table` and `stats` are None where they are missing or damaged beyond reading."""

    problems: tuple[Problem, ...]
    clips: tuple[Clip, ...]
    table: tuple[ClipRow, ...] | None
    stats: dict[str, Any] | None


def read_shard(plan: Plan, files: ShardFiles) -> ShardContents:
    """Read and check every byte of a shard. Never raises for what lies there."""
    problems: list[Problem] = []

    def tell(path: Path, what: str, clip: str | None = None) -> None:
        problems.append(Problem(path.name, clip, what))

    clips: tuple[Clip, ...] = ()
    try:
        scan = scan_tar(files.tar)
        clips = tuple(scan.clips)
        for key, what in scan.faults:
            tell(files.tar, what, key)
    except OSError as error:
        tell(files.tar, reason_of(error))
    part, shard = plan.part(files.index)
    sources = part.sources[shard.first : shard.last]
    by_video = {source.video: source for source in sources if source.repeat_of is None}
    for clip in clips:
        fault = against_plan(part, by_video.get(clip.row["video"]), clip.row)
        if fault:
            tell(files.tar, fault, clip.row["key"])
    for key in repeated([clip.row["key"] for clip in clips]):
        tell(files.tar, "stored twice", key)

    table, table_data, fault = read_table(files)
    if fault:
        tell(files.parquet, fault)
    if table is not None:
        for clip_key, what in _against_table(clips, table):
            tell(files.parquet, what, clip_key)

    stats, fault = read_stats_file(files)
    if fault:
        tell(files.stats, fault)
    verdicts = verdicts_in(stats, sources) if stats is not None else None
    if stats is not None and (verdicts is None or not vouches(stats)):
        tell(files.stats, "does not list the files of the plan" if verdicts is None else "damaged stats (their sha256)")
        verdicts = None
    if stats is not None and verdicts is not None:
        rows = [clip.row for clip in clips]
        for what in against_verdicts(verdicts, sources, rows):
            tell(files.stats, what)
        size = files.tar.stat().st_size if files.tar.is_file() else 0
        expected = stats_of(plan, files.index, size, table_data, rows, verdicts, dropped_in(stats))
        for name in {"parquet_sha256", "sha256"} - stats.keys():
            del expected[name]  # shards of an older version
        for name in sorted(expected.keys() | stats.keys()):
            if stats.get(name) != expected.get(name):
                tell(files.stats, f"{name}={_short(stats.get(name))}, the shard has {_short(expected.get(name))}")
    return ShardContents(tuple(problems), clips, None if table is None else tuple(table), stats)


def check_shard(plan: Plan, index: int) -> list[Problem]:
    """The problems of shard `index` of `plan`, in the plan's folder."""
    files = ShardFiles(Path(plan.output), index)
    missing = [path.name for path in (files.tar, files.parquet, files.stats) if not path.is_file()]
    if len(missing) == 3:
        return [Problem(files.tar.name, None, "missing: the shard was not encoded, or its files were removed")]
    return list(read_shard(plan, files).problems)


def against_plan(part: Plan, source: PlannedFile | None, row: Mapping[str, Any]) -> str:
    """How a row contradicts the plan that its shard was made from; empty where it does not."""
    if source is None:
        return f"its source {row['source']} is not planned for this shard"
    name = None if source.label is None else part.classes[source.label]
    wanted = {
        "source": source.path,
        "source_sha256": source.sha256,
        "label": source.label,
        "label_name": name,
        "split": source.split,
        "group": source.group,
        "codec": part.fingerprint,
        "bits": 8 * row["bytes"],
        "stop": row["start"] + (row["frames"] - 1) * part.settings.step + 1,
        "key": part.key(source, row["start"], row["stop"]),
    }
    for field, value in wanted.items():
        if row[field] != value:
            return f"{field}={_short(row[field])}, by the plan it is {_short(value)}"
    return ""


def against_verdicts(
    verdicts: Sequence[FileVerdict], sources: Sequence[PlannedFile], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """How the files' verdicts contradict the clips that lie there; `verdicts` and `sources` go in pairs."""
    by_video: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_video.setdefault(row["video"], []).append(row)
    told = []
    for verdict, source in zip(verdicts, sources, strict=True):
        clips = by_video.get(source.video, []) if source.repeat_of is None else []
        there = (len(clips), sum(row["frames"] for row in clips), sum(row["bytes"] for row in clips))
        if (verdict.clips, verdict.frames, verdict.bytes) != there:
            told.append(
                f"{verdict.path}: {verdict.clips} clips, {verdict.frames} frames, {verdict.bytes} bytes recorded;"
                f" there are {there[0]}, {there[1]}, {there[2]}"
            )
        if {(row["decoder"], row["decoder_version"]) for row in clips} - {(verdict.decoder, verdict.decoder_version)}:
            told.append(f"{verdict.path}: the rows name another decoder")
    return told


def vouches(stats: Mapping[str, Any]) -> bool:
    """Are the stats those whose sha256 they tell? Those of an older version tell none."""
    return "sha256" not in stats or stats["sha256"] == stats_digest(stats)


def verdicts_in(stats: Mapping[str, Any], sources: Sequence[PlannedFile]) -> list[FileVerdict] | None:
    """The verdicts of a shard's stats; None where they are not those of `sources`, in order."""
    listed = stats.get("files")
    if not isinstance(listed, list) or len(listed) != len(sources):
        return None
    verdicts = [verdict_of(entry, source) for entry, source in zip(listed, sources, strict=True)]
    return None if None in verdicts else [verdict for verdict in verdicts if verdict is not None]


def verdict_of(entry: Any, source: PlannedFile) -> FileVerdict | None:
    """The verdict of `source` that `entry` (of stats or manifest) holds, or None: of another file or another form."""
    names = {field.name for field in fields(FileVerdict)}
    if not isinstance(entry, Mapping) or not names - {"notes"} <= entry.keys():
        return None
    known = {name: entry[name] for name in names & entry.keys()}
    verdict = FileVerdict(**{**known, "notes": "" if known.get("notes") is None else known["notes"]})
    planned = ("path", "split", "label", "group", "start", "stop", "sha256", "size", "repeat_of")
    counts = (verdict.frames, verdict.clips, verdict.bytes)
    texts = (verdict.reason, verdict.decoder, verdict.decoder_version, verdict.notes)
    fits = (
        all(getattr(verdict, name) == getattr(source, name) for name in planned)
        and verdict.status in _STATUSES
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(text, str) for text in texts)
        and (verdict.status == "ok") == (not verdict.reason)
    )
    return verdict if fits else None


def dropped_in(stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The clips that a repair dropped, as stats name them."""
    dropped = stats.get("dropped")
    good = isinstance(dropped, list) and all(isinstance(clip, dict) for clip in dropped)
    return list(dropped) if good and dropped else []


def read_table(files: ShardFiles) -> tuple[list[ClipRow] | None, bytes, str]:
    """The rows of 00000.parquet (None: unreadable), the file's bytes, and what is wrong with it in words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = files.parquet.read_bytes()
    except OSError as error:
        return None, b"", reason_of(error)
    try:
        rows = with_all_columns(pq.read_table(pa.BufferReader(data))).to_pylist()
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        return None, data, f"damaged table ({_short(' '.join(str(error).split()))})"
    for row in rows:
        fault = row_fault(row)
        if not fault and not (isinstance(row["offset"], int) and row["offset"] >= 0 and row["tar"] == files.tar.name):
            fault = f"tar={row['tar']}, offset={row['offset']}"
        if fault:
            return None, data, f"damaged table (a row of {_short(row.get('key'))} with {fault})"
    return rows, data, ""


def read_stats_file(files: ShardFiles) -> tuple[dict[str, Any] | None, str]:
    """The stats (None: no JSON object), and what is wrong with their form in words."""
    try:
        data = files.stats.read_bytes()
        stats = json.loads(data)
        if not isinstance(stats, dict):
            return None, "damaged stats (expected a JSON object)"
        return stats, "" if dump_json(stats, indent=1) == data else "damaged stats (not as they were written)"
    except OSError as error:
        return None, reason_of(error)
    except (ValueError, RecursionError) as error:
        return None, f"damaged stats ({_short(' '.join(str(error).split()))})"


def repeated(keys: Iterable[str]) -> list[str]:
    """The keys that occur more than once."""
    return sorted(key for key, count in Counter(keys).items() if count > 1)


def _against_table(clips: Sequence[Clip], table: Sequence[ClipRow]) -> list[tuple[str | None, str]]:
    """How 00000.parquet contradicts the tar, by clip."""
    told: list[tuple[str | None, str]] = []
    by_key = {row["key"]: row for row in table}
    for key in repeated(row["key"] for row in table):
        told.append((key, "listed twice"))
    for clip in clips:
        row = by_key.pop(clip.row["key"], None)
        if row is None:
            told.append((clip.row["key"], "not listed, but in the tar"))
        elif different(row, clip.row):
            names = ", ".join(different(row, clip.row))
            told.append((clip.row["key"], f"other values than in the tar: {names}"))
        elif row["offset"] != clip.offset:
            told.append((clip.row["key"], f"said to lie at byte {row['offset']}, it lies at {clip.offset}"))
    told += [(key, "listed, but not whole in the tar") for key in by_key]
    order = [row["key"] for row in table]
    if not told and order != [clip.row["key"] for clip in clips]:
        told.append((None, "lists the clips in another order than the tar"))
    return told


def reason_of(error: OSError) -> str:
    """Why a file of the folder cannot be read."""
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
