"""The few collective operations training needs; all are no-ops in a single process.

Plain all-reduce of the gradients instead of the DDP wrapper: the modules are small, some parameters see no gradient in
some steps, and the loss functions call parts of a module rather than its forward.
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vidlbc.errors import InputError


def start(device: torch.device) -> None:
    """Join the process group that torchrun describes in the environment, if any; each process takes a GPU of its own.

    Raises InputError where the machine has fewer GPUs than processes.
    """
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            local = int(os.environ.get("LOCAL_RANK", "0"))
            if local >= torch.cuda.device_count():
                raise InputError(
                    f"process {local} of this machine finds {torch.cuda.device_count()} GPUs: "
                    "give torchrun --nproc-per-node no more than that, or device=cpu"
                )
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def agree(value: float) -> float:
    """The largest of the ranks' values (NaN wins): all ranks then take the same branch."""
    if world() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor([value if value == value else float("inf")], dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)


def broadcast(module: nn.Module) -> None:
    if world() > 1:
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
    dist.all_reduce(flat)
    flat /= world()
    offset = 0
    for parameter in parameters:
        assert parameter.grad is not None
        size = parameter.grad.numel()
        parameter.grad.copy_(flat[offset : offset + size].view_as(parameter.grad))
        offset += size
