"""The figures of `pipeline` and `reading` as tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidlbc.qa.benchmark.long_report import plain
from vidlbc.qa.benchmark.pipeline import PipelineFigures
from vidlbc.qa.benchmark.report import machine
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table


def pipeline_table(figures: PipelineFigures) -> str:
    """Stages alone, what they allow together, the whole beside both, and where its time went."""
    slowest, per_frame = figures.slowest, figures.pixels / figures.frames / 1e6
    rows = [
        [stage.name + (" (slowest)" if stage == slowest else ""), f"{stage.fps:.1f}", f"{stage.fps * per_frame:.2f}"]
        for stage in figures.stages
    ]
    rows.append(["what the stages allow together", f"{figures.bound:.1f}", f"{figures.bound * per_frame:.2f}"])
    for run in figures.whole:
        shares = [f"{run.fps / slowest.fps:.1%}", f"{run.fps / figures.bound:.1%}"]
        rows.append([run.name, f"{run.fps:.1f}", f"{run.fps * per_frame:.2f}", *shares])
    head = ["alone, all threads", "frames/s", "Mpixel/s", "of the slowest", "of what they allow"]
    return f"{format_table(rows, head)}\n\n{figures.table}"


def reading_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a reader; the ratio is to the faster way of decoding the source videos."""
    cells = [
        [
            row["reader"],
            f"{row['clips_per_s']:.1f}",
            f"{row['frames_per_s']:.0f}",
            f"{row['bytes']:.0f}",
            f"{row['ratio']:.2f}x",
        ]
        for row in rows
    ]
    return format_table(cells, ["one thread", "clips/s", "frames/s", "bytes a clip", "ratio"])


def write_pipeline(path: Path, settings: Mapping[str, Any], threads: int, figures: PipelineFigures) -> None:
    """All figures, with the machine and the settings."""
    data = {"machine": machine(threads), "settings": plain(settings), **asdict(figures)}
    write_atomic(path, dump_json(data, indent=2))


def write_reading(path: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """All figures, with the machine and the settings."""
    write_atomic(path, dump_json({"machine": machine(1), "settings": plain(settings), "reading": list(rows)}, indent=2))
