"""The blocks with SiLU, alone, in a stage and in a codec; a block for each stride; what the stages cost, counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.blocks import ConvBlock, GatedBlock
from vidlbc.codec.image_stage.cost import multiply_adds
from vidlbc.codec.models import SHIPPED
from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.experiments.blocks.study import contestants
from vidlbc.train.objectives.image import RateDistortion

REPO = Path(__file__).resolve().parents[3]
MIXED = ("conv", "conv", "gated", "gated")
SMALL = {"channels": (1, 2, 2, 2), "widths": (8, 8, 8, 8), "prior_widths": (32, 32, 32), "prior_blocks": 1}
COUNTS = {"encoder_blocks": (1, 1, 1, 1), "decoder_blocks": (1, 1, 1, 1)}
LARGE = {"encoder_tail": (1, 1, 0, 0), "decoder_tail": (1, 1, 0, 0)}
LARGE2 = {
    "block": MIXED,
    "widths": (64, 160, 224, 288),
    "encoder_blocks": (1, 2, 3, 2),
    "decoder_blocks": (2, 3, 3, 2),
    "prior_widths": (96, 160, 192),
    "prior_blocks": 3,
}


def scramble(module: torch.nn.Module) -> torch.nn.Module:
    """Weights everywhere: the last layers start at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


@pytest.mark.parametrize("kind", [ConvBlock, GatedBlock])
@pytest.mark.parametrize("shape", [(2, 1, 9, 7), (1, 5, 1, 1), (3, 48, 8, 11)])
def test_a_fresh_block_passes_its_input_on_and_a_trained_one_does_not(kind, shape):
    block, x = kind(shape[1]), torch.randn(shape)
    assert torch.equal(block(x), x)
    assert scramble(block)(x).shape == x.shape and not torch.equal(block(x), x)


def test_a_conv_block_is_two_dense_layers_around_a_silu():
    block, x = scramble(ConvBlock(4)), torch.randn(1, 4, 6, 6)
    hidden = F.conv2d(x, block.first.weight, block.first.bias, padding=1)
    hidden = hidden / (1 + (-hidden).exp())
    assert torch.allclose(block(x), x + F.conv2d(hidden, block.second.weight, block.second.bias, padding=1), atol=1e-5)


def test_a_closed_gate_leaves_the_depthwise_half():
    block, x = scramble(GatedBlock(6)), torch.randn(1, 6, 8, 8)
    with torch.no_grad():
        block.reduce.bias.zero_()
        gate = block.expand.weight[:12], block.expand.bias[:12]  # the first half of 2 * 2 * 6 channels
        before = block(x)
        for tensor in gate:
            tensor.zero_()  # SiLU(0) = 0
        expected = x + block.leave(block.depthwise(F.silu(block.enter(x))))
        assert torch.equal(block(x), expected) and not torch.allclose(before, expected, atol=1e-3)


@pytest.mark.parametrize("kind", [ConvBlock, GatedBlock])
def test_blocks_keep_the_memory_format_and_run_under_autocast(kind):
    block = scramble(kind(16)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 16, 8, 12).to(memory_format=torch.channels_last).requires_grad_()
    plain = block(x)
    assert plain.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = block(x)
    half.float().square().sum().backward()
    assert torch.allclose(half.float(), plain, atol=0.1)
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in [x, *block.parameters()])


# ---- in a stage


def test_a_fresh_stage_is_the_transform_without_blocks():
    torch.manual_seed(0)
    stage = build_image_stage("lbc", block=MIXED, **SMALL, **COUNTS)
    none = {name: (0, 0, 0, 0) for name in COUNTS}
    linear = build_image_stage("lbc", **SMALL, **none)
    linear.load_state_dict({n: t for n, t in stage.state_dict().items() if n in linear.state_dict()})
    frames, qp = torch.rand(1, 3, 64, 96), torch.tensor([20])
    for ours, theirs in zip(stage.analysis(frames), linear.analysis(frames), strict=True):
        assert torch.equal(ours, theirs)
    latents = linear.analysis(frames)
    assert torch.equal(stage.synthesis(latents, qp), linear.synthesis(latents, qp))


def test_one_name_for_all_strides_is_four_times_that_name():
    names = [list(build_image_stage("lbc", block=b, **SMALL).state_dict()) for b in ("gated", ("gated",) * 4)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (("conv", "gated"), "block has 2 entries, expected one for each of strides 4, 8, 16, 32"),
        (("conv", "conv", "gated", "attention"), "unknown block 'attention': expected one of conv, depthwise, gated"),
    ],
)
def test_blocks_that_fit_no_stride_are_told(block, message):
    with pytest.raises(InputError, match=message):
        build_image_stage("lbc", block=block, **SMALL)


@pytest.mark.parametrize(("model", "options"), [("default", {}), ("large", LARGE)])
def test_tensors_of_shipped_models_have_the_names_they_had(model, options):
    with safe_open(SHIPPED / model / "image_stage" / "model.safetensors", "pt") as file:
        shipped = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys() if not n.startswith("coding.")}
    built = build_image_stage("lbc", **options).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in built.items()} == shipped


def test_training_reaches_every_weight_and_runs_in_bf16():
    stage = scramble(build_image_stage("lbc", block=MIXED, **SMALL, **COUNTS)).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = RateDistortion()(stage, (torch.rand(2, 3, 50, 70), torch.tensor([50, 9])), 0)
    loss.backward()
    assert torch.isfinite(loss)
    blocks = [(n, p) for n, p in stage.named_parameters() if n.startswith(("encode.", "decode."))]
    assert len(blocks) == 2 * (2 * 4 + 2 * 10)
    assert [name for name, p in blocks if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_codec_of_them_gives_the_symbols_back(tmp_path):
    model = save_small_model(tmp_path / "model", kinds=(), block=MIXED)
    codec, frames = vidlbc.load(model, "cpu", temporal="none"), noisy_frames(2, 70, 50)
    data = codec.compress(frames, qp=40)
    again = vidlbc.load(model, "cpu", temporal="none")
    assert again.compress(frames, qp=40) == data
    decoded = again.decompress(data)
    assert decoded.shape == frames.shape and np.array_equal(decoded, codec.decompress(data))


# ---- what the stages cost


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "analysis", "synthesis", "prior", "parameters"),
    [
        ({}, 4.29, 5.14, 1.58, 2_351_236),
        (LARGE, 11.89, 12.74, 1.58, 3_062_436),
        (LARGE2, 26.85, 38.66, 4.70, 9_785_940),
    ],
)
def test_thousands_of_multiply_adds_a_pixel(options, analysis, synthesis, prior, parameters):
    compute = multiply_adds("lbc", options)
    found = [round(count / (256 * 256 * 1000), 2) for count in (compute.analysis, compute.synthesis, compute.prior)]
    assert found == [analysis, synthesis, prior]
    assert sum(p.numel() for p in build_image_stage("lbc", **options).parameters()) == parameters


@pytest.mark.slow
def test_networks_of_the_study_are_scaled_from_widths_of_their_own():
    from vidlbc.experiments.blocks.command import settings_of

    given = ["experiment=blocks_networks", "data.folder=/data", "out=out", "contestants=[depthwise,conv_gated]"]
    found = contestants(settings_of(compose("compare_blocks", given)))
    assert found["depthwise"]["widths"] == [48, 128, 192, 256]
    # 64, 160, 224, 288 times one half, to steps of 4; stride 4 keeps the 48 that the start from a transform needs.
    assert found["conv_gated"]["widths"] == [48, 80, 112, 140] and found["conv_gated"]["block"] == list(MIXED)
    totals = [multiply_adds("lbc", options).total for options in found.values()]
    assert abs(totals[1] / totals[0] - 1) < 0.05


@pytest.mark.slow
def test_counting_leaves_the_exact_prior_as_it_was():
    """Its rounding constants are kept between calls: none may come from the fake tensors of a count."""
    multiply_adds("lbc", SMALL, 64)
    prior = vidlbc.codec.prior.grid.to_grid(build_image_stage("lbc", **SMALL).prior)
    hidden = prior.start(torch.tensor([3]), 2, 2)
    assert torch.equal(hidden, (hidden * 256).round() / 256)
