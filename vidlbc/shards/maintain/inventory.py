"""What a folder holds: its shards, its clips, and sums by split and class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, ShardError
from vidlbc.shards.layout import ShardFiles, read_stats
from vidlbc.shards.maintain.check import read_stats_file, read_table
from vidlbc.shards.maintain.join import stored_sources
from vidlbc.shards.manifest import gather
from vidlbc.shards.plan import Plan
from vidlbc.shards.table import ClipRow


@dataclass(frozen=True)
class ShardLine:
    """One shard: sums from its stats (0 where it is not done), and `done`, `unfinished` or `damaged`."""

    index: int
    split: str | None
    files: int
    clips: int
    frames: int
    bytes: int
    state: str


def list_shards(folder: str | Path, split: str | None = None) -> list[ShardLine]:
    """Every planned shard, of one split where it is given. Raises ShardError for a damaged plan."""
    plan = Plan.load(folder)
    lines = []
    for index, shard in enumerate(plan.shards):
        if split is not None and shard.split != split:
            continue
        files = ShardFiles(Path(folder), index)
        found = read_stats(files) if read_stats_file(files)[0] is not None else None
        sums = [(found or {}).get(name) for name in ("n_clips", "frames", "bytes")]
        good = found is not None and all(isinstance(value, int) for value in sums)
        clips, frames, size = (int(value or 0) if good else 0 for value in sums)
        state = "done" if good else "damaged" if files.stats.exists() else "unfinished"
        lines.append(ShardLine(index, shard.split, shard.last - shard.first, clips, frames, size, state))
    return lines


def list_clips(folder: str | Path, split: str | None = None, label: str | None = None) -> list[ClipRow]:
    """The rows of all clips that can be read, of one split and of one label (name or number) where these are given."""
    plan = Plan.load(folder)
    wanted = None if label is None else label_number(plan, label)
    rows = []
    for index, shard in enumerate(plan.shards):
        if split is None or shard.split == split:
            table, _, _ = read_table(ShardFiles(Path(folder), index))
            rows += [row for row in table or () if label is None or row["label"] == wanted]
    return rows


def label_number(plan: Plan, label: str) -> int:
    """The number of a class by its name, or by the number itself. Raises InputError for an unknown one."""
    if label in plan.classes:
        return plan.classes.index(label)
    if label.isdecimal() and int(label) < len(plan.classes):
        return int(label)
    raise InputError(f"label={label}: {plan.output} has no such class (it has {len(plan.classes)})")


def statistics(folder: str | Path) -> dict[str, Any]:
    """Sums of a finished folder, ready for JSON. Raises ShardError where shards are missing or damaged.

    `splits` and `classes` hold, by name, clips, videos, frames, hours, bytes, `bpp` (bit/pixel) and `kbps` (kbit/s of
    the clips whose rate is known). `repeats` are listed files whose content an earlier one has; `other_samples` are
    contents that are stored more than once, under other labels or splits.
    """
    plan = Plan.load(folder)
    manifest = gather(plan)
    rows: list[ClipRow] = []
    for index in range(len(plan.shards)):
        files = ShardFiles(Path(folder), index)
        table, _, fault = read_table(files)
        if table is None:
            raise ShardError(f"{files.parquet}: {fault}; see vidlbc shards verify")
        rows += table
    by_content: dict[str, list[str]] = {}
    for source in stored_sources(plan, manifest.files):
        places = by_content.setdefault(source.sha256, [])
        places += [source.path] if source.path not in places else []
    return {
        "codec": plan.fingerprint,
        "model": plan.settings.model,
        "settings": plan.settings.visible(),
        "corpora": [{"root": part.root, "form": part.form, "files": len(part.sources)} for part in plan.parts],
        "shards": len(plan.shards),
        "total": _sums(rows) | {"source_bytes": manifest.source_bytes},
        "splits": _by(rows, "split"),
        "classes": _by(rows, "label_name"),
        "verdicts": dict(sorted(Counter(file["status"] for file in manifest.files).items())),
        "qp": _counts(rows, "qp"),
        "variant": _counts(rows, "variant"),
        "repeats": [
            {"source": file["path"], "repeat_of": file["repeat_of"]}
            for file in manifest.files
            if file["repeat_of"] is not None
        ],
        "other_samples": [paths for paths in by_content.values() if len(paths) > 1],
    }


def _by(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault("(none)" if row[name] is None else row[name], []).append(row)
    return {group: _sums(members) for group, members in sorted(groups.items())}


def _sums(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = list(rows)
    pixels = sum(row["frames"] * row["height"] * row["width"] for row in rows)
    size = sum(row["bytes"] for row in rows)
    timed = [(row, rate) for row in rows if (rate := _rate(row["fps"]))]
    seconds = float(sum(row["frames"] / rate for row, rate in timed))
    return {
        "clips": len(rows),
        "videos": len({row["video"] for row in rows}),
        "frames": sum(row["frames"] for row in rows),
        "hours": seconds / 3600,
        "bytes": size,
        "bpp": 8 * size / pixels if pixels else None,
        "kbps": 8 * sum(row["bytes"] for row, _ in timed) / seconds / 1000 if seconds else None,
    }


def _rate(text: str | None) -> Fraction | None:
    try:
        rate = Fraction(text) if text else None
    except (ValueError, ZeroDivisionError):
        raise ShardError(f"fps={text}: no frame rate; see vidlbc shards verify") from None
    return rate if rate and rate > 0 else None


def _counts(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, int]:
    counts = Counter(row[name] for row in rows)
    return {str(value): counts[value] for value in sorted(counts, key=lambda value: (str(type(value)), value))}
