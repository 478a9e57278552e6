"""Eq. 3: the two auxiliary terms, the price of rate, degradations, and what truncation does to the gradient."""

from __future__ import annotations

import pytest
import torch

from tests.experiments.learning_by_compression.conftest import TINY, VARIANTS
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.errors import InputError
from vidlbc.experiments.learning_by_compression import Evaluator, PatchStatistics, Pixels
from vidlbc.experiments.learning_by_compression.degradation import Degradation
from vidlbc.experiments.learning_by_compression.losses import contrastive_loss, correlation_loss
from vidlbc.experiments.learning_by_compression.objective import CompressionLoss, Learner, LossWeights, rate_price
from vidlbc.experiments.learning_by_compression.recogniser import classification_loss
from vidlbc.experiments.learning_by_compression.schedules import Ramp
from vidlbc.train.data.mixed_data import MixedBatch


def test_correlation_is_small_for_independent_levels_and_large_for_copies():
    fine, coarse = torch.randn(4, 2, 32, 32), torch.randn(4, 3, 16, 16)
    copied = torch.nn.functional.pixel_unshuffle(fine, 2)[:, :3]
    independent, same = correlation_loss([fine, coarse], [1.0]), correlation_loss([fine, copied], [1.0])
    assert independent < 0.005
    # 3 of the 8 x 3 pairs are identical: correlation 1.
    assert same == pytest.approx(3 / 24, abs=0.005)
    # Neither scale nor offset nor sign matters.
    assert correlation_loss([fine, 5 - 3 * copied], [1.0]) == pytest.approx(float(same), rel=1e-3)


def test_only_weighted_distances_count_and_empty_levels_are_passed_over():
    a, b = torch.randn(2, 1, 32, 32), torch.randn(2, 2, 16, 16)
    c = torch.nn.functional.pixel_unshuffle(a, 4)[:, :4]
    assert correlation_loss([a, b, c], [1.0]) < 0.01 < correlation_loss([a, b, c], [1.0, 1.0])
    assert correlation_loss([a[:, :0], b, c], [1.0, 1.0, 1.0]) == correlation_loss([b, c], [1.0])
    assert correlation_loss([a[:, :0], b[:, :0], c], [1.0]) == 0


def test_descending_the_correlation_decorrelates():
    fine = torch.randn(2, 1, 16, 16)
    coarse = (torch.nn.functional.pixel_unshuffle(fine, 2) + 0.5 * torch.randn(2, 4, 8, 8)).requires_grad_()
    optimiser = torch.optim.Adam([coarse], lr=0.05)
    before = float(correlation_loss([fine, coarse.detach()], [1.0]))
    for _ in range(40):
        optimiser.zero_grad()
        correlation_loss([fine, coarse], [1.0]).backward()
        optimiser.step()
    assert float(correlation_loss([fine, coarse.detach()], [1.0])) < 0.3 * before


def test_contrast_is_lower_for_views_that_belong_together():
    first = torch.randn(6, 16)
    assert contrastive_loss(first, first + 0.1 * torch.randn(6, 16)) < contrastive_loss(first, first.roll(1, 0)) - 1
    assert contrastive_loss(first[:1], first[:1]) == 0


def test_classification_ignores_what_has_no_label_and_weighs_by_trust():
    scores = torch.randn(3, 4)
    scores[:, 3] = float("-inf")  # a task of three classes beside one of four
    label = torch.tensor([0, 2, -1])
    each = torch.nn.functional.cross_entropy(scores[:2, :3], label[:2], reduction="none")
    loss = classification_loss(scores, label, torch.tensor([1.0, 0.5, 0.0]))
    assert loss == pytest.approx(float((each[0] + 0.5 * each[1]) / 1.5), rel=1e-5)
    free = scores.clone().requires_grad_()
    classification_loss(free, torch.full((3,), -1), torch.zeros(3)).backward()
    assert free.grad is not None and free.grad.abs().sum() == 0


def test_the_price_of_a_bit_follows_from_the_codec_loss():
    """At D = n / (2 ln 2 lambda 255^2), where bpp + lambda 255^2 D is stationary, r + rho bpp is stationary as well."""
    import math

    elements, c = 0.234375, math.sqrt(2 / math.pi)
    for qp in (0, 32, 63):
        weight = float(qp_lambda(torch.tensor(qp)))
        d = elements / (2 * math.log(2) * weight * 255**2)
        price = float(rate_price(torch.tensor([qp]), c / math.sqrt(2 * elements / math.log(2)))[0])
        slope_r, slope_bpp = c / (2 * math.sqrt(d)), -elements / (2 * math.log(2) * d)
        assert slope_r + price * slope_bpp == pytest.approx(0, abs=1e-4 * slope_r)


def batch_of(frames: torch.Tensor, label: list[int], qp: int = 32) -> MixedBatch:
    labels = torch.tensor(label)
    known = (labels >= 0).float()
    return MixedBatch(frames, torch.full((len(frames),), qp), labels, known, torch.where(labels >= 0, 0, -1))


@pytest.fixture
def learner() -> Learner:
    stage = build_image_stage("lbc", **TINY, variants=VARIANTS)
    return Learner(stage, (3,))


def loss_of(**changes) -> CompressionLoss:
    weights = {"pixel": Ramp(1, 1), "patch": Ramp(1, 0)}
    return CompressionLoss(Evaluator((Pixels(), PatchStatistics()), weights), **changes)


@pytest.mark.parametrize("variant", ["V1", "V3"])
def test_truncated_projections_get_no_gradient(learner, textures, variant):
    kept = VARIANTS[variant]
    loss, _ = loss_of()(learner, batch_of(textures, [0, 1, -1, -1]), kept, 0, 0.0)
    loss.backward()
    stage = learner.stage
    for project, lift, k in zip(stage.project, stage.lift, kept, strict=True):
        assert project.weight.grad[k:].abs().sum() == 0 and lift.weight.grad[:, k:].abs().sum() == 0
        assert not k or project.weight.grad[:k].abs().sum() > 0
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_both_lambdas_decay_to_nothing(learner, textures):
    batch = batch_of(textures, [0, 1, -1, -1])
    objective = loss_of(weights=LossWeights(enc=Ramp(0.1, 0.0, 0.0, 0.5), corr=Ramp(0.1, 0.0)))
    told = [set(objective(learner, batch, VARIANTS["V1"], 0, p)[1]) for p in (0.0, 0.6, 1.0)]
    assert {"enc", "corr"} <= told[0]
    assert "enc" not in told[1] and "corr" in told[1]
    assert not {"enc", "corr"} & told[2]


def test_neighbouring_levels_are_decorrelated_first():
    weights = LossWeights(distance=(1.0, 0.5, 0.25), join=(0.0, 0.2, 0.4))
    assert [weights.of_distances(p) for p in (0.0, 0.2, 0.5)] == [[1, 0, 0], [1, 0.5, 0], [1, 0.5, 0.25]]


def test_the_heads_learn_from_labels_and_from_contrast_where_there_are_none(learner, textures):
    objective = loss_of()
    objective(learner, batch_of(textures, [0, 1, 2, 0]), VARIANTS["V1"], 0, 0.0)[0].backward()
    assert learner.heads[0].weight.grad.abs().sum() > 0 and learner.view[0].weight.grad is None
    learner.zero_grad()
    objective(learner, batch_of(textures, [-1, -1, -1, -1]), VARIANTS["V1"], 0, 0.0)[0].backward()
    assert learner.heads[0].weight.grad.abs().sum() == 0 and learner.view[0].weight.grad.abs().sum() > 0


def test_recovery_is_measured_against_the_clean_frame(learner, textures):
    """A stage that gives mid-grey whatever it sees: its pixel error tells which target it is held against."""
    for parameter in learner.stage.parameters():
        torch.nn.init.zeros_(parameter)
    noisy = dict(blur=0.0, noise=2.0, grey=0.0, share=1.0)
    clean_error = float((textures - 0.5).abs().mean())
    batch = batch_of(textures, [-1] * 4)
    errors = {}
    for recover in (True, False):
        objective = loss_of(degradation=Degradation(**noisy, recover=recover))
        errors[recover] = objective(learner, batch, VARIANTS["V1"], 0, 1.0)[1]["pixel"]
    assert errors[True] == pytest.approx(clean_error, rel=1e-4)
    assert errors[False] > 1.1 * clean_error


def test_degradations_are_a_function_of_the_seed(textures):
    degrade = Degradation(share=1.0)
    assert torch.equal(degrade(textures, 3), degrade(textures, 3))
    assert not torch.equal(degrade(textures, 3), degrade(textures, 4))
    out = degrade(textures, 3)
    assert out.shape == textures.shape and out.min() >= 0 and out.max() <= 1


def test_each_degradation_does_its_own(textures):
    off = dict(blur=0.0, noise=0.0, grey=0.0)
    assert torch.equal(Degradation(share=0.0)(textures, 0), textures)
    assert torch.allclose(Degradation(**off, share=1.0)(textures, 0), textures)
    grey = Degradation(**{**off, "grey": 1.0}, share=1.0)(textures, 0)
    assert torch.allclose(grey[:, 0], grey[:, 2]) and torch.allclose(grey.mean(1), textures.mean(1), atol=1e-6)
    sharp = torch.rand(4, 3, 32, 32)
    blurred = Degradation(**{**off, "blur": 3.0}, share=1.0)(sharp, 1)
    assert (blurred.var((1, 2, 3)) < 0.9 * sharp.var((1, 2, 3))).any()
    assert torch.allclose(blurred.mean((2, 3)), sharp.mean((2, 3)), atol=0.05)
    noisy = Degradation(**{**off, "noise": 0.1}, share=1.0)(textures, 0)
    assert 0 < (noisy - textures).std() < 0.1


def test_a_bad_degradation_is_one_line():
    with pytest.raises(InputError, match=r"degradation\.share=2: expected a probability"):
        Degradation(share=2)
