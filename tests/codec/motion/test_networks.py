"""Networks for prediction: those of the image stage on the grid, to begin with."""

import pytest
import torch

from vidlbc.codec import models
from vidlbc.codec.image_stage.base import channels_first, channels_last
from vidlbc.codec.motion.networks import PredictionAnalysis, ReferenceSynthesis, take_over
from vidlbc.codec.motion.stage import MotionStage, motion_options, start_from
from vidlbc.codec.motion.warp import CONTRAST, seen
from vidlbc.codec.prior.grid import as_integers, check_exact, from_integers, to_grid


@pytest.fixture(scope="module")
def image():
    return models.load_image_stage(models.SHIPPED / "default" / "image_stage")


@pytest.fixture(scope="module")
def motion(image):
    stage = MotionStage(image.stage.levels, **motion_options(image.stage))
    start_from(stage, image.stage)
    return to_grid(stage)


def picture(size: int = 96) -> torch.Tensor:
    ramp = torch.linspace(0, 9, size)
    down = ramp[:, None]
    wave = torch.stack([torch.sin(down + ramp), torch.cos(2 * down - ramp), torch.sin(ramp * ramp + 0 * down)])
    return ((wave * 0.4 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


@torch.inference_mode()
def test_they_begin_as_the_image_stages_own(image, motion):
    check_exact(motion)
    frame, qp = picture(), torch.tensor([40])
    x = frame[None].float() / 255
    latents = image.stage.analysis(x)
    prediction = motion.predict(seen(frame.permute(1, 2, 0)[None]))
    for own, found in zip(latents, prediction.latents, strict=True):
        assert float((channels_last(own) - found).square().mean()) < 0.01 * float(own.square().mean())
    gains = image.gains(qp)
    decoded = [(channels_last(y) * g.gain).round() * g.step for y, g in zip(latents, gains, strict=True)]
    shown = image.stage.synthesis([channels_first(y) for y in decoded], qp).clamp(0, 1)
    reference = motion.synthesis(decoded, qp) / CONTRAST + 0.5
    assert decibels(channels_last(shown), reference.clamp(0, 1)) > 45


@torch.inference_mode()
def test_what_is_computed_depends_on_neither_batch_nor_threads(motion):
    frames = torch.stack([picture(64).permute(1, 2, 0), picture(64).flip(0).permute(1, 2, 0)])
    together = motion.predict(seen(frames))
    for row in range(2):
        alone = motion.predict(seen(frames[row : row + 1]))
        for kind in ("latents", "features"):
            pairs = zip(getattr(together, kind), getattr(alone, kind), strict=True)
            assert all(torch.equal(a[row : row + 1], b) for a, b in pairs)


@torch.inference_mode()
def test_fresh_fusion_leaves_the_reference_as_it_is_and_a_trained_one_does_not(motion):
    frame, qp = seen(picture(64).permute(1, 2, 0)[None]), torch.tensor([20])
    latents = motion.predict(frame).latents
    alone = motion.synthesis(latents, qp)
    assert torch.equal(alone, motion.synthesis(latents, qp, frame))
    leave = motion.synthesis.leave
    kept = leave.weight.clone()
    leave.weight.fill_(2.0**-8)
    try:
        assert not torch.equal(alone, motion.synthesis(latents, qp, frame))
    finally:
        leave.weight.copy_(kept)


def test_of_more_blocks_the_first_are_taken_and_of_fewer_all(image):
    levels, widths = image.stage.levels, [layer.out_channels for layer in image.stage.down]
    synthesis = ReferenceSynthesis(levels, widths, (1, 1, 1, 1))
    analysis = PredictionAnalysis(levels, widths, (2, 4, 4, 3))
    take_over(synthesis, analysis, image.stage)
    assert torch.equal(synthesis.decode[1][0].expand.bias, image.stage.decode[1][0].expand.bias)
    assert torch.equal(analysis.encode[1][2].depthwise.weight, image.stage.encode[1][2].depthwise.weight)
    assert not analysis.encode[1][3].reduce.weight.any()  # one of its own: as if it were not there


def test_other_strides_are_refused(image):
    from vidlbc.codec.prior.topdown import Level

    with pytest.raises(ValueError, match="strides 4, 8, 16, 32"):
        MotionStage([Level(8, 3), Level(16, 3)], **motion_options(image.stage))


def test_integers_are_the_weights_that_decode(motion):
    state = motion.state_dict()
    stored = as_integers(motion)
    weights = [name.removesuffix(".bits") for name in stored if name.endswith(".bits")]
    assert weights and all(stored[f"{name}.weight"].dtype == torch.int16 for name in weights)
    back = from_integers(stored)
    assert set(back) == set(state) and all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in from_integers(state).items())
