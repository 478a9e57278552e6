"""The end of a cut file: which of the pictures that a decoder still held may be given.

Pictures come in another order than they are shown. Where a file ends early, the decoder holds pictures that belong
behind ones that never came, and hands them out at its end as if nothing were missing: half of all cuts of a Matroska
file with B pictures end so. Only their times tell: the gap where the missing pictures would be.

This module is imported by every decoder process: it stays free of anything but the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence

_WIDER = 1.5  # times the usual step: a clock of whole milliseconds makes steps of 2 and 3 ms at 400 frames/s
_ENOUGH = 4  # steps before one can be called usual


class Steps:
    """The steps in time between successive pictures, as far as they have been given."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._count = 0
        self._shortest = self._longest = 0.0

    def add(self, seconds: float | None) -> None:
        """The next picture's time, None if unknown."""
        if seconds is not None and self._last is not None and seconds > self._last:
            step = seconds - self._last
            self._shortest = min(self._shortest, step) if self._count else step
            self._longest = max(self._longest, step)
            self._count += 1
        self._last = seconds

    def before_gap(self, times: Sequence[float | None], *, cut: bool) -> int:
        """How many of the pictures that come next, at `times`, follow each other without a gap.

        cut: the file is known to end early, so what is doubtful is a gap: a step wider than the shortest one, times
        unknown, too few steps to compare with. Otherwise a gap is a step wider than any before.
        """
        if self._count < _ENOUGH:
            return 0 if cut else len(times)
        limit = _WIDER * (self._shortest if cut else self._longest)
        last = self._last
        for index, seconds in enumerate(times):
            if last is None or seconds is None:
                return index if cut else len(times)
            if not 0 < seconds - last <= limit:
                return index
            last = seconds
        return len(times)
