"""Runs networks over frames so that the result of a frame never depends on the others.

CPU: each frame alone, on one thread, several frames side by side. A convolution on two threads, or on a larger batch,
may round differently in the last bit; a frame on its own thread does not, and two frames on two threads are faster than
one frame on two (and far faster on a busy machine, where threads that share one layer wait for each other at every
step).
GPU: batches of a fixed size, the last one padded by repetition; a frame that would be alone in one goes alone, as the
same frame does when it is the only one.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from vidlbc.run.stage_clock import StageClock

_GPU_BATCH = 16
# On two cores, 256x256, frames a second of 1, 2 and 3 lanes: transformer 58, 62, 62.
_CPU_LANES, _GPU_LANES = 2, 4
T = TypeVar("T")
X = TypeVar("X")


# One for all pools: a pool must stay picklable for data loaders.
_STARTING = threading.Lock()


def _after_fork() -> None:
    """Another thread may have held the lock, and there is none here to give it back."""
    global _STARTING
    _STARTING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class FramePool:
    """`map(fn, *tensors)` calls `fn` on slices of the first axis, in order; `ahead(fn)`: one serial task beside it.

    Threads belong to one process: a forked or spawned one that gets the pool starts its own.
    """

    def __init__(self, device: torch.device, precision: str):
        if device.type == "cpu":
            _keep_freed_memory()
        self.device, self.precision = device, precision
        self.clock = StageClock(cuda=device.type == "cuda")
        self._forget_threads()

    def _forget_threads(self) -> None:
        self._frames: ThreadPoolExecutor | None = None
        self._serial: ThreadPoolExecutor | None = None
        self._beside: ThreadPoolExecutor | None = None
        self._followers: ThreadPoolExecutor | None = None
        self._workers = 0
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device, "precision": self.precision, "clock": self.clock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_threads()

    @property
    def lanes(self) -> int:
        """How many clips side by side keep the device busy: while one waits for its own past, another does not."""
        self.start()
        if self.device.type != "cpu":
            return _GPU_LANES
        return _CPU_LANES if self._workers > 1 else 1

    def cast(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a network in the chosen precision."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return fn(*args)

    def map(self, fn: Callable[..., Any], *tensors: Tensor) -> list[Any]:
        """`fn` of every frame (CPU), or of every batch of frames (GPU)."""
        count = len(tensors[0])
        if self.device.type != "cpu":
            return self._batched(fn, tensors, count)
        return [future.result() for future in self.each(lambda i: fn(*[t[i : i + 1] for t in tensors]), count)]

    def each(self, fn: Callable[[int], Any], count: int) -> list["Future[Any]"]:
        """`fn(0)`, `fn(1)`, ... side by side, one thread each."""
        return [self.among(partial(fn, index)) for index in range(count)]

    def among(self, fn: Callable[[], T]) -> "Future[T]":
        """Run `fn` on the threads of `each`, after what they were given before."""
        self.start()
        assert self._frames is not None
        return self._frames.submit(torch.inference_mode()(fn))

    def ahead(self, fn: Callable[[], Any]) -> "Future[Any]":
        """Run `fn` on one thread of its own: what goes frame by frame within a clip; several clips go side by side."""
        self.start()
        assert self._serial is not None
        return self._serial.submit(fn)

    def one_ahead(self, fn: Callable[[X], T], items: Iterable[X]) -> Iterator[T]:
        """`fn` of each item as tasks of `ahead`, one after another and one ahead of the caller."""
        coming: Future[T] | None = None
        for item in items:
            ready = [] if coming is None else [coming.result()]
            coming = self.ahead(partial(fn, item))
            yield from ready
        if coming is not None:
            yield coming.result()

    def beside(self, fn: Callable[[], T]) -> "Future[T]":
        """Run `fn` beside the task of `ahead` that needs its result later; at once where there is one thread."""
        self.start()
        assert self._beside is not None
        if self._workers > 1 and self.device.type == "cpu":
            return self._beside.submit(torch.inference_mode()(fn))
        done: Future[T] = Future()
        done.set_result(fn())
        return done

    def after(self, fn: Callable[[], Any]) -> "Future[Any]":
        """Run `fn` on what a task of `ahead` has finished with, leaving most of the threads to those tasks."""
        self.start()
        assert self._followers is not None
        return self._followers.submit(torch.inference_mode()(fn))

    def start(self) -> None:
        """Make sure that the threads run; in the main thread: as many as it may use."""
        # The count is the calling thread's own in OpenMP builds: only the main thread's says how many are wanted. Other
        # threads must not wait here: the main one may be waiting for their tasks, to start executors of another size.
        main = threading.current_thread() is threading.main_thread()
        if self._workers and not main and self._process == os.getpid():
            return
        with _STARTING:
            if self._process != os.getpid():
                self._forget_threads()
            if main or not self._workers:
                self._resize(torch.get_num_threads())

    def _resize(self, workers: int) -> None:
        if workers != self._workers:
            # In this order: tasks of `ahead` use the two after them.
            for executor in (self._frames, self._serial, self._beside, self._followers):
                if executor is not None:
                    executor.shutdown()
            # In OpenMP builds the setting belongs to the calling thread; the main thread keeps its own.
            self._frames = ThreadPoolExecutor(workers, "frame", torch.set_num_threads, (1,))
            self._serial = ThreadPoolExecutor(workers, "serial", torch.set_num_threads, (1,))
            self._beside = ThreadPoolExecutor(workers, "beside", torch.set_num_threads, (1,))
            self._followers = ThreadPoolExecutor(max(1, workers // 2), "follower", _follower)
            self._workers = workers

    @torch.inference_mode()
    def _batched(self, fn: Callable[..., Any], tensors: Sequence[Tensor], count: int) -> list[Any]:
        out = []
        for start in range(0, count, _GPU_BATCH):
            parts = [t[start : start + _GPU_BATCH].to(self.device) for t in tensors]
            real = len(parts[0])
            if 1 < real < _GPU_BATCH:
                parts = [torch.cat([p, p[-1:].expand(_GPU_BATCH - real, *p.shape[1:])]) for p in parts]
            result = fn(*parts)
            out.append([r[:real] for r in result] if isinstance(result, (list, tuple)) else result[:real])
        return out


def _follower() -> None:
    torch.set_num_threads(1)
    # What follows the decoding of a clip must not delay it: on Linux a thread has a priority of its own.
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10))


def _keep_freed_memory() -> None:
    """Have glibc keep large freed blocks for the next allocation instead of giving them back to the kernel at once.

    Every frame allocates the same few dozen megabytes; faulting their pages in again took more than half of the time of
    the attention layers (15.0 ms against 6.7 ms at 32x32x64). Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # from malloc.h
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 1 << 30)
