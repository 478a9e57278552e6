"""Both stages of training on a device that only pretends to be one: no mixed devices, and how often the host waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pretended_device import pretended_cuda
from tests.pretended_tensor import PretendedTensor
from tests.train.small_runs import image_run, settings, temporal_run, train
from vidlbc.train.objectives.video import SymbolRate

# What a step between two log lines costs at most, beside the event that keeps the host from running far ahead.
SYNCS_A_STEP = 0
RUNS = ("image", "none", "lstm", "transformer")

Run = tuple[nn.Module, Any, Callable[[int], Any]]


def run_of(name: str, folder: Path) -> Run:
    return image_run(folder) if name == "image" else temporal_run(folder, name)


def on_device(run: Run) -> Run:
    """The same run on the device, its batches uploaded without a wait."""
    module, loss, batches = run
    if isinstance(loss, SymbolRate):
        loss = SymbolRate(loss.image.to(torch.device("cuda")), loss.bf16)

    def uploaded(step: int) -> tuple[Tensor, ...]:
        return tuple(x.pin_memory().to("cuda", non_blocking=True) for x in batches(step))

    return module.to("cuda"), loss, uploaded


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_step_trains_the_same_and_waits_as_rarely_as_promised(tmp_path: Path, name: str) -> None:
    here = run_of(name, tmp_path)
    train(here, tmp_path / "here", settings(3))
    waits = []
    with pretended_cuda() as device:
        for steps in (1, 3):
            there = on_device(run_of(name, tmp_path))
            device.reset()
            train(there, tmp_path / str(steps), settings(steps, log_every=1000, save_seconds=1e9))
            waits.append(device.syncs.copy())
        assert all(isinstance(p, PretendedTensor) for p in there[0].parameters())
        trained = dict(there[0].cpu().named_parameters())
    for n, p in here[0].named_parameters():
        assert torch.equal(trained[n], p), n
    between = waits[1] - waits[0]
    del between["event"]
    assert between.total() <= 2 * SYNCS_A_STEP, between


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image", "transformer"])
def test_a_run_goes_on_from_its_checkpoint_there(tmp_path: Path, name: str) -> None:
    for steps in (1, 3):
        here = train(run_of(name, tmp_path), tmp_path / "here", settings(steps))
        with pretended_cuda():
            there = train(on_device(run_of(name, tmp_path)), tmp_path / "there", settings(steps))
    assert there.steps == 3 and there.last == here.last
