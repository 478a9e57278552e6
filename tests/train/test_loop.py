"""The training loop: exact resume, budgets, steps that are not finite."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.small_runs import image_run, settings, temporal_run, train
from vidlbc.errors import InputError
from vidlbc.run.tensor_files import load_tensors
from vidlbc.train.loop import MAX_SKIPPED_IN_A_ROW, fit
from vidlbc.train.schedule import Budget, learning_rate


class Interrupted(Exception):
    pass


def build(which: str, folder: Path) -> tuple[Any, Any, Callable[[int], Any]]:
    return image_run(folder) if which == "image" else temporal_run(folder, which)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["image", "lstm", "transformer"])
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(which: str, tmp_path: Path) -> None:
    steps = 8
    whole = build(which, tmp_path)
    assert train(whole, tmp_path / "whole", settings(steps)).steps == steps

    seen: list[int] = []
    for stop in (3, 4, 6, None):
        module, loss, batches = build(which, tmp_path)

        def until(step: int, stop: int | None = stop, batches: Callable[[int], Any] = batches) -> Any:
            if step == stop:
                raise Interrupted
            seen.append(step)
            return batches(step)

        if stop is None:
            outcome = fit(module, loss, until, settings(steps), tmp_path / "parts")
        else:
            with pytest.raises(Interrupted):
                fit(module, loss, until, settings(steps), tmp_path / "parts")
    assert seen == list(range(steps)) and outcome.steps == steps
    for (name, a), b in zip(whole[0].state_dict().items(), module.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    first, meta = load_tensors(tmp_path / "whole" / "checkpoint.safetensors")
    second, meta_again = load_tensors(tmp_path / "parts" / "checkpoint.safetensors")
    assert first.keys() == second.keys() and meta["step"] == meta_again["step"] == steps
    assert all(torch.equal(first[name], second[name]) for name in first)
    keys = ("step", "lr", "loss", "grad_norm")
    assert [[line[k] for k in keys] for line in log_of(tmp_path / "whole")] == [
        [line[k] for k in keys] for line in log_of(tmp_path / "parts")
    ]


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    first = image_run(tmp_path)
    train(first, tmp_path, settings(3))
    module, loss, _ = image_run(tmp_path)

    def never(step: int) -> Any:
        raise AssertionError(f"step {step} after the end")

    outcome = fit(module, loss, never, settings(3), tmp_path)
    assert outcome.steps == 3
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), module.parameters(), strict=True))


def test_the_result_is_the_moving_average(tmp_path: Path) -> None:
    run = image_run(tmp_path)
    train(run, tmp_path, settings(4))
    tensors, _ = load_tensors(tmp_path / "checkpoint.safetensors")
    names = [name for name, _ in run[0].named_parameters()]
    assert all(torch.equal(tensors[f"ema.{n}"], p) for n, p in run[0].named_parameters())
    assert any(not torch.equal(tensors[f"ema.{n}"], tensors[f"module.{n}"]) for n in names)
    assert not run[0].training


class Scalar(nn.Module):
    """One weight, pulled towards 1; at given steps the loss or its gradient is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def loss(self, bad: dict[int, str]) -> Callable[[nn.Module, Any, int], tuple[Tensor, dict[str, float]]]:
        def loss_fn(module: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
            value = (self.weight - 1).square().sum()
            if bad.get(step) == "loss":
                value = value * math.nan
            if bad.get(step) == "infinite":
                value = value + math.inf
            if bad.get(step) == "gradient":
                value = value + (self.weight * 0).sum().sqrt()  # 0 with an infinite slope
            return value, {"value": 1.0}

        return loss_fn


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path: Path) -> None:
    module = Scalar()
    bad = {1: "loss", 2: "gradient", 5: "infinite"}
    outcome = fit(module, module.loss(bad), lambda step: None, settings(8, lr=0.1), tmp_path)
    assert (outcome.steps, outcome.skipped) == (8, 3)
    assert bool(torch.isfinite(module.weight).all()) and float(module.weight.detach().min()) > 0.1
    lines = log_of(tmp_path)
    assert [line["skipped"] for line in lines] == [0, 2, 2, 3, 3]  # one line a step that was taken
    assert all(math.isfinite(value) for line in lines for value in line.values())
    # The count outlives a restart.
    assert fit(module, module.loss({9: "loss"}), lambda step: None, settings(10), tmp_path).skipped == 4


def test_a_skipped_step_changes_nothing(tmp_path: Path) -> None:
    module = Scalar()
    start = module.weight.detach().clone()
    fit(module, module.loss(dict.fromkeys(range(10), "gradient")), lambda step: None, settings(10), tmp_path)
    assert torch.equal(module.weight, start)


def test_nothing_but_skipped_steps_is_an_error(tmp_path: Path) -> None:
    module = Scalar()
    bad = dict.fromkeys(range(2, 100), "loss")
    with pytest.raises(FloatingPointError) as error:
        fit(module, module.loss(bad), lambda step: None, settings(100), tmp_path)
    assert MAX_SKIPPED_IN_A_ROW == 50
    assert str(error.value) == "50 steps in a row gave a non-finite loss or gradient, at step 51"


def test_budget_by_minutes_counts_across_restarts(tmp_path: Path) -> None:
    module = Scalar()

    def slow(step: int) -> None:
        time.sleep(0.02)

    chosen = settings(1, budget=Budget(minutes=0.5 / 60))
    first = fit(module, module.loss({}), slow, chosen, tmp_path)
    assert 1 <= first.steps <= 25 and 0.5 <= first.seconds < 5
    assert fit(Scalar(), module.loss({}), slow, chosen, tmp_path).steps == first.steps  # the time is spent
    longer = fit(Scalar(), module.loss({}), slow, settings(1, budget=Budget(minutes=1 / 60)), tmp_path)
    assert longer.steps > first.steps


def test_budget() -> None:
    assert Budget(steps=10).progress(5, 1e9) == 0.5
    assert Budget(minutes=2).progress(10**9, 30) == 0.25
    assert Budget(steps=10, minutes=1).progress(1, 45) == 0.75  # whichever ends first
    assert Budget(steps=10, minutes=1).progress(9, 6) == 0.9
    for options, message in (
        ({}, "a budget needs train.steps, train.minutes or train.until"),
        ({"steps": 0}, "train.steps=0: expected more than 0"),
        ({"minutes": -1.5}, "train.minutes=-1.5: expected more than 0"),
        ({"steps": 3, "minutes": math.nan}, "train.minutes=nan: expected more than 0"),
    ):
        with pytest.raises(InputError) as error:
            Budget(**options)
        assert str(error.value) == message


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(p / 1000, 1.0, 0.02, 0.05) for p in range(1001)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[:21] == sorted(rates[:21]) and rates[21:] == sorted(rates[21:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)
