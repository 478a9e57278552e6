"""The priors are exact arithmetic: no order of summation, batch, thread count or length of video can change a bit.

Integer arithmetic in Python is the judge: what the layers compute in float64 must be those integers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.codec.small_models import KINDS, fill, noisy_frames, uniform
from vidlbc.codec import Codec
from vidlbc.errors import InputError
from vidlbc.prior.grid import (
    ACTIVATION_BITS,
    LIMIT,
    WEIGHT_BITS,
    Block,
    DepthwiseConv,
    Linear,
    RMSNorm,
    check_exact,
    depth_to_space,
    snap,
    space_to_depth,
    to_grid,
)
from vidlbc.prior.topdown import Gains, QPTable
from vidlbc.temporal_stage.transformer import WindowReader, attention_weights

CodecOf = Callable[..., Codec]
ONE = 2**ACTIVATION_BITS


def on_grid(x: Tensor) -> bool:
    units = x * ONE
    return x.dtype == torch.float64 and bool((units == units.round()).all()) and float(x.abs().max()) <= LIMIT


def grid_values(shape: tuple[int, ...], key: int, amplitude: float) -> Tensor:
    return snap(uniform(shape, key, amplitude).double())


def rounded(product: int) -> int:
    """Units of 2^-26 -> units of 2^-12, half to even, clamped: the rule of docs/bitstream.md in integers."""
    quotient, remainder = divmod(product, 2**WEIGHT_BITS)
    half = 2 ** (WEIGHT_BITS - 1)
    quotient += remainder > half or (remainder == half and quotient % 2 == 1)
    return max(-(2**23), min(2**23, quotient))


def integers(x: Tensor, bits: int) -> np.ndarray:
    return (x * 2.0**bits).round().to(torch.int64).numpy().astype(object)


@settings(max_examples=200, deadline=None)
@given(st.floats(-5000, 5000))
def test_snap_rounds_half_to_even_and_clamps(value: float) -> None:
    expected = max(-LIMIT, min(LIMIT, np.rint(value * ONE) / ONE))
    assert float(snap(torch.tensor([value], dtype=torch.float64))) == expected


def test_snap_leaves_training_alone() -> None:
    x = torch.tensor([0.1, 5000.0])
    assert snap(x) is x


@pytest.mark.parametrize("amplitude", [1.0, LIMIT])
def test_linear_layer_is_integer_arithmetic(amplitude: float) -> None:
    layer = to_grid(Linear(96, 24))
    fill(layer, 3)
    to_grid(layer)
    x = grid_values((40, 96), 7, amplitude)
    w, b, xs = integers(layer.weight, WEIGHT_BITS), integers(layer.bias, WEIGHT_BITS), integers(x, ACTIVATION_BITS)
    sums = xs @ w.T + b[None] * ONE
    assert np.array_equal(integers(layer(x), ACTIVATION_BITS), np.vectorize(rounded, otypes=[object])(sums))


@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_layer_is_integer_arithmetic(kernel: int) -> None:
    layer = DepthwiseConv(4, kernel)
    fill(layer, 3)
    to_grid(layer)
    x, pad = grid_values((1, 6, 5, 4), 8, LIMIT), kernel // 2
    w, b = integers(layer.weight, WEIGHT_BITS), integers(layer.bias, WEIGHT_BITS)
    padded = np.pad(integers(x, ACTIVATION_BITS)[0], ((pad, pad), (pad, pad), (0, 0)))
    out = integers(layer(x), ACTIVATION_BITS)[0]
    for i, j, c in np.ndindex(out.shape):
        total = (padded[i : i + kernel, j : j + kernel, c] * w[c, 0]).sum() + b[c] * ONE
        assert out[i, j, c] == rounded(int(total))


def test_training_and_exact_paths_are_the_same_function() -> None:
    """In float32 the layers are ordinary ones; the grid is only finer or coarser rounding."""
    for layer in (Linear(32, 32), DepthwiseConv(32), Block(32, 2), RMSNorm(32)):
        fill(layer, 5)
        x = uniform((2, 5, 6, 32), 1, 2.0)
        loose = layer(x)
        torch.testing.assert_close(to_grid(layer)(x.double()).float(), loose, atol=4e-3, rtol=0)


def test_check_exact_refuses_weights_that_could_round() -> None:
    layer = Linear(64, 8)
    fill(layer, 1)
    with torch.no_grad():
        layer.weight[2] = 2000.0
    with pytest.raises(ArithmeticError) as error:
        to_grid(torch.nn.Sequential(Linear(64, 64), layer))
    assert str(error.value) == "layer 1: sums up to 2.62e+08 exceed the exact range 1.34e+08"
    with torch.no_grad():
        layer.weight[2] = float("nan")
    with pytest.raises(ArithmeticError):
        check_exact(layer)
    deep = DepthwiseConv(2)
    with torch.no_grad():
        deep.bias[1] = 1e9
    with pytest.raises(ArithmeticError):
        to_grid(deep)


def test_to_grid_puts_weights_on_the_grid_and_freezes_them() -> None:
    block = Block(8, 2)
    torch.nn.init.uniform_(block.reduce.weight)
    to_grid(block)
    for parameter in block.parameters():
        assert parameter.dtype == torch.float64 and not parameter.requires_grad
        assert torch.equal(parameter * 2**WEIGHT_BITS, (parameter * 2**WEIGHT_BITS).round())


def test_attention_weights_sum_the_same_in_any_order() -> None:
    logits = grid_values((3, 5, 144), 11, 40.0)
    weights = attention_weights(logits)
    units = weights * 2.0**20
    assert torch.equal(units, units.round()) and float(weights.amin()) >= 0
    assert torch.equal(weights.amax(-1), torch.ones(3, 5, dtype=torch.float64))
    exact = units.to(torch.int64).sum(-1).double() / 2.0**20
    for order in (torch.arange(144), torch.arange(143, -1, -1), torch.randperm(144)):
        shuffled = weights[..., order]
        assert torch.equal(shuffled.sum(-1), exact)
        values = grid_values((3, 144, 32), 12, LIMIT)
        assert torch.equal(shuffled @ values[:, order], weights @ values)
    # (1 - d/16)^16 is close to exp(-d) where it matters, and sharper far away.
    gap = torch.tensor([[0.0, -0.5, -1.0, -2.0, -16.0, -40.0]], dtype=torch.float64)
    torch.testing.assert_close(attention_weights(gap)[0, :4], gap[0, :4].exp(), atol=0.04, rtol=0)
    assert attention_weights(gap)[0, 4:].tolist() == [0.0, 0.0]


def test_windows_whose_sums_could_round_are_refused() -> None:
    assert (4 + 2 * 13) ** 2 * 2**43 < 2**53 <= (4 + 2 * 14) ** 2 * 2**43
    WindowReader(64, margin=13)
    for margin in (-1, 14):
        with pytest.raises(InputError) as error:
            WindowReader(64, margin=margin)
        assert str(error.value) == f"margin={margin}: expected 0 to 13"
    for width in (16, 97):
        with pytest.raises(InputError) as error:
            WindowReader(width)
        assert str(error.value) == f"prior width {width}: attention needs 32 or more, in equal heads"


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_at_once_or_one_by_one(codec_of: CodecOf, kind: str) -> None:
    """Distributions of 3 clips x 6 frames in one batch against each frame alone, to the bit, at 1 and 4 threads."""
    codec, frames, clips = codec_of(kind), 6, 3
    qps = torch.tensor([3, 32, 61])
    rows = []
    for clip, qp in enumerate(qps.tolist()):
        rows.append(codec.analyse(noisy_frames(frames, 48, 80, seed=clip), qp))
    symbols = [torch.cat(level).double() for level in zip(*rows, strict=True)]
    qp = qps.repeat_interleave(frames)
    gains = codec.image.gains(qp)
    latents = [snap(q * g.step[:, None, None]) for q, g in zip(symbols, gains, strict=True)]

    def pick(index: Tensor) -> tuple[list[Tensor], Tensor, list[Gains]]:
        return [y[index] for y in latents], qp[index], codec.image.gains(qp[index])

    before = torch.get_num_threads()
    with torch.inference_mode():
        torch.set_num_threads(4)
        start = codec.temporal.start(clips, 64, 96)
        whole, end = codec.temporal(latents, qp, gains, frames, start)
        torch.set_num_threads(1)
        for clip in range(clips):
            state = codec.temporal.start(1, 64, 96)
            for t in range(frames):
                index = torch.tensor([clip * frames + t])
                alone, state = codec.temporal(*pick(index), 1, state)
                for many, one in zip(whole, alone, strict=True):
                    assert torch.equal(many.mean[index], one.mean)
                    assert torch.equal(many.log2_scale[index], one.log2_scale)
                    assert on_grid(one.mean) and on_grid(one.log2_scale)
            assert all(torch.equal(a[clip : clip + 1], b) for a, b in zip(end, state, strict=True))
    torch.set_num_threads(before)


def test_lstm_state_does_not_drift(codec_of: CodecOf) -> None:
    """400 frames of loud input: the state stays bounded, on the grid, and equal however the frames were grouped."""
    temporal = codec_of("lstm").temporal
    shapes = [(1, 400, 64 // level.stride, 64 // level.stride, level.channels) for level in temporal.levels]
    latents = [grid_values(shape, 20 + i, 30.0) for i, shape in enumerate(shapes)]
    start = temporal.start(1, 64, 64)
    with torch.inference_mode():
        one = start
        for t in range(400):
            one = temporal.update(one, [y[:, t] for y in latents])
        many = start
        for low, high in ((0, 1), (1, 150), (150, 400)):
            _, many = temporal.sequence([y[0, low:high] for y in latents], high - low, many)
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert all(on_grid(s) for s in one)
    assert any(float(s.abs().max()) > 0.5 for s in one) and all(float(s.abs().max()) <= LIMIT for s in one)


def test_qp_table_interpolates_exactly() -> None:
    table = QPTable(3)
    fill(table, 9)
    to_grid(table)
    out = table(torch.arange(64))
    assert on_grid(out)
    assert torch.equal(out[::8], snap(table.anchors[:-1].clone()))
    assert torch.equal(out[4::8], snap((table.anchors[:-1] + table.anchors[1:]) / 2))


def test_folding_is_a_permutation() -> None:
    x = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 2, 3, 12)
    assert folded[1, 1, 2].tolist() == torch.cat([x[1, 2, 4], x[1, 2, 5], x[1, 3, 4], x[1, 3, 5]]).tolist()
    assert torch.equal(depth_to_space(folded, 2), x)


def test_coding_tables_are_on_the_grid(codec_of: CodecOf) -> None:
    codec = codec_of("none")
    for table, level in zip(codec.image.coding, codec.levels, strict=True):
        assert table.shape == (3, 64, level.channels) and torch.equal(table * ONE, (table * ONE).round())
        gain, step, log2_gain = table
        torch.testing.assert_close(gain * step, torch.ones_like(gain), atol=2e-2, rtol=0)
        torch.testing.assert_close(gain.log2(), log2_gain, atol=2e-3, rtol=0)
        assert bool((gain.diff(dim=0) > 0).all())
