"""The long benchmark's figures as a table, a verdict, JSON and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidlbc.evaluate.plots import plot_long_clip
from vidlbc.qa.benchmark.long import EARLY_FRAMES, LongFigures, LongRun
from vidlbc.qa.benchmark.report import machine
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table

WITHIN = 0.1


def summary(figures: LongFigures) -> dict[str, Any]:
    """For each direction: `cost_ratio`, the largest cost of a frame over the smallest, of all lengths; `drift` and
    `memory_growth` of the longest clip, see `Run`. `constant`: all costs lie within 10% of each other."""
    found: dict[str, Any] = {}
    for name, runs in _directions(figures).items():
        costs = [run.cpu_ms for run in runs]
        growth = runs[-1].growth(EARLY_FRAMES)
        found[name] = {"cost_ratio": max(costs) / min(costs), "drift": runs[-1].drift(), "memory_growth": growth}
    return {**found, "constant": all(way["cost_ratio"] <= 1 + WITHIN for way in found.values())}


def table(figures: LongFigures) -> str:
    """A line a length, then what follows from them."""
    rows = [
        [
            f"{e.frames}",
            e.clips,
            f"{e.cpu_ms:.2f}",
            f"{e.wall_ms:.2f}",
            f"{d.cpu_ms:.2f}",
            f"{d.wall_ms:.2f}",
            f"{e.mb:.0f}",
            f"{d.mb:.0f}",
        ]
        for e, d in zip(figures.encode, figures.decode, strict=True)
    ]
    head = ["frames", "clips", "encode: cpu", "wall", "decode: cpu", "wall", "MB encode", "MB decode"]
    found, container = summary(figures), figures.container
    lines = [format_table(rows, head)]
    lines += ["(ms a frame; encoding includes decoding the video; MB: resident at the end)", ""]
    for name in _directions(figures):
        ratio, drift, growth = found[name].values()
        lines.append(
            f"{name}: largest cost of a frame over the smallest {ratio:.3f}; in the longest clip, last tenth over first"
            f" {drift:.3f}, memory at the end over that after {EARLY_FRAMES} frames {growth:.3f}"
        )
    lines.append(f"cost of a frame within {WITHIN:.0%} at all lengths: {'yes' if found['constant'] else 'no'}")
    lines.append(
        f"bitstream of {container.frames} frames, {container.bytes} bytes: {container.open_ms:.2f} ms to open, "
        f"{container.inspect_ms:.0f} ms to check every packet (no weights)"
    )
    return "\n".join(lines)


def write_json(path: Path, settings: Mapping[str, Any], threads: int, figures: LongFigures) -> None:
    """Every sample, the machine and the settings."""
    data = {"machine": machine(threads), "settings": plain(settings), "summary": summary(figures), **asdict(figures)}
    write_atomic(path, dump_json(data, indent=1))


def plot_long(path: Path, figures: LongFigures) -> None:
    """Cost of a frame and memory against frames, of the longest clip and of the shorter ones."""
    plot_long_clip(
        path,
        {name: [(run.frames, run.cpu_ms) for run in runs] for name, runs in _directions(figures).items()},
        {name: runs[-1].slices for name, runs in _directions(figures).items()},
        {
            name: [(sample.frames, sample.mb + sample.reader_mb) for sample in runs[-1].samples]
            for name, runs in _directions(figures).items()
        },
    )


def _directions(figures: LongFigures) -> dict[str, list[LongRun]]:
    return {"encode": figures.encode, "decode": figures.decode}


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of a config as lists."""
    return {
        key: list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value
        for key, value in settings.items()
    }
