"""A pretended CUDA device: what runs on a GPU, tested where there is none.

    with pretended_cuda() as device:
        codec = vidlbc.load(folder, device="cuda")
        data = codec.compress(frames)
    device.syncs        # by kind: how often the host waited for the device
    device.kernels      # operations launched, views aside

Its tensors say cuda:0 and compute on the CPU. Where tensors of two devices meet that CUDA would not let meet,
RuntimeError is raised in CUDA's words. What the host waits for is counted: values read (`item`, `cpu`, `tolist`,
`equal`, masks), and uploads that are not `non_blocking`, which PyTorch ends with a wait for the stream. Graphs are
recorded and played (tests/pretended_graph.py). It proves nothing about rounding, memory or speed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.pretended_graph import Tape, graphs_of

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


_DEVICE = Device()


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
        tensors = _tensors((args, tuple(kwargs.values())))
        _check_devices(name, args, tensors)
        if name == "copy_":
            to, source = args[:2]
            if not isinstance(to, PretendedTensor):
                _DEVICE.sync("copy to host")
            elif not isinstance(source, PretendedTensor):
                _DEVICE.upload(bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking")))
        elif name in _READ:
            _DEVICE.sync(name)
        elif name in _INDEXED:
            for place in _tensors(args[1]):
                if place.dtype in (torch.bool, torch.uint8):
                    _DEVICE.sync("mask")
                if not isinstance(place, PretendedTensor):
                    _DEVICE.upload(non_blocking=False)
        if name not in _VIEWS:
            _DEVICE.launch(name)
        mine = {id(x.held): x for x in tensors if isinstance(x, PretendedTensor)}
        out = _DEVICE.run(func, _map(_held, args), {key: _map(_held, value) for key, value in kwargs.items()})
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


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [t for y in x for t in _tensors(y)] if type(x) in (list, tuple) else []


def _check_devices(name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raises RuntimeError where CUDA would. Numbers on the host (tensors without axes) may meet anything."""
    if name in _INDEXED:
        if not isinstance(args[0], PretendedTensor):
            raise RuntimeError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
        places = _tensors(args[1])
        tensors = [x for x in tensors if not any(x is place for place in places)]
    elif name == "copy_":
        return
    if any(x.dim() and not isinstance(x, PretendedTensor) for x in tensors):
        shapes = ", ".join(f"{x.device} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(in {name} of {shapes})"
        )


class _Functions(TorchFunctionMode):
    """Sends what is asked of device cuda to the CPU, and wraps it. A mode belongs to one thread."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handler = _METHODS.get(func)
        if handler is not None:
            return handler(*args, **kwargs)
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}  # there is no page-locked memory without a driver
        if not _is_cuda(kwargs.get("device")):
            return func(*args, **kwargs)
        if any(isinstance(x, PretendedTensor) for x in _tensors((args, tuple(kwargs.values())))):
            return func(*args, **{**kwargs, "device": "cpu"})
        out = _DEVICE.run(func, args, {**kwargs, "device": "cpu"})
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            _DEVICE.upload(non_blocking=False)
        else:
            _DEVICE.launch(func.__name__)
        return PretendedTensor(out.detach()).requires_grad_(out.requires_grad)


def _is_cuda(device: Any) -> bool:
    if device is None:
        return False
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _to(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Tensor.to: the move, then what else is asked for (dtype, memory format)."""
    like = [a for a in args if isinstance(a, Tensor)]
    if like:
        args = (like[0].device, like[0].dtype)
    device = kwargs.pop("device", None)
    rest = []
    for a in args:
        if isinstance(a, str | torch.device) or (isinstance(a, int) and not isinstance(a, bool)):
            device = a
        else:
            rest.append(a)
    non_blocking = bool(kwargs.pop("non_blocking", False)) or True in rest
    dtype = next((a for a in rest if isinstance(a, torch.dtype)), kwargs.pop("dtype", None))
    if device is not None and _is_cuda(device) != isinstance(x, PretendedTensor):
        x = _moved(x, non_blocking)
    rest_of_it = {k: v for k, v in {"dtype": dtype, **kwargs}.items() if v is not None}
    return Tensor.to(x, **rest_of_it) if rest_of_it else x


def _moved(x: Tensor, non_blocking: bool = False) -> Tensor:
    """To the other device. No gradient goes along: NotImplementedError where one would be lost."""
    if x.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("the pretended device moves no gradients")
    if isinstance(x, PretendedTensor):
        _DEVICE.sync("to host")
        return x.held.detach().clone()
    _DEVICE.upload(non_blocking)
    return PretendedTensor(x.detach().clone())


def _numpy(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, PretendedTensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    return Tensor.numpy(x, *args, **kwargs)


def _tolist(x: Tensor) -> Any:
    if isinstance(x, PretendedTensor):
        _DEVICE.sync("tolist")
        return x.held.tolist()
    return Tensor.tolist(x)


def _may_share(x: Tensor, other: Tensor) -> bool:
    """Whether a parameter may be given other values in place: a module that moves gets new parameters otherwise."""
    if isinstance(x, PretendedTensor) or isinstance(other, PretendedTensor):
        return False
    return bool(torch._has_compatible_shallow_copy_type(x, other))


_METHODS: dict[Any, Callable[..., Any]] = {
    Tensor.to: _to,
    Tensor.cpu: lambda x, *_, **__: _to(x, "cpu"),
    Tensor.cuda: lambda x, *_, non_blocking=False, **__: _to(x, CUDA, non_blocking=non_blocking),
    Tensor.numpy: _numpy,
    Tensor.tolist: _tolist,
    Tensor.pin_memory: lambda x, *_, **__: x,
    torch._has_compatible_shallow_copy_type: _may_share,
}


class Event:
    """torch.cuda.Event, of a device that has always just finished. Counts those alive."""

    alive = 0

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        Event.alive += 1

    def __del__(self) -> None:
        Event.alive -= 1

    def record(self, *_: Any) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _DEVICE.sync("event")

    def elapsed_time(self, other: Event) -> float:
        return 1.0


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _grouped(group: Callable[..., Any], lists: Any, with_indices: bool) -> Any:
    """torch's lists of tensors by device and type, under the device that they say."""
    return {(found[0][0][0].device, dtype): found for (_, dtype), found in group(lists, with_indices).items()}


_FOREACH = [Tensor, torch.nn.Parameter, PretendedTensor]


@contextmanager
def pretended_cuda() -> Iterator[Device]:
    """Within, `torch.cuda` is there, and threads that start know of it too. One at a time in a process."""
    run, group = threading.Thread.run, torch._C._group_tensors_by_device_and_dtype

    def run_with_device(thread: threading.Thread) -> None:
        with _Functions():
            run(thread)

    replaced: list[tuple[Any, str, Any]] = [
        (threading.Thread, "run", run_with_device),
        (torch, "autocast", _Autocast),
        # What decides between loops over tensors and one call for all of them goes by the tensors' class.
        (import_module("torch.optim.optimizer"), "_foreach_supported_types", _FOREACH),
        (import_module("torch.utils._foreach_utils"), "_foreach_supported_types", _FOREACH),
        (torch._C, "_group_tensors_by_device_and_dtype", partial(_grouped, group)),
        (torch.accelerator, "current_accelerator", lambda *_, **__: None),
        (torch.cuda, "Event", Event),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.cuda, "get_device_name", lambda *_: "pretended"),
        (torch.cuda, "synchronize", lambda *_: _DEVICE.sync("synchronize")),
        *graphs_of(_DEVICE),
    ]
    _DEVICE.reset()
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_Functions())
        yield _DEVICE
