"""Rates from true file sizes."""

import math
from fractions import Fraction

from vidlbc.errors import InputError

QP_GROWTH = 1.07  # about: what one QP more makes of a file
_HALF = round(math.log(2) / math.log(QP_GROWTH))  # QPs


def bits_per_pixel(size_bytes: int, frames: int, height: int, width: int) -> float:
    """8 * bytes / (frames * height * width), with the true size of the pictures, not the padded one."""
    if min(frames, height, width) < 1 or size_bytes < 0:
        raise InputError(f"no bits per pixel for {size_bytes} bytes of {frames} frames of {height} x {width}")
    return 8.0 * size_bytes / (frames * height * width)


def kilobits_per_second(size_bytes: int, frames: int, fps: float | Fraction) -> float:
    """8 * bytes / duration / 1000, duration = frames / fps."""
    if frames < 1 or not fps > 0 or size_bytes < 0:
        raise InputError(f"no kbit/s for {size_bytes} bytes of {frames} frames at {fps} frames/s")
    return 8.0 * size_bytes * float(fps) / frames / 1000.0


def beside_sources(size: int, source_size: int, qp: int | None = None) -> str:
    """How bytes compare with those of the source files, in words; where they are more, the QP that would halve them."""
    if not size or size <= source_size:
        return f"{source_size / max(1, size):.1f} times smaller than the {source_size:,} bytes of the files"
    hint = "; a lower qp makes them smaller"
    if qp is not None:
        lower = qp - _HALF
        hint = f"; qp={lower} would halve them" if lower >= 0 else f"; they are the smallest near qp=0, not at qp={qp}"
    return f"{size / max(1, source_size):.1f} times LARGER than the {source_size:,} bytes of the files{hint}"
