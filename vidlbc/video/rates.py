"""Constant and variable frame rates.

This module is imported by every decoder process: it stays free of anything but the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence

_FRAMES, _SECONDS = 1.5, 0.05  # off by more than both of these is more than a clock's rounding


def off_a_constant_rate(times: Sequence[float | None]) -> float:
    """How many seconds the frames of a video are at most from where a constant rate would show them; 0 where none is
    far, or a time is not known."""
    known = [time for time in times if time is not None]
    if len(known) < max(3, len(times)):
        return 0.0
    step = (known[-1] - known[0]) / (len(known) - 1)
    off = max(abs(time - known[0] - index * step) for index, time in enumerate(known))
    return off if off > max(_FRAMES * step, _SECONDS) else 0.0
