"""The base's loss, its data and its head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.scalable.objective import BaseLoss, TaskBase, TaskStrength
from vidlbc.experiments.scalable.task import ClipHead, TaskClips, TaskSettings, segment_frames


@pytest.fixture
def batch(make_frames):
    clips = np.stack([make_frames(2, (64, 64), seed=seed) for seed in range(2)])
    return torch.from_numpy(clips).permute(0, 1, 4, 2, 3).float() / 255, torch.tensor([0, 2]), torch.tensor([10, 50])


@pytest.fixture
def base(small_stage):
    torch.manual_seed(0)
    return TaskBase(small_stage(layers="base"), ClipHead(8, 3, width=16, dropout=0.0))


def gradients(module, loss, batch, step=0):
    """Of every parameter, with the same noise every time; None where none came."""
    module.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    loss(module, batch, step)[0].backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.compressai
def test_without_beta_the_preview_only_watches(base, batch):
    first = "stage.f_b.0.weight"
    without, with_reward = BaseLoss(0.0, TaskStrength()), BaseLoss(0.5, TaskStrength())
    before, rewarded = gradients(base, without, batch), gradients(base, with_reward, batch)
    with torch.no_grad():
        for parameter in base.stage.g_a.parameters():
            parameter.mul_(3)
    after, rewarded_after = gradients(base, without, batch), gradients(base, with_reward, batch)
    assert bool(before["stage.g_a.0.weight"].any())
    assert not torch.equal(before["stage.g_a.0.weight"], after["stage.g_a.0.weight"])
    assert torch.equal(before[first], after[first])
    assert not torch.equal(rewarded[first], rewarded_after[first])


@pytest.mark.compressai
def test_the_first_steps_move_head_and_preview_only(base, batch):
    loss = BaseLoss(0.01, TaskStrength(), head_steps=3)
    for step, moves in ((2, False), (3, True)):
        found = gradients(base, loss, batch, step)
        assert (found["stage.f_b.0.weight"] is not None) is moves
        assert (found["stage.gains.0.log2_gain"] is not None) is moves
        assert found["head.classify.1.weight"] is not None and found["stage.g_a.0.weight"] is not None


@pytest.mark.compressai
def test_the_loss_is_the_sum_of_its_terms(base, batch):
    clips, labels, _ = batch
    qp = torch.tensor([32, 32])
    strength = TaskStrength(0.5, 0.5)
    torch.manual_seed(7)
    loss, told = BaseLoss(0.04, strength, balance=0.0)(base, (clips, labels, qp), 0)
    figures = {name: float(value) for name, value in told.items()}
    mse = 10 ** (-figures["preview"] / 10)
    expected = 0.5 * figures["nats"] + figures["bpp"] + 0.04 * 255**2 * mse / 100
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_task_strength_is_log_spaced_over_the_qps():
    values = TaskStrength(0.1, 10.0).at(torch.tensor([0, 21, 42, 63]))
    torch.testing.assert_close(values, torch.tensor([0.1, 10 ** (-1 / 3), 10 ** (1 / 3), 10.0]))
    with pytest.raises(InputError, match="expected 0 < low <= high"):
        TaskStrength(2.0, 1.0)


# ---- clips


def clip_set(make_frames, labels=(0, 1, -1)):
    clips = tuple(make_frames(5 + i, (64, 64), seed=i) for i in range(len(labels)))
    names = tuple(f"clip{i}" for i in range(len(labels)))
    return ClipSet(clips, np.array(labels), names, ("train",) * len(labels), names, ("wave", "point"))


def test_a_step_of_clips_is_a_pure_function_of_seed_and_step(make_frames):
    clips = clip_set(make_frames)
    settings = TaskSettings(frames=3, batch=4, shift=5)
    one, other = TaskClips(clips, settings, seed=1), TaskClips(clips, settings, seed=1)
    one(0)
    first, again = one(7), other(7)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (4, 3, 3, 64, 64) and 0 <= float(first[0].min()) <= float(first[0].max()) <= 1
    assert not torch.equal(first[0], one(8)[0])
    assert not torch.equal(first[0], TaskClips(clips, settings, seed=2)(7)[0])
    assert set(torch.cat([one(step)[1] for step in range(8)]).tolist()) == {0, 1}  # never the unlabelled clip


def test_without_augmentation_frames_come_as_they_are(make_frames):
    clips = clip_set(make_frames, labels=(1,))
    frames, labels, _ = TaskClips(clips, TaskSettings(frames=5, batch=1, shift=0, jitter=0.0), seed=0)(0)
    assert labels.tolist() == [1]
    source = torch.from_numpy(clips.clips[0]).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(frames[0], source, atol=1e-6, rtol=0)


def test_clips_without_labels_are_refused(make_frames):
    with pytest.raises(InputError, match="no labelled clip"):
        TaskClips(clip_set(make_frames, labels=(-1,)), TaskSettings(), 0)
    with pytest.raises(InputError, match="task.batch=0"):
        TaskSettings(batch=0)


def test_frames_are_spread_over_the_clip():
    assert segment_frames(48, 4).tolist() == [6, 18, 30, 42]
    assert segment_frames(2, 4).tolist() == [0, 0, 1, 1]


# ---- head


def test_a_head_comes_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    head = ClipHead(8, 3, width=16)
    head.normalise(3 + 2 * torch.randn(4, 8, 4, 4))
    head.eval()
    head.save(tmp_path / "head.safetensors", {"classes": ["a", "b", "c"]})
    loaded, meta = ClipHead.load(tmp_path / "head.safetensors")
    y = torch.randn(2, 5, 8, 4, 4)
    assert torch.equal(head(y), loaded(y)) and loaded(y).shape == (2, 3)
    assert meta["classes"] == ["a", "b", "c"]


def test_a_file_without_a_head_is_told(tmp_path):
    from vidlbc.run.tensor_files import save_tensors

    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"step": 1})
    with pytest.raises(InputError, match="holds no head"):
        ClipHead.load(tmp_path / "other.safetensors")
