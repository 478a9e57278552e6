"""Where the time of an encoding goes: seconds of work by stage, in whichever threads it is done."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

# The order in which a frame passes through them. `rest` is what a process did beside them: Python, queues, waiting.
STAGES = ("video decoding", "transfer", "image stage", "temporal stage", "entropy coding", "files", "rest")
OF_MOTION = ("motion search", "gradients")  # of kinds that predict from moved pictures alone

F = TypeVar("F", bound=Callable[..., Any])


class StageClock:
    """Sums seconds by stage; safe to use from several threads, but stages must not be nested.

    What runs on the processor is measured in processor seconds of the thread, so that waiting and other processes do
    not count; what runs on a CUDA device by events on its stream, which nothing waits for until `seconds` is asked. Of
    those that have passed, only the seconds are kept.
    """

    def __init__(self, cuda: bool = False) -> None:
        self._cuda = cuda
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._here = 0.0
        self._events: deque[tuple[str, Any, Any]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return StageClock, (self._cuda,)  # a copy in another process starts at zero

    @contextmanager
    def stage(self, name: str, on_device: bool = False) -> Iterator[None]:
        """What is done within belongs to stage `name`. `on_device`: on the CUDA device, where there is one."""
        if on_device and self._cuda:
            import torch

            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            yield
            ended.record()
            with self._lock:
                self._events.append((name, began, ended))
                while self._events and self._events[0][2].query():
                    self._add_oldest()
            return
        start = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - start
            self.add(name, spent)
            with self._lock:
                self._here += spent

    def add(self, name: str, seconds: float) -> None:
        """Seconds that were measured elsewhere."""
        with self._lock:
            self._seconds[name] += seconds

    @contextmanager
    def measured(self) -> Iterator[dict[str, float]]:
        """Seconds by stage of what is done within, and of the process's `rest`; complete once it has ended."""
        found: dict[str, float] = {}
        before, here, spent = self.seconds(), self.here(), time.process_time()
        yield found
        found |= {name: total - before.get(name, 0.0) for name, total in self.seconds().items()}
        found["rest"] = max(0.0, time.process_time() - spent - (self.here() - here))

    def here(self) -> float:
        """Processor seconds of this process's own threads, of all stages."""
        with self._lock:
            return self._here

    def seconds(self) -> dict[str, float]:
        """By stage, since the clock was made."""
        with self._lock:
            while self._events:
                self._events[0][2].synchronize()
                self._add_oldest()
            return dict(self._seconds)

    def _add_oldest(self) -> None:
        """Of two events that have passed; with the lock held."""
        name, began, ended = self._events.popleft()
        self._seconds[name] += began.elapsed_time(ended) / 1000


def in_stage(name: str) -> Callable[[F], F]:
    """Decorates methods of objects that have a `clock`: their work is that of stage `name`, on the device."""

    def decorate(method: F) -> F:
        @wraps(method)
        def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.clock.stage(name, on_device=True):
                return method(self, *args, **kwargs)

        return timed  # type: ignore[return-value]

    return decorate


def stage_table(seconds: Mapping[str, float], frames: int, wall: float) -> str:
    """Where the time went, for people: a line a stage, the slowest one named, and how busy the processor was.

    `wall`: seconds by the clock, summed over processes that worked side by side.
    """
    total = sum(seconds.values())
    if not frames or total <= 0:
        return "no frame was encoded: nothing to say about time"
    names = [*STAGES[:3], *(name for name in OF_MOTION if name in seconds), *STAGES[3:]]
    slowest = max(names, key=lambda name: seconds.get(name, 0.0))
    lines = [f"{'where the time went':<20}{'seconds':>10}{'share':>8}{'ms/frame':>10}"]
    for name in names:
        spent = seconds.get(name, 0.0)
        mark = "  <- slowest" if name == slowest else ""
        lines.append(f"{name:<20}{spent:>10.2f}{spent / total:>8.1%}{1000 * spent / frames:>10.2f}{mark}")
    lines.append(f"{'all':<20}{total:>10.2f}{'':>8}{1000 * total / frames:>10.2f}")
    lines.append(f"{frames} frames in {wall:.1f} s of each process: {total / wall:.2f} busy threads on average")
    return "\n".join(lines)
