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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.pretended_graph import graphs_of
from tests.pretended_tensor import CUDA, DEVICE, Device, PretendedTensor, tensors_in


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
        if any(isinstance(x, PretendedTensor) for x in tensors_in((args, tuple(kwargs.values())))):
            return func(*args, **{**kwargs, "device": "cpu"})
        out = DEVICE.run(func, args, {**kwargs, "device": "cpu"})
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            DEVICE.upload(non_blocking=False)
        else:
            DEVICE.launch(func.__name__)
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
        DEVICE.sync("to host")
        return x.held.detach().clone()
    DEVICE.upload(non_blocking)
    return PretendedTensor(x.detach().clone())


def _numpy(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, PretendedTensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    return Tensor.numpy(x, *args, **kwargs)


def _tolist(x: Tensor) -> Any:
    if isinstance(x, PretendedTensor):
        DEVICE.sync("tolist")
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
        DEVICE.sync("event")

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
        (torch.cuda, "synchronize", lambda *_: DEVICE.sync("synchronize")),
        *graphs_of(DEVICE),
    ]
    DEVICE.reset()
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_Functions())
        yield DEVICE
