"""Eq. 2: what each proxy sees and does not see, and how the weights lean over the run."""

from __future__ import annotations

import math

import pytest
import torch

from vidlbc.errors import InputError
from vidlbc.experiments.learning_by_compression import Evaluator, PatchStatistics, Pixels, Semantics, recovery_quality
from vidlbc.experiments.learning_by_compression.evaluator import Marks
from vidlbc.experiments.learning_by_compression.recogniser import Recogniser
from vidlbc.experiments.learning_by_compression.schedules import Ramp

NONE = Marks.none(4)


@pytest.fixture
def semantics() -> Semantics:
    return Semantics(Recogniser([3, 2], (8, 8, 8, 8)))


def test_identical_frames_have_r_zero_under_every_proxy(textures, semantics):
    marks = Marks(torch.tensor([0, 2, 1, -1]), torch.ones(4), torch.tensor([0, 0, 1, -1]))
    for proxy in (Pixels(), PatchStatistics(), semantics):
        assert proxy(textures, textures.clone(), marks).abs().max() == 0


def test_patch_statistics_do_not_see_a_shuffle_within_patches_but_pixels_do(textures):
    size = 8
    patches = torch.nn.functional.pixel_unshuffle(textures, size).view(4, 3, size * size, 8, 8)
    shuffled = torch.nn.functional.pixel_shuffle(patches[:, :, torch.randperm(size * size)].flatten(1, 2), size)
    assert PatchStatistics((size,))(textures, shuffled, NONE).max() < 1e-5
    assert PatchStatistics((4,))(textures, shuffled, NONE).min() > 1e-3
    assert Pixels()(textures, shuffled, NONE).min() > 1e-2


def test_patch_statistics_see_mean_and_spread():
    flat = torch.full((4, 3, 16, 16), 0.5)
    signs = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    # A chequered pattern of amplitude a: means stay, deviations rise by a (the mean over both statistics is a / 2).
    assert PatchStatistics((8,))(flat, flat + 0.1 * signs, NONE) == pytest.approx(torch.full((4,), 0.05), abs=1e-4)
    assert PatchStatistics((8,))(flat, flat + 0.1, NONE) == pytest.approx(torch.full((4,), 0.05), abs=1e-4)


def test_patch_statistics_have_a_finite_gradient_in_flat_frames():
    flat = torch.full((2, 3, 16, 16), 0.5, requires_grad=True)
    PatchStatistics()(torch.zeros(2, 3, 16, 16), flat, Marks.none(2)).sum().backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())


def test_the_semantic_part_is_zero_without_label_and_scales_with_trust(textures, semantics):
    decoded = 1 - textures
    marks = Marks(torch.tensor([1, 1, 0, -1]), torch.tensor([1.0, 0.3, 1.0, 0.0]), torch.tensor([0, 0, 1, -1]))
    r = semantics(textures[:1].repeat(4, 1, 1, 1), decoded[:1].repeat(4, 1, 1, 1), marks)
    assert r[3] == 0 and r[0] > 0 and r[2] > 0
    assert r[1] == pytest.approx(0.3 * r[0].item(), rel=1e-4)
    # The task's own classes decide, not the other task's.
    assert r[2] != pytest.approx(r[0].item(), rel=1e-6)


def test_the_gradient_of_the_semantic_part_reaches_the_frame_and_not_the_recogniser(textures, semantics):
    decoded = (1 - textures).requires_grad_()
    marks = Marks(torch.zeros(4, dtype=torch.long), torch.ones(4), torch.zeros(4, dtype=torch.long))
    semantics(textures, decoded, marks).sum().backward()
    assert decoded.grad is not None and decoded.grad.abs().sum() > 0
    assert all(p.grad is None for p in semantics.recogniser.parameters())


def test_the_weights_lean_from_patch_statistics_to_semantics(textures, semantics):
    weights = {"patch": Ramp(1.0, 0.0), "semantic": Ramp(0.0, 1.0, 0.5, 1.0)}
    evaluator = Evaluator((Pixels(), PatchStatistics(), semantics), weights)
    marks = Marks(torch.tensor([0, 1, 0, -1]), torch.ones(4), torch.tensor([0, 0, 1, -1]))
    decoded = 1 - textures
    early, middle, late = (evaluator.parts(textures, decoded, marks, p) for p in (0.0, 0.75, 1.0))
    assert set(early) == {"patch"} and set(middle) == {"patch", "semantic"} and set(late) == {"semantic"}
    assert torch.allclose(middle["patch"], 0.25 * early["patch"])
    assert torch.allclose(middle["semantic"], 0.5 * late["semantic"])
    assert torch.allclose(evaluator(textures, decoded, marks, 0.75), middle["patch"] + middle["semantic"])


def test_a_weight_without_its_proxy_is_refused():
    with pytest.raises(ValueError, match="semantic"):
        Evaluator((Pixels(),), {"semantic": Ramp(0, 1)})


def test_recovery_quality_is_the_mean_of_minus_log_r():
    assert recovery_quality(torch.tensor([0.1, 0.01])) == pytest.approx(-(math.log(0.1) + math.log(0.01)) / 2)
    assert recovery_quality(torch.zeros(3)) == pytest.approx(-math.log(1e-6))


@pytest.mark.parametrize(
    ("value", "progress", "expected"),
    [
        (0.3, 0.7, 0.3),
        ([1.0, 0.0], 0.25, 0.75),
        ([0, 2, 0.5, 1.0], 0.25, 0.0),
        ([0, 2, 0.5, 1.0], 0.75, 1.0),
    ],
)
def test_ramps(value, progress, expected):
    assert Ramp.of("evaluator.pixel", value).at(progress) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["a", [1], [1, 2, 3], [1, 0, 0.8, 0.2], [-1, 0], True])
def test_a_bad_ramp_is_one_line(value):
    with pytest.raises(InputError, match=r"evaluator\.pixel=.*expected"):
        Ramp.of("evaluator.pixel", value)
