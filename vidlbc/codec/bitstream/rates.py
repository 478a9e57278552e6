"""Rates from true file sizes."""

from fractions import Fraction

from vidlbc.errors import InputError


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
