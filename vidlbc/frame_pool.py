"""Runs a network over frames so that the result of a frame never depends on the others.

CPU: each frame alone, on one thread, several frames side by side. A convolution on two threads, or on a larger batch, may
round differently in the last bit; a frame on its own thread does not, and two frames on two threads are faster than one
frame on two. GPU: batches of a fixed size, the last one padded by repetition.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

_GPU_BATCH = 16


class FramePool:
    """`map(fn, *tensors)` calls `fn` on slices of the first axis, in order."""

    def __init__(self, device: torch.device, precision: str):
        self.device, self.precision = device, precision
        self._executor: ThreadPoolExecutor | None = None
        self._workers = 0

    def cast(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a network in the chosen precision."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return fn(*args)

    def map(self, fn: Callable[..., Any], *tensors: Tensor) -> list[Any]:
        count = len(tensors[0])
        if self.device.type != "cpu":
            return self._batched(fn, tensors, count)

        def one(index: int) -> Any:
            with torch.inference_mode():
                return fn(*[t[index : index + 1] for t in tensors])

        return list(self._pool().map(one, range(count)))

    def _pool(self) -> ThreadPoolExecutor:
        workers = torch.get_num_threads()
        if self._executor is None or workers != self._workers:
            if self._executor is not None:
                self._executor.shutdown()
            self._executor = ThreadPoolExecutor(workers, "frame", initializer=_single_threaded)
            self._workers = workers
        return self._executor

    @torch.inference_mode()
    def _batched(self, fn: Callable[..., Any], tensors: Sequence[Tensor], count: int) -> list[Any]:
        out = []
        for start in range(0, count, _GPU_BATCH):
            parts = [t[start : start + _GPU_BATCH].to(self.device) for t in tensors]
            real = len(parts[0])
            if real < _GPU_BATCH:
                parts = [torch.cat([p, p[-1:].expand(_GPU_BATCH - real, *p.shape[1:])]) for p in parts]
            result = fn(*parts)
            out.append([r[:real] for r in result] if isinstance(result, list) else result[:real])
        return out


def _single_threaded() -> None:
    """In OpenMP builds the setting belongs to the calling thread; the main thread keeps its own."""
    torch.set_num_threads(1)
