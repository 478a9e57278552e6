"""The training loop of both stages: budget, AdamW, clipping, EMA, non-finite steps skipped, exact resume, many GPUs.

    fit(module, loss_fn, batches, settings, folder) -> Outcome

`loss_fn(module, batch, step) -> (loss, {name: float})`; `batches(step) -> batch` is a pure function of the step (its
randomness is seeded by it), so a resumed run sees the data that an undisturbed one would have seen. Under torchrun,
gradients and figures are averaged over ranks and rank 0 writes. Where each rank's batch holds its rows of one global
batch, and losses draw noise by `distributed.rand_like`, losses are those of one process with the whole batch.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidlbc.errors import InputError
from vidlbc.training import checkpoint, distributed
from vidlbc.training.schedule import Budget, learning_rate

MAX_SKIPPED_IN_A_ROW = 50


@dataclass(frozen=True)
class Settings:
    budget: Budget
    lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    warmup: float = 0.02
    final_lr: float = 0.02
    log_every: int = 50
    save_seconds: float = 120.0
    bf16: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    steps: int
    seconds: float
    skipped: int
    last: dict[str, float]


class ExponentialAverage:
    """EMA of the parameters; its decay warms up as (1 + n) / (10 + n)."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if name in self.values:
                parameter.copy_(self.values[name])


def fit(
    module: nn.Module,
    loss_fn: Callable[[nn.Module, Any, int], tuple[Tensor, dict[str, float]]],
    batches: Callable[[int], Any],
    settings: Settings,
    folder: Path,
    on_log: Callable[[int, float, dict[str, float]], None] | None = None,
) -> Outcome:
    """Train the parameters of `module` that require gradients; at the end they hold their EMA.

    Writes `folder/checkpoint.safetensors` (resume) and appends to `folder/log.jsonl`. `on_log(step, progress, figures)`
    feeds a progress display. Raises FloatingPointError after 50 non-finite steps in a row, InputError where
    the checkpoint in `folder` is damaged or of another network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(module.parameters()).device
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    average = ExponentialAverage(module, settings.ema)
    path = folder / "checkpoint.safetensors"
    step, seconds, skipped = 0, 0.0, 0
    if path.is_file():
        step, seconds, skipped = _restore(path, module, optimiser, average, device)
    distributed.broadcast(module)

    started, saved, in_a_row = time.monotonic() - seconds, time.monotonic(), 0
    figures: dict[str, float] = {}
    sums: dict[str, float] = {}
    count = 0
    module.train()
    while (progress := distributed.agree(settings.budget.progress(step, time.monotonic() - started))) < 1:
        rate = learning_rate(progress, settings.lr, settings.warmup, settings.final_lr)
        for group in optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(settings.seed * 1_000_003 + step * 64)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            loss, parts = loss_fn(module, batches(step), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(trained)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, settings.clip))
        if math.isfinite(norm) and math.isfinite(distributed.agree(float(loss.detach()))):
            optimiser.step()
            average.update(module, step)
            in_a_row = 0
            for name, value in {"loss": float(loss.detach()), "grad_norm": norm, **parts}.items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                raise FloatingPointError(
                    f"{in_a_row} steps in a row gave a non-finite loss or gradient, at step {step}"
                )
        step += 1
        if (step % settings.log_every == 0 or step == 1) and count:
            figures = distributed.mean({name: value / count for name, value in sums.items()})
            sums, count = {}, 0
            if distributed.rank() == 0:
                _log(folder, step, time.monotonic() - started, rate, skipped, figures)
            if on_log is not None:
                on_log(step, progress, figures)
        if time.monotonic() - saved > settings.save_seconds:
            saved = time.monotonic()
            if distributed.rank() == 0:
                _save(path, module, optimiser, average, step, saved - started, skipped)
    seconds = time.monotonic() - started
    if distributed.rank() == 0 and time.monotonic() - saved > 0:
        _save(path, module, optimiser, average, step, seconds, skipped)
    average.copy_to(module)
    module.eval()
    return Outcome(step, seconds, skipped, figures)


def _log(folder: Path, step: int, seconds: float, rate: float, skipped: int, figures: dict[str, float]) -> None:
    line = {"step": step, "seconds": round(seconds, 1), "lr": rate, "skipped": skipped}
    line.update({name: round(value, 6) for name, value in figures.items()})
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def _save(path, module, optimiser, average, step, seconds, skipped) -> None:
    tensors = {f"module.{n}": p for n, p in module.named_parameters() if p.requires_grad}
    tensors |= {f"buffer.{n}": b for n, b in module.named_buffers()}  # running statistics of batch normalisation
    tensors |= {f"ema.{n}": v for n, v in average.values.items()}
    tensors |= checkpoint.optimiser_tensors(optimiser)
    checkpoint.save_tensors(path, tensors, {"step": step, "seconds": seconds, "skipped": skipped})


def _restore(path, module, optimiser, average, device) -> tuple[int, float, int]:
    """Raises InputError where the checkpoint is damaged or of another network."""
    tensors, meta = checkpoint.load_tensors(path, device)
    held = {name.removeprefix("ema."): tensor.shape for name, tensor in tensors.items() if name.startswith("ema.")}
    wanted = {name: tensor.shape for name, tensor in average.values.items()}
    if held != wanted:
        name = sorted(name for name in held.keys() | wanted.keys() if held.get(name) != wanted.get(name))[0]
        raise InputError(f"{path} is of another network: parameter {name} does not fit")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[f"module.{name}"])
        for name, buffer in module.named_buffers():
            if f"buffer.{name}" in tensors:
                buffer.copy_(tensors[f"buffer.{name}"])
    for name in average.values:
        average.values[name].copy_(tensors[f"ema.{name}"])
    checkpoint.restore_optimiser(optimiser, tensors)
    return meta["step"], meta["seconds"], meta["skipped"]
