"""Budget and learning rate of a run: a number of steps, a number of minutes, or both (whichever ends first)."""

import math
from dataclasses import dataclass

from vidlbc.errors import InputError


@dataclass(frozen=True)
class Budget:
    """At least one of the two is set. Minutes count training time only, across restarts. Raises InputError."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("a budget needs train.steps or train.minutes")
        for name, value in (("steps", self.steps), ("minutes", self.minutes)):
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise InputError(f"train.{name}={value}: expected more than 0")

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is spent, 0 to 1."""
        by_steps = step / max(self.steps, 1) if self.steps is not None else 0.0
        by_time = seconds / max(60 * self.minutes, 1e-9) if self.minutes is not None else 0.0
        return min(1.0, max(by_steps, by_time))


def learning_rate(progress: float, peak: float, warmup: float = 0.02, final: float = 0.02) -> float:
    """Linear warm-up, then a cosine from `peak` to `final * peak`."""
    if progress < warmup:
        return peak * max(progress / warmup, 0.02)
    phase = (progress - warmup) / (1 - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * phase)))
