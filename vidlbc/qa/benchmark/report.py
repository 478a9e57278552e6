"""The benchmark's results as a table to read and JSON to keep."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidlbc.qa.benchmark.memory import Peak
from vidlbc.qa.benchmark.race import Speed
from vidlbc.qa.benchmark.range_coder import CoderSpeed


def machine(threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    import vidlbc

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line.partition(":")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].strip() if named else cpu
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": threads,
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vidlbc": vidlbc.__version__,
    }


def table(speeds: Sequence[Speed], coders: Sequence[CoderSpeed], peaks: Sequence[Peak]) -> str:
    """Three small tables; the ratio columns say how many times as fast vidlbc is."""
    parts = []
    if speeds:
        rows = [["frames a second", "encode", "decode", "vidlbc is", "", "bpp", "PSNR"]]
        for s in speeds:
            quality = ["-", "-"] if s.bpp is None or s.psnr is None else [f"{s.bpp:.4f}", f"{s.psnr:.2f}"]
            ratios = _ratios(s.encode_ratio, s.decode_ratio) if s is not speeds[0] else ["", ""]
            rows.append([s.name, f"{s.encode_fps:.1f}", f"{s.decode_fps:.1f}", *ratios, *quality])
        parts.append(_align(rows) + "\n(-: random weights, speed only)")
    if coders:
        rows = [["million symbols a second", "encode", "decode", "vidlbc is", "", "bits each"]]
        for c in coders:
            ratios = _ratios(c.encode_ratio, c.decode_ratio) if c is not coders[0] else ["", ""]
            rows.append([c.name, f"{c.encode_msps:.2f}", f"{c.decode_msps:.2f}", *ratios, f"{c.bits_per_symbol:.4f}"])
        parts.append(_align(rows))
    if peaks:
        rows = [["memory of a fresh process", "peak MB", "over the warm codec", "against the shortest"]]
        for p in peaks:
            growth = f"{p.peak_mb / peaks[0].peak_mb:.3f}x"
            rows.append([f"{p.frames} frames", f"{p.peak_mb:.0f}", f"{p.peak_mb - p.loaded_mb:.0f}", growth])
        parts.append(_align(rows))
    return "\n\n".join(parts)


def _ratios(encode: float, decode: float) -> list[str]:
    return [f"{encode:.2f}x", f"{decode:.2f}x"]


def _align(rows: Sequence[Sequence[str]]) -> str:
    """First column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_json(
    path: Path,
    settings: Mapping[str, Any],
    threads: int,
    speeds: Sequence[Speed],
    coders: Sequence[CoderSpeed],
    peaks: Sequence[Peak],
) -> None:
    """All figures, with the machine and the settings, to `path`; written to a temporary name first."""
    data = {
        "machine": machine(threads),
        "settings": dict(settings),
        "speed": [asdict(s) for s in speeds],
        "range_coder": [asdict(c) for c in coders],
        "memory": [asdict(p) for p in peaks],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=2, default=list) + "\n")
    os.replace(temporary, path)
