"""CUDA graphs of the pretended device: what is captured is recorded and undone, a replay does it again in place.

As with a real graph, capture changes no memory that was there before, every replay reads and writes the same tensors,
numbers from the host are those of the capture, random ones are drawn anew, and whatever makes the host wait, or copies
from it, cannot be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Call = tuple[Callable[..., Any], Any, dict[str, Any], list[Tensor]]


class Tape:
    """Operations on CPU tensors, in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def before(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Keeps what the operation is about to write over, where it is older than the capture."""
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(value)
        for argument in func._schema.arguments[len(args) :]:
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(kwargs.get(argument.name))

    def _keep(self, value: Any) -> None:
        for tensor in flat(value):
            place = _place(tensor)
            if place not in self._made and place not in self._before:
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                self._before[place] = whole, whole.clone()

    def after(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], out: Any) -> None:
        tensors = flat(out)
        # Tensors are held for as long as the tape: no later one can get their memory.
        self.calls.append((func, args, kwargs, tensors))
        # What lies where an argument lies is that argument, or a view of it.
        self._made |= {_place(t) for t in tensors} - {_place(t) for t in flat([list(args), list(kwargs.values())])}

    def undo(self) -> None:
        for whole, values in self._before.values():
            whole.copy_(values)

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, held in self.calls:
            for old, new in zip(held, flat(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def flat(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [t for y in x for t in flat(y)] if isinstance(x, list | tuple) else []


class Graph:
    """torch.cuda.CUDAGraph."""

    replays = 0

    def __init__(self) -> None:
        self.tape = Tape()

    def pool(self) -> int:
        return id(self)

    def replay(self) -> None:
        Graph.replays += 1
        self.tape.play()


class Stream:
    """torch.cuda.Stream, of a device that does everything at once."""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None:
        pass


class Generator(torch.Generator):
    """Of any device: numbers are drawn on the CPU like everything else."""

    def __new__(cls, device: Any = None) -> Generator:
        return super().__new__(cls)


def graphs_of(device: Any) -> list[tuple[Any, str, Any]]:
    """What to replace in torch.cuda, and by what; `device` gets the tape of a capture in progress."""

    @contextmanager
    def graph(captured: Graph, pool: Any = None, stream: Stream | None = None) -> Iterator[None]:
        assert stream is not None, "a capture needs a stream of its own"
        device.tape = captured.tape
        drawn = torch.get_rng_state()
        try:
            yield
        finally:
            device.tape = None
            captured.tape.undo()
            torch.set_rng_state(drawn)  # a capture draws nothing

    @contextmanager
    def stream_of(stream: Stream) -> Iterator[None]:
        yield

    return [
        (torch, "Generator", Generator),
        (torch.cuda, "CUDAGraph", Graph),
        (torch.cuda, "graph", graph),
        (torch.cuda, "Stream", Stream),
        (torch.cuda, "stream", stream_of),
        (torch.cuda, "current_stream", lambda *_: Stream()),
        (torch.cuda, "mem_get_info", lambda *_: (2**36, 2**36)),
    ]
