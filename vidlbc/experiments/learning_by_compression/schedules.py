"""A number that changes over a run: from one value to another, linearly, between two shares of it."""

from dataclasses import dataclass
from typing import Any

from vidlbc.errors import InputError


@dataclass(frozen=True)
class Ramp:
    """`start` until `begin`, `end` from `finish` on, a straight line between; both are shares of the run, 0 to 1."""

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    @classmethod
    def of(cls, name: str, value: Any) -> "Ramp":
        """From a config: a number (constant), [start, end] or [start, end, begin, finish]. Raises InputError."""
        numbers = value if isinstance(value, list | tuple) else [value, value]
        good = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        if not good or len(numbers) not in (2, 4):
            raise InputError(f"{name}={value!r}: expected a number, [start, end] or [start, end, begin, finish]")
        ramp = cls(*map(float, numbers))
        if min(ramp.start, ramp.end) < 0 or not 0 <= ramp.begin < ramp.finish <= 1:
            raise InputError(f"{name}={value!r}: expected values of at least 0, and 0 <= begin < finish <= 1")
        return ramp

    def at(self, progress: float) -> float:
        """`progress`: share of the run that is over."""
        share = min(1.0, max(0.0, (progress - self.begin) / (self.finish - self.begin)))
        return self.start + (self.end - self.start) * share
