"""Budget and learning rate of a run: steps, minutes of training, a time of day, or several (whichever ends first)."""

import math
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from vidlbc.errors import InputError

_IMPORTED = time.time()


@dataclass(frozen=True)
class Budget:
    """At least one is set. Minutes count training time only, across restarts. `until`: seconds since the epoch at which
    the time is up, whatever was trained before. Raises InputError."""

    steps: int | None = None
    minutes: float | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None and self.until is None:
            raise InputError("a budget needs train.steps, train.minutes or train.until")
        for name, value in (("steps", self.steps), ("minutes", self.minutes)):
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise InputError(f"train.{name}={value}: expected more than 0")

    def progress(self, step: int, seconds: float, wall: float = 0.0) -> float:
        """Share of the budget that is spent, 0 to 1; `wall`: that of the time until the deadline."""
        by_steps = step / max(self.steps, 1) if self.steps is not None else 0.0
        by_time = seconds / max(60 * self.minutes, 1e-9) if self.minutes is not None else 0.0
        return min(1.0, max(by_steps, by_time, wall))


class Deadline:
    """Share of a run that is over when only the time of day counts: a resumed run goes on from where it was, and is at
    its end at the deadline as well."""

    def __init__(self, budget: Budget, spent: float = 0.0):
        """`spent`: the progress that a resumed run had reached."""
        self.until, self.spent, self.began = budget.until, spent, time.time()

    def progress(self) -> float:
        if self.until is None:
            return 0.0
        left = self.until - self.began
        share = (time.time() - self.began) / left if left > 0 else 1.0
        return min(1.0, self.spent + (1 - self.spent) * share)


def budget_of(steps: int | None, minutes: float | None, until: str | float | None) -> Budget:
    """From options. A time of day takes the place of the minutes, which have a default. Raises InputError."""
    return Budget(steps, None if until is not None else minutes, None if until is None else time_of_day(str(until)))


def time_of_day(text: str, now: float | None = None, option: str = "train.until") -> float:
    """Seconds since the epoch of `HH:MM` (local, the next one), an ISO time, `@SECONDS` since the epoch, or `+MINUTES`
    from the start of the process.

    Raises InputError where it is none of them or has passed.
    """
    now = time.time() if now is None else now
    try:
        if text.startswith("@"):
            found = float(text[1:])
        elif text.startswith("+"):
            found = process_start() + 60 * float(text[1:])
        elif len(text) == 5 and text[2] == ":":
            today = datetime.fromtimestamp(now)
            moment = today.replace(hour=int(text[:2]), minute=int(text[3:]), second=0, microsecond=0)
            found = (moment if moment > today else moment + timedelta(days=1)).timestamp()
        else:
            found = datetime.fromisoformat(text).timestamp()
        if not math.isfinite(found):
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError(
            f"{option}={text}: expected HH:MM, an ISO time, @SECONDS since the epoch or +MINUTES from the start"
        ) from None
    if found <= now:
        told = datetime.fromtimestamp(found).isoformat(" ", "seconds")
        raise InputError(f"{option}={text}: {told} has passed, it is {datetime.fromtimestamp(now):%F %T}")
    return found


def process_start() -> float:
    """Seconds since the epoch, to a hundredth; where the system does not tell, when this module was imported."""
    try:
        with open("/proc/self/stat") as stat:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError):
        return _IMPORTED


def learning_rate(progress: float, peak: float, warmup: float = 0.02, final: float = 0.02) -> float:
    """Linear warm-up, then a cosine from `peak` to `final * peak`."""
    if progress < warmup:
        return peak * max(progress / warmup, 0.02)
    phase = (progress - warmup) / (1 - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * phase)))
