"""Metrics as JSON, and the same as a table of text."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.errors import InputError

REQUIRED_METRICS = (
    "bpp",
    "bpp_no_context",
    "psnr",
    "ms_ssim",
    "encode_fps",
    "decode_fps",
    "top1",
    "top5",
    "top1_pixels",
    "n_videos",
    "n_failed",
)
_COUNTS = ("n_videos", "n_failed")
_FRACTIONS = ("ms_ssim", "top1", "top5", "top1_pixels")


def write_metrics(path: str | Path, metrics: Mapping[str, Any], required: Sequence[str] = REQUIRED_METRICS) -> None:
    """Write `metrics` as JSON, whole or not at all.

    The required keys must be there, each a number in its range, or None where it was not measured (no labels: no
    accuracy). NaN and infinity are no JSON: they become null where nested, and are refused in a required key, where
    they mean that something went wrong. Raises InputError naming the key.
    """
    missing = [key for key in required if key not in metrics]
    if missing:
        raise InputError(f"{path}: metrics lack {', '.join(missing)}")
    for key in required:
        _check(path, key, metrics[key])
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(_plain(metrics), file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _check(path: str | Path, key: str, value: Any) -> None:
    if value is None and key not in _COUNTS:
        return
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise InputError(f"{path}: metric '{key}' must be a finite number or null, got {value!r}")
    if key in _COUNTS and (value < 0 or value != int(value)):
        raise InputError(f"{path}: metric '{key}' must be a count, got {value!r}")
    if key in _FRACTIONS and not 0 <= value <= 1:
        raise InputError(f"{path}: metric '{key}' must be in [0, 1], got {value!r}")
    if value < 0:
        raise InputError(f"{path}: metric '{key}' must not be negative, got {value!r}")


def _plain(value: Any) -> Any:
    """NumPy and torch scalars, arrays, tuples and paths to what JSON has; NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def format_table(rows: Sequence[Sequence[Any]], header: Sequence[str] | None = None, title: str | None = None) -> str:
    """A table of plain text: first column to the left, the others to the right; None prints as '-'."""
    width = max([len(r) for r in rows] + ([len(header)] if header else []), default=0)
    cells = [[_cell(v) for v in r] + [""] * (width - len(r)) for r in rows]
    head = [str(h) for h in header] + [""] * (width - len(header)) if header else None
    sizes = [max(len(r[i]) for r in cells + ([head] if head else [])) for i in range(width)]

    def line(row: Sequence[str]) -> str:
        first, *rest = (c.ljust(s) if i == 0 else c.rjust(s) for i, (c, s) in enumerate(zip(row, sizes, strict=True)))
        return "  ".join([first, *rest]).rstrip()

    rule = "-" * (sum(sizes) + 2 * max(0, width - 1))
    lines = [title] if title else []
    lines += [line(head), rule] if head else []
    return "\n".join(lines + [line(r) for r in cells])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, (float, np.floating)):
        size = abs(float(value))
        if size and (size < 0.01 or size >= 1e6):
            return f"{value:.2e}"
        return f"{value:.3f}" if size < 10 else f"{value:.1f}"
    return str(value)
