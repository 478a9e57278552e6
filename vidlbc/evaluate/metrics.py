"""Metrics as JSON: the keys that must be there, each in its range."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.errors import InputError
from vidlbc.run.atomic_files import write_atomic

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
    text = json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n"
    write_atomic(Path(path), text.encode())


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
