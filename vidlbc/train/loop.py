"""The training loop of both stages: budget, AdamW, clipping, EMA, non-finite steps skipped, exact resume, many GPUs.

    fit(module, loss_fn, batches, settings, folder) -> Outcome

`loss_fn(module, batch, step) -> (loss, {name: float or tensor})`; `batches(step) -> batch` is a pure function of the
step (its randomness is seeded by it), so a resumed run sees the data that an undisturbed one would have seen. Between
two log lines the host never waits for the device (vidlbc.train.step, captured).

Under torchrun, gradients and figures are averaged over ranks and rank 0 writes. Where each rank's batch holds its rows
of one global batch, and losses draw noise by `distributed.rand_like`, losses are those of one process with the whole.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidlbc.errors import InputError
from vidlbc.run import distributed
from vidlbc.run.tensor_files import load_tensors, save_tensors
from vidlbc.train import checkpoint
from vidlbc.train.captured import Steps
from vidlbc.train.schedule import Budget, Deadline, learning_rate
from vidlbc.train.step import Loss, Reading, TrainingStep

MAX_SKIPPED_IN_A_ROW = 50
# Validation takes at most this share of the time, however long it lasts.
_VALIDATION = 0.1


@dataclass(frozen=True)
class LoopSettings:
    """`save_seconds`: between checkpoints; `val_seconds`: between validations; `bf16`: autocast of the loss; `tf32`:
    see vidlbc.train.precision, which callers apply; `step`: see vidlbc.train.captured."""

    budget: Budget
    lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    warmup: float = 0.02
    final_lr: float = 0.02
    log_every: int = 50
    save_seconds: float = 120.0
    val_seconds: float = 300.0
    bf16: bool = False
    tf32: bool = False
    seed: int = 0
    step: str = "auto"

    @classmethod
    def of(cls, settings: Any, **others: Any) -> "LoopSettings":
        """Those fields that the settings of a job have too, and `others`."""
        shared = {field.name: getattr(settings, field.name) for field in fields(cls) if hasattr(settings, field.name)}
        return cls(**shared | others)


@dataclass(frozen=True)
class Outcome:
    steps: int
    seconds: float
    skipped: int
    last: dict[str, float]


@dataclass
class _State:
    """Where a run is: what a checkpoint holds beside tensors."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    progress: float = 0.0


def fit(
    module: nn.Module,
    loss_fn: Loss,
    batches: Callable[[int], Any],
    settings: LoopSettings,
    folder: Path,
    on_log: Callable[[int, float, dict[str, float]], None] | None = None,
    validate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
) -> Outcome:
    """Train the parameters of `module` that require gradients; at the end they hold their EMA.

    Writes `folder/checkpoint.safetensors` (resume) and `folder/average.safetensors` (the EMA, and what is not trained),
    and appends to `folder/log.jsonl` and `folder/validation.jsonl`. `on_log(step, progress, figures)` feeds a progress
    display; `validate(module)` is called now and then while the module holds the EMA, and at the end, by rank 0.

    Raises FloatingPointError after 50 non-finite steps in a row, noticed at the next log line, and InputError where the
    checkpoint in `folder` is damaged or of another network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = TrainingStep(
        module, loss_fn, settings.lr, settings.weight_decay, settings.clip, settings.ema, settings.bf16
    )
    path = folder / "checkpoint.safetensors"
    state = _restore(path, training) if path.is_file() else _State()
    distributed.broadcast(module)
    steps = Steps(training, batches, settings.step)
    run = _Run(training, settings, folder, state, on_log, validate)
    module.train()
    with steps.stream():
        while (progress := run.progress()) < 1:
            rate = learning_rate(progress, settings.lr, settings.warmup, settings.final_lr)
            torch.manual_seed(settings.seed * 1_000_003 + state.step * 64)
            training.prepare(state.step, rate)
            steps.run(state.step)
            state.step += 1
            run.after_step(rate)
        run.finish()
    training.average.copy_to_module()
    module.eval()
    return Outcome(state.step, state.seconds, state.skipped, run.figures)


class _Run:
    """What a run does between its steps: time, log, checkpoints, validation."""

    def __init__(
        self,
        training: TrainingStep,
        settings: LoopSettings,
        folder: Path,
        state: _State,
        on_log: Callable[[int, float, dict[str, float]], None] | None,
        validate: Callable[[nn.Module], Mapping[str, Any]] | None,
    ):
        self.training, self.settings, self.folder, self.state = training, settings, folder, state
        self.on_log, self.validate = on_log, validate if distributed.rank() == 0 else None
        self.figures: dict[str, float] = {}
        self._deadline = Deadline(settings.budget, state.progress)
        self._started = time.monotonic() - state.seconds
        self._saved = self._validated = time.monotonic()
        self._took = 0.0
        self._began_at = state.step

    def progress(self) -> float:
        state = self.state
        state.seconds = time.monotonic() - self._started
        wall = self._deadline.progress()
        state.progress = distributed.agree(self.settings.budget.progress(state.step, state.seconds, wall))
        return state.progress

    def after_step(self, rate: float) -> None:
        state = self.state
        state.seconds = time.monotonic() - self._started
        if state.step % self.settings.log_every == 0 or state.step == 1:
            self._log(self.training.read(), rate)
        now = time.monotonic()
        if now - self._saved > self.settings.save_seconds:
            self._saved = now
            self._save()
        if self.validate and now - self._validated > max(self.settings.val_seconds, self._took / _VALIDATION):
            self._validate()

    def finish(self) -> None:
        self._count(self.training.read())
        self._save()
        if self.validate and self.state.step > self._began_at:
            self._validate()

    def _count(self, reading: Reading) -> None:
        self.state.skipped += reading.skipped
        if reading.in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"{reading.in_a_row} steps in a row gave a non-finite loss or gradient, at step {self.state.step - 1}"
            )
        if reading.steps:
            self.figures = reading.figures

    def _log(self, reading: Reading, rate: float) -> None:
        self._count(reading)
        if not reading.steps:
            return
        state = self.state
        rounded = {name: round(value, 6) for name, value in self.figures.items()}
        self._line("log.jsonl", {"lr": rate, "skipped": state.skipped, **rounded})
        if self.on_log is not None:
            self.on_log(state.step, state.progress, self.figures)

    def _validate(self) -> None:
        assert self.validate is not None
        began = time.monotonic()
        self.training.module.eval()
        with self.training.average.in_place(), torch.no_grad():
            found = self.validate(self.training.module)
        self.training.module.train()
        self._validated = time.monotonic()
        self._took = self._validated - began
        self._line("validation.jsonl", found)

    def _line(self, name: str, figures: Mapping[str, Any]) -> None:
        if distributed.rank() == 0:
            with open(self.folder / name, "a") as file:
                line = {"step": self.state.step, "seconds": round(self.state.seconds, 1), **figures}
                file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        if distributed.rank():
            return
        training, state = self.training, self.state
        trained = {name: p for name, p in training.module.named_parameters() if p.requires_grad}
        buffers = dict(training.module.named_buffers())  # such as running statistics of batch normalisation
        meta = {"step": state.step, "seconds": state.seconds, "skipped": state.skipped, "progress": state.progress}
        averages = training.average.values
        tensors: dict[str, Tensor] = {f"module.{n}": p for n, p in trained.items()}
        tensors |= {f"buffer.{n}": b for n, b in buffers.items()}
        tensors |= {f"ema.{n}": v for n, v in averages.items()}
        tensors |= checkpoint.optimiser_tensors(training.optimiser)
        save_tensors(self.folder / "checkpoint.safetensors", tensors, meta)
        frozen = {name: p for name, p in training.module.named_parameters() if not p.requires_grad}
        save_tensors(self.folder / "average.safetensors", {**frozen, **averages, **buffers}, meta)


def _restore(path: Path, training: TrainingStep) -> _State:
    """Raises InputError where the checkpoint is damaged or of another network."""
    tensors, meta = load_tensors(path, training.device)
    module, average = training.module, training.average
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
    checkpoint.restore_optimiser(training.optimiser, tensors)
    return _State(meta["step"], meta["seconds"], meta["skipped"], meta.get("progress", 0.0))
