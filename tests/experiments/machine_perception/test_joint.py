"""Eq. 6: rate, distortion and utility, trained together."""

from __future__ import annotations

import pytest
import torch

from vidlbc.codec.image_stage import build_image_stage
from vidlbc.experiments.machine_perception.encoder import frames_alone
from vidlbc.experiments.machine_perception.joint import (
    JointBatch,
    JointModel,
    RateDistortionUtility,
    TaskBatch,
    Utility,
)
from vidlbc.heads.clip_resnet import ClipResNet
from vidlbc.heads.resnet import ResNetSettings
from vidlbc.train.loop import LoopSettings, fit
from vidlbc.train.objectives.image import RateDistortion
from vidlbc.train.schedule import Budget

pytestmark = pytest.mark.compressai


@pytest.fixture
def model() -> JointModel:
    torch.manual_seed(0)
    stage = build_image_stage("codevilla", N=8, z_stride=64, prior_widths=[8, 8], prior_blocks=1)
    stage.start_from(torch.rand(4, 3, 64, 64))
    head = ClipResNet([(8, 16)], 2, ResNetSettings(width=4, depths=(1, 1, 1, 1), norm="group"), dropout=0.0)
    return JointModel(stage, {"action": head}, [0])


def compression() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([8, 40])


def task() -> TaskBatch:
    """Two clips of three frames: dark and bright."""
    clips = torch.stack([torch.full((3, 3, 64, 64), 0.1), torch.full((3, 3, 64, 64), 0.9)])
    return TaskBatch(clips, torch.tensor([0, 1]), torch.tensor([20, 50]))


def test_without_tasks_it_is_the_naive_loss(model):
    torch.manual_seed(3)
    ours, _ = RateDistortionUtility({})(model, JointBatch(compression()), 0)
    torch.manual_seed(3)
    naive, _ = RateDistortion()(model.stage, compression(), 0)
    assert float(ours.detach()) == float(naive.detach())


def test_the_utility_is_weighted_and_told(model):
    losses, batch = [], JointBatch(compression(), {"action": task()})
    for weight in (0.0, 3.0):
        torch.manual_seed(3)
        loss, figures = RateDistortionUtility({"action": weight})(model, batch, 0)
        losses.append(float(loss.detach()))
    assert losses[1] - losses[0] == pytest.approx(3 * float(figures["action"]), rel=1e-3)
    assert 0 <= figures["action_top1"] <= 1 and {"bpp", "psnr"} <= figures.keys()


def test_the_tasks_gradient_goes_through_rounding_into_the_encoder_and_not_into_the_decoder(model):
    logits = model.logits("action", task())
    torch.nn.functional.cross_entropy(logits, task().labels).backward()
    stage = model.stage
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in stage.g_a[0].parameters())
    assert all(p.grad is None for p in stage.g_s.parameters())
    assert all(p.grad is None for p in stage.prior.parameters())


def test_training_learns_the_task(model):
    objective = RateDistortionUtility({"action": 5.0})
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    seen = []
    for step in range(12):
        loss, figures = objective(model, JointBatch(compression(), {"action": task()}), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(figures["action"])
    assert seen[-1] < 0.5 * seen[0]


def test_frames_alone_carry_the_label_and_qp_of_their_clip():
    batch = frames_alone(task())
    assert batch.clips.shape == (6, 1, 3, 64, 64)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1] and batch.qp.tolist() == [20] * 3 + [50] * 3
    assert float(batch.clips[2].mean()) < 0.2 < float(batch.clips[3].mean())


def test_a_head_trained_alone_leaves_the_codec_as_it_is(model, tmp_path):
    before = {name: value.clone() for name, value in model.stage.state_dict().items()}
    head = {name: value.clone() for name, value in model.heads.state_dict().items()}
    model.stage.requires_grad_(False)
    losses = []
    settings = LoopSettings(Budget(steps=12), lr=3e-3, ema=0.5, seed=0, log_every=1)
    fit(model, Utility("action"), lambda step: task(), settings, tmp_path, lambda s, p, f: losses.append(f["loss"]))
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.stage.state_dict().items())
    assert any(not torch.equal(value, head[name]) for name, value in model.heads.state_dict().items())
