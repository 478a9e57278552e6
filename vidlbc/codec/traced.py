"""Functions of tensors that become one TorchScript graph each, on CPU.

A step of the priors is some hundred small operations, and every one called from Python takes the interpreter lock and
gives it back: the thread that decodes and those that synthesise what it decoded wait for each other at each. A graph is
one call, with the lock released throughout. Measured at 256x256 on two cores, decoding with synthesis: 24.3 ms a frame
with single calls, 22.3 with the synthesis as a graph, 19.5 with the priors as graphs too; encoding 25.4 and 20.5 ms;
64x64 synthesis alone 4.0 and 1.9 ms. The operations are the same, and so are their results.

`torch.jit` is deprecated, but what replaces it needs a C++ compiler where the codec runs. Where it is gone or does not
give the function's own results, the function is called as it is.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

# Tracing takes 20 to 40 ms a graph, 0.3 s for all that decode: it pays for itself after some sixty frames.
_FRAMES_BEFORE = 24
_MOST_SHAPES = 16
# The tracer's warnings belong to the whole process.
_TRACING = threading.Lock()


def _after_fork() -> None:
    """Another thread may have been tracing, and there is none here to give the lock back."""
    global _TRACING
    _TRACING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_Shapes = tuple[torch.Size, ...]


F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(function: F) -> F:
    """Decorates what torch.compile must leave alone, also where it compiles the caller: it contracts multiply and add,
    which makes other numbers of the priors' arithmetic.

    It costs about half a microsecond a call. `torch.compiler.disable` alone would have every process import the
    compiler, which takes seconds.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" in sys.modules and torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None:
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return run  # type: ignore[return-value]


class Traced:
    """`function(*tensors)`: a tensor or a tuple of tensors, without effects, and with no choice that depends on values.

    The first axis of the first tensor counts frames. A graph belongs to one set of shapes: what the function does in
    Python (sizes, branches) is fixed when it is traced. The first frames of a set of shapes go through plain calls, and
    so does everything on a GPU.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._frames: dict[_Shapes, int] = {}
        self._graphs: dict[_Shapes, Callable[..., Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Traced, (self.function,)  # graphs are made again where they are used

    @uncompiled
    def __call__(self, *tensors: Tensor) -> Any:
        shapes = tuple([t.shape for t in tensors])
        graph = self._graphs.get(shapes)
        if graph is not None:
            return graph(*tensors)
        if torch.is_inference_mode_enabled() and all(t.device.type == "cpu" for t in tensors):
            self._count(shapes, tensors)
        return self.function(*tensors)

    def _count(self, shapes: _Shapes, tensors: tuple[Tensor, ...]) -> None:
        """Some more frames; after enough of them a graph is made, while other threads go on without."""
        before = self._frames.get(shapes, 0)
        self._frames[shapes] = before + len(tensors[0])
        if before < _FRAMES_BEFORE or not _TRACING.acquire(blocking=False):
            return
        try:
            if shapes not in self._graphs:
                if len(self._graphs) >= _MOST_SHAPES:
                    # Clips of ever new sizes: those of the first ones are done with.
                    self._graphs.clear()
                    self._frames.clear()
                self._graphs[shapes] = _graph_of(self.function, tensors)
        finally:
            _TRACING.release()


def _graph_of(function: Callable[..., Any], tensors: tuple[Tensor, ...]) -> Callable[..., Any]:
    """The function as a graph, or the function itself where there is none that does the same."""

    def traced(*args: Tensor) -> Any:
        return function(*args)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph: Callable[..., Any] = torch.jit.trace(traced, tensors, check_trace=False)
            # The first two calls optimise the graph; the third is what it will do from then on.
            results = [graph(*tensors) for _ in range(3)][-1]
    except Exception:  # torch.jit raises whatever it likes, and everything here also works without
        return function
    expected = function(*tensors)
    if isinstance(expected, Tensor):
        results, expected = [results], [expected]
    same = len(results) == len(expected) and all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    return graph if same else function
