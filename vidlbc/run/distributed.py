"""The few collective operations a run of several processes needs; all are no-ops in a single process.

    torchrun --nproc-per-node N tool.py --> N processes --group--> one run: the same steps, one writer, one error line

Plain all-reduce of the gradients instead of the DDP wrapper: the modules are small, some parameters see no gradient in
some steps, and the loss functions call parts of a module rather than its forward.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vidlbc.errors import InputError, VidlbcError

# Of a step: what hangs for so long will not answer. A process that ends is noticed at once.
_STEP = timedelta(minutes=20)
# Of a step of the job that one process does alone, an evaluation say.
_PATIENCE = timedelta(days=30)

_store: dist.Store | None = None
_patient: dist.ProcessGroup | None = None
_tells: bool | None = None


class PeerLost(VidlbcError):
    """Another process of the run has ended before its time."""


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Join the process group that torchrun describes in the environment, if any; each process takes a GPU of its own.

    Raises InputError where the machine has fewer GPUs than processes; inside, the collectives raise PeerLost as soon as
    another process ends.
    """
    global _store, _patient
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs: "
                "give torchrun --nproc-per-node no more than that, or device=cpu"
            )
        torch.cuda.set_device(local)
    try:
        with _peers():
            _store, own, count = next(iter(dist.rendezvous("env://")))
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=_store, rank=own, world_size=count, timeout=_STEP)
            _patient = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_PATIENCE))
        yield
    except Exception as error:
        if not isinstance(error, PeerLost):
            first_to_tell()  # before the others notice that this process ends
        raise
    finally:
        _patient = None
        if dist.is_initialized():
            dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all, however long one takes."""
    if world() > 1:
        with _peers():
            dist.barrier(_patient)


def from_first(value: Any) -> Any:
    """What the first process gave, for all, as JSON; the others wait however long it takes."""
    if world() == 1:
        return value
    data = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
    size = torch.tensor([len(data)])
    with _peers():
        dist.broadcast(size, 0, _patient)
        if rank():
            data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0, _patient)
    return json.loads(data.numpy().tobytes())


def next_number(name: str) -> int:
    """0, 1, 2, ...: each is given to one process only. For runs of several."""
    assert _store is not None
    with _peers():
        return _store.add(f"vidlbc/{name}", 1) - 1


def leave(name: str, value: Any) -> None:
    """Lay down JSON that another process may `pick_up`. For runs of several."""
    assert _store is not None
    with _peers():
        _store.set(f"vidlbc/{name}", json.dumps(value))


def pick_up(name: str) -> Any | None:
    """What was left under this name; None where nothing was yet."""
    assert _store is not None
    with _peers():
        return json.loads(_store.get(f"vidlbc/{name}")) if _store.check([f"vidlbc/{name}"]) else None


def first_to_tell() -> bool:
    """Is this the process whose error is to be told? One of a run is: the first that asks, and always the same."""
    global _tells, _store
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    if _tells is None:
        try:
            if _store is None:
                if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # a store that may never open
                    return os.environ.get("RANK", "0") == "0"
                place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
                _store = dist.TCPStore(*place, is_master=False, timeout=timedelta(seconds=30))
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            _tells = _store.add(f"vidlbc/told/{attempt}", 1) == 1
        except (RuntimeError, OSError):
            _tells = True  # twice is better than never
    return _tells


def agree(value: float) -> float:
    """The largest of the ranks' values (NaN wins): all ranks then take the same branch."""
    if world() == 1:
        return value
    tensor = torch.tensor([value if value == value else float("inf")], dtype=torch.float64, device=_place())
    with _peers():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)


def any_of(flag: Tensor) -> Tensor:
    """1 where a rank's flag (float, 0 or 1) is 1: on the flag's device, without waiting for it in a single process."""
    if world() > 1:
        with _peers():
            dist.all_reduce(flag, dist.ReduceOp.MAX)
    return flag


def mean(figures: Mapping[str, float]) -> dict[str, float]:
    """Of each figure, over the ranks; all give the same names."""
    if world() == 1:
        return dict(figures)
    tensor = torch.tensor([figures[name] for name in sorted(figures)], dtype=torch.float64, device=_place())
    with _peers():
        dist.all_reduce(tensor)
    return {**figures, **dict(zip(sorted(figures), (tensor / world()).tolist(), strict=True))}


def broadcast(module: nn.Module) -> None:
    if world() > 1:
        with _peers():
            for tensor in [*module.parameters(), *module.buffers()]:
                dist.broadcast(tensor.data, 0)


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Mean over ranks; a parameter without a gradient on this rank counts as zero."""
    if world() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
    with _peers():
        dist.all_reduce(flat)
    flat /= world()
    offset = 0
    for parameter in parameters:
        assert parameter.grad is not None
        size = parameter.grad.numel()
        parameter.grad.copy_(flat[offset : offset + size].view_as(parameter.grad))
        offset += size


def rand_like(x: Tensor) -> Tensor:
    """`torch.rand_like(x)`; of several processes with equal seeds, this one's rows (of dimension 0) of what one process
    with all rows, in order of ranks, would draw."""
    if world() == 1:
        return torch.rand_like(x)
    # Numbers are drawn in the order of memory, which need not be that of the dimensions: channels may come last, or
    # before the rows. Of equal strides, that of a single row lies inside.
    strides = x.stride()
    order = sorted(range(x.ndim), key=lambda d: (-strides[d], d == 0))
    shape = [x.shape[d] * (world() if d == 0 else 1) for d in order]
    whole = torch.rand(shape, dtype=x.dtype, device=x.device).permute([order.index(d) for d in range(x.ndim)])
    return whole[len(x) * rank() : len(x) * (rank() + 1)]


def _place() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


@contextmanager
def _peers() -> Iterator[None]:
    """Around what fails where a peer is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        what = "another process of this run has ended without a word (killed, out of memory?), or does not answer"
        raise PeerLost(f"{what} ({reason})") from error
