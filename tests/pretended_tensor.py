"""Tensors that say cuda:0 and compute on the CPU, and what is counted of them (tests/pretended_device.py)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.pretended_graph import Tape

CUDA = torch.device("cuda:0")
# Operations that only look at their tensor in another way: no kernel.
_VIEWS = frozenset(
    "alias as_strided detach diagonal expand lift_fresh narrow permute select slice split split_with_sizes squeeze t "
    "transpose unbind unfold unsqueeze view _unsafe_view _reshape_alias".split()
)
_READ = frozenset("_local_scalar_dense equal is_nonzero nonzero masked_select _unique2".split())
_INDEXED = frozenset("index index_put index_put_ _index_put_impl_ _unsafe_index".split())


class Device:
    """What was asked of the pretended device since it was made or `reset`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.tape: Tape | None = None
        self.reset()

    def reset(self) -> None:
        """Counts from zero again."""
        self.syncs: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.uploads = 0

    @property
    def kernels(self) -> int:
        return self.operations.total()

    def sync(self, kind: str) -> None:
        if self.tape is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing ({kind})")
        with self._lock:
            self.syncs[kind] += 1

    def upload(self, non_blocking: bool) -> None:
        if self.tape is not None:
            raise RuntimeError("operation not permitted when stream is capturing (copy from the host)")
        with self._lock:
            self.uploads += 1
            self.syncs["upload"] += not non_blocking

    def launch(self, name: str) -> None:
        with self._lock:
            self.operations[name] += 1

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """`func` on CPU tensors; recorded while a graph is captured."""
        if self.tape is None:
            return func(*args, **kwargs)
        if hasattr(func, "_schema"):
            self.tape.before(func, args, kwargs)
        out = func(*args, **kwargs)
        self.tape.after(func, args, kwargs, out)
        return out


DEVICE = Device()


class PretendedTensor(Tensor):
    """Says cuda:0; `held` is the CPU tensor that has its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendedTensor:
        with torch.inference_mode(False):  # a view of an ordinary tensor must be one itself, wherever it is made
            made = Tensor._make_wrapper_subclass(
                cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
            )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendedTensor({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendedTensor:
        if id(self) not in memo:
            copy = PretendedTensor(self.held.clone()).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copy._is_param = True  # what makes a tensor of a class of its own a Parameter
            memo[id(self)] = copy
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # which leaves it to us to take compound operations apart
            out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        name = func._schema.name.removeprefix("aten::")
        tensors = tensors_in((args, tuple(kwargs.values())))
        _check_devices(name, args, tensors)
        if name == "copy_":
            to, source = args[:2]
            if not isinstance(to, PretendedTensor):
                DEVICE.sync("copy to host")
            elif not isinstance(source, PretendedTensor):
                DEVICE.upload(bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking")))
        elif name in _READ:
            DEVICE.sync(name)
        elif name in _INDEXED:
            for place in tensors_in(args[1]):
                if place.dtype in (torch.bool, torch.uint8):
                    DEVICE.sync("mask")
                if not isinstance(place, PretendedTensor):
                    DEVICE.upload(non_blocking=False)
        if name not in _VIEWS:
            DEVICE.launch(name)
        mine = {id(x.held): x for x in tensors if isinstance(x, PretendedTensor)}
        out = DEVICE.run(func, _map(_held, args), {key: _map(_held, value) for key, value in kwargs.items()})
        if name == "copy_" and not isinstance(args[0], PretendedTensor):
            return args[0]
        return _map(lambda x: mine[id(x)] if id(x) in mine else PretendedTensor(x), out)


def _map(change: Callable[[Tensor], Tensor], x: Any) -> Any:
    """Of all tensors in nested lists and tuples; a tenth of the time that torch's own takes."""
    if isinstance(x, Tensor):
        return change(x)
    return type(x)([_map(change, y) for y in x]) if type(x) in (list, tuple) else x


def _held(x: Tensor) -> Tensor:
    return x.held if isinstance(x, PretendedTensor) else x


def tensors_in(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [t for y in x for t in tensors_in(y)] if type(x) in (list, tuple) else []


def _check_devices(name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raises RuntimeError where CUDA would. Numbers on the host (tensors without axes) may meet anything."""
    if name in _INDEXED:
        if not isinstance(args[0], PretendedTensor):
            raise RuntimeError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
        places = tensors_in(args[1])
        tensors = [x for x in tensors if not any(x is place for place in places)]
    elif name == "copy_":
        return
    if any(x.dim() and not isinstance(x, PretendedTensor) for x in tensors):
        shapes = ", ".join(f"{x.device} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(in {name} of {shapes})"
        )
