"""Family `scalable`: the base never depends on the enhancement, the enhancement's rate does on the base."""

from __future__ import annotations

import pytest
import torch

from vidlbc.codec.image_stage import build_image_stage
from vidlbc.errors import InputError
from vidlbc.experiments.scalable.objective import EnhancementLoss
from vidlbc.train.objectives.image import code

pytestmark = pytest.mark.compressai

QP = torch.tensor([40, 20])


@pytest.fixture
def frames(make_frames):
    return torch.from_numpy(make_frames(2, (128, 64))).permute(0, 3, 1, 2).float() / 255


def coded(stage, latents):
    """With the same noise every time."""
    torch.manual_seed(5)
    return code(stage, latents, QP)


def test_levels_and_shapes(small_stage, frames):
    stage = small_stage()
    assert [(level.stride, level.channels) for level in stage.levels] == [(8, 4), (8, 1), (16, 8), (64, 8)]
    assert stage.base_levels == 2
    # A layer shares no working stride with the other: a temporal stage reads the base alone too.
    assert {level.work_stride for level in stage.levels[:2]}.isdisjoint(level.work_stride for level in stage.levels[2:])
    latents = stage.analysis(frames)
    assert [tuple(y.shape) for y in latents] == [(2, 4, 16, 8), (2, 1, 16, 8), (2, 8, 8, 4), (2, 8, 2, 1)]
    assert stage.synthesis(latents, QP).shape == stage.preview(latents).shape == frames.shape
    torch.testing.assert_close(stage.preview(latents), stage.preview(latents[2:]))
    assert stage.pad(frames[..., :100, :50]).shape == (2, 3, 128, 64)


def test_the_base_is_blind_to_the_enhancement_and_the_enhancement_sees_the_base(small_stage, frames):
    stage = small_stage()
    latents = stage.analysis(frames)
    before = coded(stage, latents)
    other_enhancement = coded(stage, [latents[0] + 1, latents[1] - 1, *latents[2:]])
    assert torch.equal(before.level_bits[2], other_enhancement.level_bits[2])
    assert torch.equal(before.level_bits[3], other_enhancement.level_bits[3])
    other_base = coded(stage, [*latents[:2], latents[2] + 1, latents[3]])
    assert not torch.equal(before.level_bits[0], other_base.level_bits[0])
    assert not torch.equal(before.level_bits[1], other_base.level_bits[1])


def test_the_picture_reads_the_base_only_where_asked(small_stage, frames):
    for asked in (False, True):
        stage = small_stage(synthesis_reads_base=asked)
        latents = stage.analysis(frames)
        moved = [*latents[:2], latents[2] + 1, latents[3]]
        assert torch.equal(stage.synthesis(latents, QP), stage.synthesis(moved, QP)) is not asked


def test_base_parameters_are_those_that_the_base_depends_on(small_stage, frames):
    stage = small_stage()
    latents = stage.analysis(frames)
    base = coded(stage, latents)
    (base.level_bits[2].sum() + base.level_bits[3].sum() + stage.preview(base.latents).sum()).backward()
    reached = {name for name, p in stage.named_parameters() if p.grad is not None and bool(p.grad.any())}
    of_base = {id(p) for p in stage.base_parameters()}
    named = {name for name, p in stage.named_parameters() if id(p) in of_base}
    assert reached <= named
    # What no gradient reaches has a reason: biases behind a ReLU that is shut, anchors of QPs that were not used.
    assert all(not name.startswith(("f_e", "g_e", "h_e", "prior.heads.0", "gains.0")) for name in named)
    assert {n for n in named if n.startswith("prior.")} - reached == set()


def test_a_base_trained_alone_is_taken_over_to_the_symbol(small_stage, frames):
    alone, stage = small_stage(1, layers="base"), small_stage(2)
    assert [level.stride for level in alone.levels] == [16, 64] and alone.base_levels == 0
    torch.testing.assert_close(alone.synthesis(alone.analysis(frames), QP), alone.preview(alone.analysis(frames)))
    stage.take_base(alone)
    ours, theirs = stage.analysis(frames)[2:], alone.analysis(frames)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    zeros = [torch.zeros_like(y) for y in stage.analysis(frames)[:2]]
    with torch.no_grad():  # no noise: the distributions themselves
        mine = stage.prior([y.permute(0, 2, 3, 1) for y in [*zeros, *ours]], QP, stage.gains_at(QP))[2:]
        other = alone.prior([y.permute(0, 2, 3, 1) for y in theirs], QP, alone.gains_at(QP))
    for a, b in zip(mine, other, strict=True):
        assert torch.equal(a.mean, b.mean) and torch.equal(a.log2_scale, b.log2_scale)
    with pytest.raises(ValueError, match="of other sizes"):
        stage.take_base(small_stage(layers="base", M_base=12))


def test_training_the_enhancement_leaves_a_frozen_base_as_it_was(small_stage, frames):
    stage = small_stage()
    for parameter in stage.base_parameters():
        parameter.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=1e-2)
    for step in range(2):
        loss, figures = EnhancementLoss()(stage, (frames, QP), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    frozen = {id(p) for p in stage.base_parameters()}
    moved = {name for name, p in stage.named_parameters() if not torch.equal(p, before[name])}
    assert moved and not any(id(dict(stage.named_parameters())[name]) in frozen for name in moved)
    assert any(name.startswith("prior.up.8") for name in moved) and any(name.startswith("f_e") for name in moved)
    assert figures["bpp"] > 0


def test_the_stand_alone_codec_is_the_enhancement_without_a_base(small_stage, frames):
    stage = small_stage(layers="enhancement")
    assert [(level.stride, level.channels) for level in stage.levels] == [(8, 4), (8, 1)] and stage.base_levels == 0
    assert stage.multiple == 64 and not hasattr(stage, "f_b") and stage.base_parameters() == []
    assert stage.synthesis(stage.analysis(frames), QP).shape == frames.shape
    with pytest.raises(ValueError, match="no base"):
        stage.preview(stage.analysis(frames))


def test_the_start_is_a_working_transform(small_stage, frames):
    stage = small_stage(M_enhancement=32)

    def error() -> float:
        return float((stage.synthesis(stage.analysis(frames), QP) - frames).square().mean().detach())

    random = error()
    assert stage.start_from(frames)
    # 32 of 768 axes of a smooth picture, and attention that is all but shut.
    assert error() < 0.05 * random


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layers": "all"}, "expected one of both, base, enhancement"),
        ({"M_enhancement": 18}, "expected a multiple of 4"),
        ({"prior_widths": [8, 8]}, "2 prior_widths given, expected 3"),
        ({"layers": "base", "synthesis_reads_base": True}, "needs layers=both"),
    ],
)
def test_bad_options_are_told(options, told):
    with pytest.raises(InputError, match=told):
        build_image_stage("scalable", **options)
