"""Moved kinds on a device that only pretends to be one: the CPU's streams to the byte, no mixed devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import MOVED_OPTIONS, noisy_frames, save_small_model
from tests.pretended_device import pretended_cuda
from vidlbc.codec import models
from vidlbc.train.objectives.motion import MotionRate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["all blocks coded", "some copied"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("models") / "moved"
    return save_small_model(path, moved=True, copies=request.param == "some copied")


@pytest.mark.parametrize("kind", MOVED_OPTIONS)
def test_streams_and_references_are_the_cpus(folder: Path, kind: str) -> None:
    frames = noisy_frames(4, 40, 56)
    with pretended_cuda():
        here, there = (vidlbc.load(folder, device, temporal=kind, refine=True) for device in ("cpu", "cuda"))
        for codec in (here, there):
            codec._priors.intra_frames = False
        for rdo in (False, True):
            data = there.compress(frames, rdo=rdo)
            assert data == here.compress(frames, rdo=rdo)
        assert np.array_equal(there.decompress(data), here.decompress(data))
        for ours, theirs in zip(here.latents(data), there.latents(data), strict=True):
            assert theirs.is_cuda and torch.equal(ours, theirs.cpu())


@pytest.mark.parametrize("kind", MOVED_OPTIONS)
def test_a_training_step_stays_on_its_device(folder: Path, kind: str) -> None:
    frames = torch.from_numpy(np.stack([noisy_frames(3, 64, 64, seed) for seed in range(2)])).permute(0, 1, 4, 2, 3)
    qp = torch.tensor([20, 40])
    with pretended_cuda():
        losses = []
        for device in ("cpu", "cuda"):
            image = models.load_image_stage(folder / "image_stage")
            stage = models.load_temporal(folder / "temporal" / kind, image)[0].requires_grad_(True).to(device)
            rate = MotionRate(image.to(torch.device(device)), price=20.0)
            for step in range(2):
                loss, _ = rate(stage, (frames.to(device), qp.to(device)), step)
                loss.backward()
                losses.append(float(loss.detach().cpu()))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-4)
