"""The multi-order gated block: what it sees, what gates it, and a codec built from it; compute of a stage, counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.codec.image_stage.cost import Compute, match_widths, multiply_adds
from vidlbc.codec.image_stage.moga import ChannelAggregation, MogaBlock, MultiOrderDWConv, SpatialAggregation
from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.experiments.blocks.study import contestants
from vidlbc.train.objectives.image import RateDistortion

REPO = Path(__file__).resolve().parents[3]


def scramble(module: nn.Module) -> nn.Module:
    """Weights everywhere: the last layers start at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


@pytest.mark.parametrize("channels", [1, 2, 5, 8, 48])
def test_a_fresh_block_passes_its_input_on_and_can_learn(channels):
    block, x = MogaBlock(channels), torch.randn(2, channels, 9, 7)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in (block.spatial.leave, block.channel.reduce))
    assert scramble(block)(x).shape == x.shape and not torch.equal(block(x), x)


def test_channels_are_split_one_to_three_to_four():
    assert MultiOrderDWConv(8).parts == (1, 3, 4)
    assert MultiOrderDWConv(48).parts == (6, 18, 24)
    assert [sum(MultiOrderDWConv(c).parts) for c in (1, 2, 7, 13)] == [1, 2, 7, 13]


def test_each_order_sees_as_far_as_its_kernels_reach():
    context = scramble(MultiOrderDWConv(8))
    with torch.no_grad():
        context.mix.weight.copy_(torch.eye(8)[:, :, None, None])
    reaches = []
    for channel in range(8):
        x = torch.randn(1, 8, 41, 41, requires_grad=True)
        context(x)[0, channel, 20, 20].backward()
        rows = x.grad[0, channel].abs().sum(1).nonzero()
        reaches.append(int(rows.max()) - 20)
    # 5x5: 2; then 5x5 at dilation 2: 4 more; then 7x7 at dilation 3: 9 more.
    assert reaches == [2, 6, 6, 6, 11, 11, 11, 11]


def test_the_decomposition_acts_on_what_differs_from_the_mean():
    block = scramble(SpatialAggregation(6))
    x = torch.randn(1, 6, 12, 12)
    with torch.no_grad():
        # A kernel of one pixel, so that borders do not make a constant frame differ from its mean.
        results = {}
        for gamma in (0.0, 2.0):
            block.gamma.fill_(gamma)
            results[gamma] = block(torch.ones_like(x)), block(x)
    assert torch.allclose(results[0.0][0], results[2.0][0], atol=1e-5)
    assert not torch.allclose(results[0.0][1], results[2.0][1], atol=1e-2)


def test_a_closed_gate_lets_nothing_through():
    block = scramble(SpatialAggregation(6))
    x = torch.randn(1, 6, 8, 8)
    with torch.no_grad():
        block.leave.bias.zero_()
        assert block(x).abs().max() > 0
        block.gate.weight.zero_()
        block.gate.bias.zero_()  # SiLU(0) = 0
        assert block(x).abs().max() == 0


def test_channel_aggregation_subtracts_what_all_channels_share():
    block, x = ChannelAggregation(4, 2), torch.randn(1, 4, 6, 6)
    scramble(block)
    with torch.no_grad():
        before = block(x)
        block.gather.bias.add_(5.0)
        assert not torch.allclose(block(x), before)
        block.gamma.zero_()
        after = block(x)
        block.gather.bias.add_(5.0)
        assert torch.equal(block(x), after)


def test_a_codec_of_it_gives_the_symbols_back(tmp_path):
    model = save_small_model(tmp_path / "model", kinds=(), block="moga")
    codec, frames = vidlbc.load(model, "cpu", temporal="none"), noisy_frames(2, 70, 50)
    data = codec.compress(frames, qp=40)
    again = vidlbc.load(model, "cpu", temporal="none")
    assert again.compress(frames, qp=40) == data
    decoded = again.decompress(data)
    assert decoded.shape == frames.shape and np.array_equal(decoded, codec.decompress(data))
    # Textured frames are sent, not a constant: other frames, other bytes.
    assert codec.compress(frames[::-1].copy(), qp=40) != data


def test_training_reaches_every_weight_of_it():
    torch.manual_seed(0)
    options = {"channels": (1, 2, 2, 2), "widths": (8, 8, 8, 8), "prior_widths": (32, 32, 32), "prior_blocks": 1}
    stage = vidlbc.codec.image_stage.build_image_stage("lbc", block="moga", **options)
    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            if not name.startswith("prior"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    RateDistortion()(stage, (torch.rand(1, 3, 64, 64), torch.tensor([50])), 0)[0].backward()
    blocks = [(n, p) for n, p in stage.named_parameters() if n.startswith(("encode.", "decode."))]
    assert len(blocks) > 100
    assert [name for name, p in blocks if p.grad is None or not p.grad.abs().sum() > 0] == []


# ---- compute


def test_multiply_adds_are_those_of_the_layers():
    widths, channels, size = (4, 8, 8, 8), (1, 2, 2, 2), 64
    options = {"widths": widths, "channels": channels, "encoder_blocks": (0, 1, 0, 0), "decoder_blocks": (0, 0, 0, 0)}
    inputs = (48, 4 * 4, 4 * 8, 4 * 8)
    places = [(size // s) ** 2 for s in (4, 8, 16, 32)]
    layers = [p * (i * w + w * c) for p, i, w, c in zip(places, inputs, widths, channels, strict=True)]
    block = places[1] * (9 * 8 + 2 * 8 * 8)  # depth-wise 3x3 and two 1x1 layers of 8 channels
    analysis = sum(layers) + block
    counted = multiply_adds("lbc", {**options, "prior_widths": (32, 32, 32)}, size)
    assert counted.analysis == analysis
    # The synthesis mirrors it; its scale a QP is a table, no product.
    assert counted.synthesis == analysis - block
    assert counted.total == 2 * analysis - block


@pytest.mark.slow
def test_the_contestants_of_the_study_have_equal_compute():
    from vidlbc.experiments.blocks.command import settings_of

    config = compose("compare_blocks", ["data.train=a", "data.val=b", "out=c"])
    stages = contestants(settings_of(config))
    assert list(stages) == ["depthwise", "residual_gdn", "moga"]
    totals = {name: multiply_adds("lbc", options).total for name, options in stages.items()}
    for name in ("residual_gdn", "moga"):
        assert abs(totals[name] / totals["depthwise"] - 1) < 0.05, totals
        # Room for the transform that training starts from.
        assert all(w >= least for w, least in zip(stages[name]["widths"], (48, 64, 64, 64), strict=True))
    assert stages["depthwise"]["widths"] == [48, 128, 192, 256]


@pytest.mark.slow
def test_compute_that_no_width_meets_is_told():
    options = {"block": "residual_gdn", "prior_widths": (32, 32, 32)}
    with pytest.raises(InputError, match="block residual_gdn at widths .* needs .* expected within 5%"):
        match_widths(options, Compute(1000, 1000, 1000), (16, 16, 16, 16), (8, 8, 8, 8))
