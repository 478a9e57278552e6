"""Runs training steps: one by one, or on a GPU as CUDA graphs, a graph for each shape of a step.

    shape(step) --not seen WARM_UP times--> eager steps (they train too) --> captured --> replayed from then on

A step has a thousand small kernels; launched one by one from Python they take longer than they run. A graph replays the
same eager kernels, so results do not change; what is random inside is drawn anew from the device's own generator, which
the loop seeds by the step. Batches drawn on the device are part of the graph; others are copied into its inputs.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vidlbc.errors import InputError
from vidlbc.run import distributed
from vidlbc.train.step import TrainingStep

MODES = ("auto", "eager", "graph")
WARM_UP = 3
# Graphs of other pools of data are of no use any more; of shapes there are four at most.
_MOST_GRAPHS = 8
# Steps that the host may be ahead of the device: enough to keep it busy, few enough to stop in time.
_AHEAD = 4


@runtime_checkable
class DrawnBatches(Protocol):
    """Batches that can be drawn where the data lie (vidlbc.train.data.image_data, video_data)."""

    @property
    def resident(self) -> bool:
        """Do the data of the last shape lie on the training device?"""
        ...

    def shape(self, step: int) -> Hashable:
        """Steps that have it in common draw from the same memory, in tensors of the same shapes."""
        ...

    def draw(self, step: int) -> tuple[Tensor, ...]:
        """A batch by the device's own generator."""
        ...

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """A batch as a pure function of the step, where the data lie."""
        ...


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...] | None


class Steps:
    """`run(step)`: one training step on the batch of that step."""

    def __init__(self, step: TrainingStep, batches: Callable[[int], Any], mode: str = "auto"):
        """`mode`: eager, graph, or auto: graphs on a GPU where the loss is capturable. Raises InputError."""
        if mode not in MODES:
            raise InputError(f"train.launch={mode}: expected one of {', '.join(MODES)}")
        on_gpu = step.device.type == "cuda"
        capturable = on_gpu and distributed.world() == 1 and getattr(step.loss_fn, "capturable", False)
        if mode == "graph" and not capturable:
            reason = "needs a single process on a GPU, and a loss that does not depend on the step"
            raise InputError(f"train.launch=graph {reason}; choose train.launch=auto")
        self._step, self._batches = step, batches
        self._capture = capturable and mode != "eager"
        self._stream = torch.cuda.Stream(step.device) if on_gpu else None
        self._seen: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, _Captured] = {}
        self._running: deque[torch.cuda.Event] = deque()
        self._thread = ThreadPoolExecutor(1, "batches") if on_gpu and isinstance(batches, DrawnBatches) else None
        self._next: tuple[int, Future[Any]] | None = None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """All of a training runs within: capture needs a stream of its own, and reading and saving must wait for it."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=True, cancel_futures=True)
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def run(self, number: int) -> None:
        if self._stream is None:
            self._step.compute(self._batches(number), number)
            return
        key, inputs = self._inputs(number)
        if self._capture and key in self._captured:
            self._replay(self._captured[key], inputs)
        elif self._capture and self._seen[key] >= WARM_UP and (ready := self._try_capture(key, inputs, number)):
            self._replay(ready, inputs)
        else:
            self._seen[key] += 1
            self._step.compute(self._drawn(number) if inputs is None else inputs, number)
        self._pace()

    def _inputs(self, number: int) -> tuple[Hashable, tuple[Tensor, ...] | None]:
        """The shape of a step, and its batch on the device; None where the step draws it itself."""
        batches = self._batches
        if not isinstance(batches, DrawnBatches):
            batch = batches(number)
            return (tuple((t.shape, t.dtype) for t in batch) if self._capture else 0), batch
        shape = batches.shape(number)
        if batches.resident:
            return shape, None
        assert self._thread is not None
        if self._next is None or self._next[0] != number:
            self._next = number, self._thread.submit(batches, number)
        batch = self._next[1].result()
        batches.shape(number + 1)  # reads another pool, where one is due: here, so that the thread finds it read
        self._next = number + 1, self._thread.submit(batches, number + 1)  # beside the device's work
        return shape, tuple(tensor.to(self._step.device) for tensor in batch)

    def _drawn(self, number: int) -> tuple[Tensor, ...]:
        assert isinstance(self._batches, DrawnBatches)
        return self._batches.draw(number)

    def _try_capture(self, key: Hashable, inputs: tuple[Tensor, ...] | None, number: int) -> _Captured | None:
        """Kernels are recorded, nothing is computed. A step that cannot be captured is told, and runs as before."""
        if len(self._captured) >= _MOST_GRAPHS:
            self._captured.clear()
        held = None if inputs is None else tuple(tensor.clone() for tensor in inputs)
        pool = next(iter(self._captured.values())).graph.pool() if self._captured else None
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize(self._step.device)
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                self._step.compute(self._drawn(number) if held is None else held, number)
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            print(f"training steps run without a CUDA graph, which is slower ({reason})", file=sys.stderr)
            self._capture = False
            return None
        self._captured[key] = _Captured(graph, held)
        return self._captured[key]

    @staticmethod
    def _replay(captured: _Captured, inputs: tuple[Tensor, ...] | None) -> None:
        if inputs is not None and captured.inputs is not None:
            for held, tensor in zip(captured.inputs, inputs, strict=True):
                held.copy_(tensor, non_blocking=True)
        captured.graph.replay()

    def _pace(self) -> None:
        event = torch.cuda.Event()
        event.record()
        self._running.append(event)
        if len(self._running) > _AHEAD:
            self._running.popleft().synchronize()
