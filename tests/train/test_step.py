"""A step without a host sync computes what the plain loop of a textbook does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.small_runs import image_run, settings, temporal_run
from vidlbc.errors import InputError
from vidlbc.run.tensor_files import load_tensors
from vidlbc.train.captured import Steps
from vidlbc.train.loop import fit
from vidlbc.train.schedule import Budget, Deadline, budget_of, learning_rate, process_start, time_of_day
from vidlbc.train.step import BETAS, TrainingStep


def plain(
    module: nn.Module, loss_fn: Any, batches: Callable[[int], Any], steps: int
) -> tuple[list[float], list[Tensor]]:
    """Losses of each step, and the moving average after the last, by torch's own unfused parts."""
    chosen = settings(steps)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, chosen.lr, BETAS, weight_decay=chosen.weight_decay, foreach=False)
    average = [p.detach().clone() for p in trained]
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step / steps, chosen.lr, chosen.warmup, chosen.final_lr)
        torch.manual_seed(chosen.seed * 1_000_003 + step * 64)
        loss, _ = loss_fn(module, batches(step), step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, chosen.clip)
        optimiser.step()
        for held, parameter in zip(average, trained, strict=True):
            held.lerp_(parameter.detach(), 1 - min(chosen.ema, (1 + step) / (10 + step)))
        losses.append(float(loss.detach()))
    return losses, average


@pytest.mark.slow
@pytest.mark.parametrize("which", ["image", "transformer"])
def test_losses_and_weights_are_those_of_the_plain_loop(which: str, tmp_path: Path) -> None:
    steps = 6
    build = image_run if which == "image" else lambda folder: temporal_run(folder, which)
    losses, average = plain(*build(tmp_path), steps)
    module, loss_fn, batches = build(tmp_path)
    fit(module, loss_fn, batches, settings(steps), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-5)
    trained = [p for p in module.parameters() if p.requires_grad]
    for found, wanted in zip(trained, average, strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-4, atol=1e-6)


class Convolutions(nn.Module):
    """3x3 weights whose channels lie last: their memory is in another order than their rows in a file."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 3))
        self.to(memory_format=torch.channels_last)

    def loss(self, module: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.layers(batch.contiguous(memory_format=torch.channels_last)).square().mean(), {}


def test_a_resumed_run_keeps_moments_where_their_weights_lie(tmp_path: Path) -> None:
    def batches(step: int) -> Tensor:
        return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(step))

    whole, parts = Convolutions(), Convolutions()
    fit(whole, whole.loss, batches, settings(8, lr=1e-2), tmp_path / "whole")
    for stop in (3, 6):
        with pytest.raises(StopIteration):
            fit(
                parts,
                parts.loss,
                lambda step, stop=stop: next(iter(() if step == stop else (batches(step),))),
                settings(8, lr=1e-2),
                tmp_path / "parts",
            )
        parts = Convolutions()
    fit(parts, parts.loss, batches, settings(8, lr=1e-2), tmp_path / "parts")
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, dict(parts.named_parameters())[name]), name


@pytest.mark.slow
def test_the_average_lies_beside_the_checkpoint(tmp_path: Path) -> None:
    module, loss_fn, batches = image_run(tmp_path)
    fit(module, loss_fn, batches, settings(3), tmp_path / "run")
    tensors, meta = load_tensors(tmp_path / "run" / "average.safetensors")
    assert meta["step"] == 3 and meta["progress"] == 1.0
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert tensors.keys() == own.keys() and all(torch.equal(tensors[name], own[name]) for name in own)


@pytest.mark.slow
def test_validation_sees_the_average_and_leaves_the_weights(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def validate(module: nn.Module) -> dict[str, float]:
        assert not module.training and not torch.is_grad_enabled()
        seen.append({name: p.detach().clone() for name, p in module.named_parameters()})
        return {"cost": float(len(seen))}

    module, loss_fn, batches = image_run(tmp_path)
    watched = settings(4, val_seconds=0.0)
    fit(module, loss_fn, batches, watched, tmp_path / "watched", validate=validate)
    alone, _, _ = image_run(tmp_path)
    fit(alone, loss_fn, batches, settings(4), tmp_path / "alone")
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), alone.parameters(), strict=True))
    assert all(torch.equal(p, seen[-1][name]) for name, p in module.named_parameters())  # the last one sees the result
    lines = [json.loads(line) for line in (tmp_path / "watched" / "validation.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and [line["cost"] for line in lines] == [float(i + 1) for i in range(len(seen))]


@pytest.mark.slow
def test_a_wall_clock_deadline_ends_the_schedule_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, loss_fn, batches = image_run(tmp_path)
    now = 1000.0  # a clock of its own: however long a step takes here, ten fit before the deadline
    monkeypatch.setattr(time, "time", lambda: now)

    def a_quarter_of_a_second(*arguments: Any) -> Any:
        nonlocal now
        now += 0.25
        return loss_fn(*arguments)

    budget = Budget(until=1002.5)
    outcome = fit(module, a_quarter_of_a_second, batches, settings(1, budget=budget), tmp_path)
    assert outcome.steps == 10
    rates = [json.loads(line)["lr"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    wanted = [learning_rate(step / 10, 1e-3) for step in range(10)]
    assert rates == pytest.approx(wanted, rel=1e-6) and rates[-1] < 0.1 * max(rates)
    again = image_run(tmp_path)[0]
    assert fit(again, loss_fn, batches, settings(1, budget=budget), tmp_path).steps == outcome.steps


def test_a_resumed_run_reaches_its_end_at_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    first = Deadline(Budget(until=1100.0))
    now = 1050.0
    assert first.progress() == pytest.approx(0.5)
    later = Deadline(Budget(until=1250.0), spent=0.5)  # resumed at half, with another deadline
    for now, progress in ((1050.0, 0.5), (1150.0, 0.75), (1250.0, 1.0), (1300.0, 1.0)):  # noqa: B007
        assert later.progress() == pytest.approx(progress)
    assert Deadline(Budget(until=900.0)).progress() == 1.0 and Deadline(Budget(steps=1)).progress() == 0.0


def test_times_of_day() -> None:
    now = datetime(2031, 5, 4, 13, 30).timestamp()
    for text, wanted in (
        ("13:31", datetime(2031, 5, 4, 13, 31)),
        ("13:30", datetime(2031, 5, 5, 13, 30)),
        ("00:05", datetime(2031, 5, 5, 0, 5)),
        ("2031-05-04T14:00:00", datetime(2031, 5, 4, 14)),
    ):
        assert time_of_day(text, now) == wanted.timestamp()
    assert time_of_day("@2000000000.5", now) == 2000000000.5
    # A day: the process of the tests may have run for long.
    assert abs(time_of_day("+1440") - process_start() - 86400) < 1 and process_start() < time.time()
    assert budget_of(7, 30.0, "@2000000000") == Budget(7, None, 2e9)
    for text in ("soon", "25:00", "@inf", "+", "12:3O"):
        with pytest.raises(InputError, match=f"train.until={text.replace('+', '.')}: expected HH:MM"):
            time_of_day(text, now)
    with pytest.raises(InputError, match="2031-05-04: 2031-05-04 00:00:00 has passed, it is 2031-05-04 13:30:00"):
        time_of_day("2031-05-04", now)


def test_what_cannot_be_a_graph_is_refused(tmp_path: Path) -> None:
    module, loss_fn, batches = image_run(tmp_path)
    step = TrainingStep(module, loss_fn, 1e-3, 0.0, 1.0, 0.9, False)
    with pytest.raises(InputError, match="train.launch=graph needs a single process on a GPU"):
        Steps(step, batches, "graph")
    with pytest.raises(InputError, match="train.launch=fast: expected one of auto, eager, graph"):
        Steps(step, batches, "fast")
