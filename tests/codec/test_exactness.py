"""The priors are exact arithmetic: no order of summation, batch, thread count or length of video can change a bit.

Integer arithmetic in Python is the judge: what the layers compute in float32 must be those integers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import vidlbc
from tests.codec.small_models import KINDS, fill, noisy_frames, uniform
from vidlbc.codec.bitstream import Reader
from vidlbc.codec.codec import Codec
from vidlbc.codec.prior.grid import (
    ACTIVATION_BITS,
    LIMIT,
    Block,
    DepthwiseConv,
    Linear,
    RMSNorm,
    check_device,
    check_exact,
    depth_to_space,
    snap,
    space_to_depth,
    to_grid,
)
from vidlbc.codec.prior.topdown import Gains, QPTable
from vidlbc.codec.temporal_stage.transformer import WindowReader, attention_weights
from vidlbc.errors import InputError, VidlbcError

CodecOf = Callable[..., Codec]
REPO = Path(__file__).resolve().parents[2]
ONE = 2**ACTIVATION_BITS


def on_grid(x: Tensor, bits: int = ACTIVATION_BITS, limit: float = LIMIT) -> bool:
    units = x * 2.0**bits
    return x.dtype == torch.float32 and bool((units == units.round()).all()) and float(x.abs().max()) <= limit


def grid_values(shape: tuple[int, ...], key: int, amplitude: float) -> Tensor:
    return snap(uniform(shape, key, amplitude))


def integers(x: Tensor, bits: int) -> np.ndarray:
    units = x.detach().double() * 2.0**bits
    assert torch.equal(units, units.round())
    return units.to(torch.int64).numpy().astype(object)


@settings(max_examples=200, deadline=None)
@given(st.floats(-100, 100, width=32))
def test_snap_rounds_half_to_even_and_clamps(value: float) -> None:
    expected = np.rint(max(-LIMIT, min(LIMIT, value)) * ONE) / ONE
    assert float(snap(torch.tensor([value]))) == expected
    assert float(snap(torch.tensor([value]), 5, 4.0)) == np.rint(max(-4.0, min(4.0, value)) * 32) / 32


def test_snap_leaves_training_alone() -> None:
    x = torch.tensor([0.1, 5000.0], requires_grad=True) * 1
    assert snap(x) is x and x.tolist() == [pytest.approx(0.1), 5000.0]


@pytest.mark.parametrize("amplitude", [1.0, LIMIT])
def test_linear_layer_is_integer_arithmetic(amplitude: float) -> None:
    layer = Linear(96, 24)
    fill(layer, 3)
    to_grid(layer)
    x = grid_values((40, 96), 7, amplitude)
    w, b, xs = integers(layer.weight, 20), integers(layer.bias, 28), integers(x, ACTIVATION_BITS)
    assert np.array_equal(integers(layer(x), 28), xs @ w.T + b[None])


def test_the_largest_sums_there_are_stay_exact() -> None:
    """Every input at the limit with the sign of its weight: each output is as far as it can get, 2^24 units or less."""
    layer = Linear(512, 16)
    fill(layer, 4)
    to_grid(layer)
    x = LIMIT * layer.weight.sign()
    out = layer(x).diagonal()
    assert torch.equal(out.double(), (x.double() * layer.weight.double()).sum(1) + layer.bias.double())
    for order in (torch.arange(511, -1, -1), torch.randperm(512)):
        assert torch.equal((x * layer.weight)[:, order].cumsum(1)[:, -1] + layer.bias, out)


@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_layer_is_integer_arithmetic(kernel: int) -> None:
    layer = DepthwiseConv(4, kernel)
    fill(layer, 3)
    to_grid(layer)
    x, pad = grid_values((1, 6, 5, 4), 8, LIMIT), kernel // 2
    w, b = integers(layer.weight, 20), integers(layer.bias, 28)
    padded = np.pad(integers(x, ACTIVATION_BITS)[0], ((pad, pad), (pad, pad), (0, 0)))
    out = integers(layer(x), 28)[0]
    for i, j, c in np.ndindex(out.shape):
        assert out[i, j, c] == (padded[i : i + kernel, j : j + kernel, c] * w[c, 0]).sum() + b[c]


def test_training_and_exact_paths_are_the_same_function() -> None:
    """With gradients the layers are ordinary ones; the grid is only rounding."""
    for layer in (Linear(32, 32), DepthwiseConv(32), Block(32, 2), RMSNorm(32)):
        fill(layer, 5)
        x = grid_values((2, 5, 6, 32), 1, 2.0)
        loose = layer(x.clone().requires_grad_()).detach()
        torch.testing.assert_close(to_grid(layer)(x), loose, atol=3e-2, rtol=0)
        assert float((layer(x) - loose).square().mean().sqrt()) < 4e-3


def test_weights_whose_sums_could_round_are_refused() -> None:
    layer = Linear(64, 8)
    with torch.no_grad():
        layer.weight.copy_(uniform((8, 64), 1, 1 / 3))
    with pytest.raises(ArithmeticError, match="layer 1: weights that lie on no grid"):
        check_exact(torch.nn.Sequential(to_grid(Linear(64, 64)), layer))
    to_grid(layer)
    with torch.no_grad():
        layer.weight[2, 0] = 4096.0
    with pytest.raises(ArithmeticError, match=r"layer 1: sums may exceed the exact range of 2\^24 units"):
        check_exact(torch.nn.Sequential(to_grid(Linear(64, 64)), layer))
    for bad in (1e9, float("nan"), float("inf")):
        broken = DepthwiseConv(2)
        with torch.no_grad():
            broken.bias[1] = bad
        with pytest.raises(ArithmeticError):
            to_grid(broken)


def test_to_grid_uses_the_finest_grid_of_each_channel_and_freezes_it() -> None:
    layer = Linear(8, 3)
    with torch.no_grad():
        layer.weight.copy_(uniform((3, 8), 2, 1.0) * torch.tensor([[1.0], [0.01], [30.0]]))
        layer.bias.zero_()
    loose = layer.weight.detach().clone()
    to_grid(layer)
    assert not layer.weight.requires_grad
    for row, before in zip(layer.weight.double(), loose.double(), strict=True):
        bits = next(k for k in range(-8, 21) if torch.equal(row * 2.0**k, (row * 2.0**k).round()))
        assert float((row * 2.0**bits).abs().sum()) * LIMIT * ONE <= 2**24
        assert float((row - before).abs().max()) <= 2.0 ** -(bits + 1)
        assert float((before * 2.0**bits).abs().sum()) * LIMIT * ONE > 2**22  # no more than a bit or two given away
    again = layer.weight.clone()
    assert torch.equal(to_grid(layer).weight, again)


def test_a_device_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device(torch.device("cpu"))
    exact = torch.nn.functional.linear

    def rounded(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return (
            exact(x.bfloat16().to(x.dtype), weight.bfloat16().to(x.dtype), bias)
            if x.dtype == torch.float32
            else (exact(x, weight, bias))
        )

    monkeypatch.setattr(torch.nn.functional, "linear", rounded)
    with pytest.raises(VidlbcError, match="device cpu rounds float32 sums that must be exact"):
        check_device(torch.device("cpu"))


def test_rounding_allowed_later_is_refused_too(codec_of: CodecOf) -> None:
    codec, frames = codec_of("lstm"), noisy_frames(1, 16, 16)
    data = codec.compress(frames)
    torch.set_float32_matmul_precision("high")
    try:
        for call in (lambda: codec.compress(frames), lambda: codec.symbols(data)):
            with pytest.raises(VidlbcError, match='set_float32_matmul_precision\\("high"\\) is in force'):
                call()
    finally:
        torch.set_float32_matmul_precision("highest")


NEWER = """
import torch
from vidlbc.errors import VidlbcError
from vidlbc.codec.prior.grid import require_exact_products
for name in ("fp32_precision", "cuda.matmul.fp32_precision", "mkldnn.matmul.fp32_precision"):
    exec(f"torch.backends.{name} = 'tf32'")
    try:
        require_exact_products()
    except VidlbcError as error:
        print(error)
    exec(f"torch.backends.{name} = 'ieee'")
    require_exact_products()
"""


@pytest.mark.slow
def test_so_is_rounding_allowed_by_the_newer_settings() -> None:
    """After them torch.get_float32_matmul_precision itself raises RuntimeError. In a process of their own: not all of
    them can be taken back."""
    done = subprocess.run([sys.executable, "-c", NEWER], capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f'torch.backends.{name}.fp32_precision = "tf32" is in force: '
        'streams need exact float32 products ("highest") to decode elsewhere'
        for name in ("cuda.matmul", "cuda.matmul", "mkldnn.matmul")
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about what it leaves alone
def test_compilers_leave_the_priors_alone(codec_of: CodecOf) -> None:
    """They would contract multiply and add. The steps and the start of the priors reach no compiler, whoever calls."""
    priors, seen = codec_of("lstm")._priors, []

    def compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    header = Reader(codec_of("lstm").compress(noisy_frames(1, 40, 56))).header

    def step(qp: Tensor) -> Tensor:
        gains, memory = priors.image.gains(qp), priors.memory(priors.start(1, header))
        hidden = priors.hidden(False, qp, header)
        return priors.expect(False, 3, hidden, gains[3], memory[3])[1].mean * 3 + 1

    qp = torch.tensor([32])
    with torch.inference_mode():
        assert torch.equal(torch.compile(step, backend=compiler)(qp), step(qp))
    arithmetic = [name for name in seen if any(word in name for word in ("mul", "add", "linear", "conv"))]
    assert len(arithmetic) == 2, arithmetic  # the test's own


def test_attention_weights_sum_the_same_in_any_order() -> None:
    for keys, bits in ((144, 8), (900, 6)):
        weights = attention_weights(snap(uniform((3, 5, keys), 11, 40.0)) / 16)
        units = weights * 2.0**bits
        assert torch.equal(units, units.round()) and float(weights.amin()) >= 0
        assert torch.equal(weights.amax(-1), torch.ones(3, 5))
        values = snap(uniform((3, keys, 32), 12, 9.0), 6, 4.0)
        for order in (torch.arange(keys), torch.arange(keys - 1, -1, -1), torch.randperm(keys)):
            shuffled = weights[..., order]
            assert torch.equal(shuffled.sum(-1).double(), weights.double().sum(-1))
            assert torch.equal((shuffled @ values[:, order]).double(), weights.double() @ values.double())
    # (1 - d/16)^16 is close to exp(-d) where it matters, and sharper far away.
    gap = torch.tensor([[0.0, -0.5, -1.0, -2.0, -16.0, -40.0]])
    torch.testing.assert_close(attention_weights(gap / 16)[0, :4], gap[0, :4].exp(), atol=0.04, rtol=0)
    assert attention_weights(gap / 16)[0, 4:].tolist() == [0.0, 0.0]


def test_windows_whose_sums_could_round_are_refused() -> None:
    WindowReader(64, margin=13)
    for margin in (-1, 14):
        with pytest.raises(InputError) as error:
            WindowReader(64, margin=margin)
        assert str(error.value) == f"margin={margin}: expected 0 to 13"
    for width in (16, 97):
        with pytest.raises(InputError) as error:
            WindowReader(width)
        assert str(error.value) == f"prior width {width}: attention needs 32 or more, in equal heads"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_enters_a_layer_is_on_the_grid(model_folder: Path, kind: str) -> None:
    """The proof of exactness needs it; a forgotten `snap` would only show on another machine."""
    # A codec of its own: what another test has made a graph of (vidlbc.codec.traced) calls no hook.
    codec, seen, off = vidlbc.load(model_folder, device="cpu", temporal=kind), [0], []

    def look(name: str) -> Callable[[torch.nn.Module, tuple[Tensor]], None]:
        def hook(layer: torch.nn.Module, inputs: tuple[Tensor]) -> None:
            seen[0] += 1
            if not on_grid(inputs[0]):
                off.append(name)

        return hook

    hooks = [
        layer.register_forward_pre_hook(look(name))
        for part in (codec.temporal, codec._priors.intra)
        for name, layer in part.named_modules()
        if isinstance(layer, Linear | DepthwiseConv | RMSNorm)
    ]
    data = codec.compress(noisy_frames(5, 48, 80, seed=3), 61)
    codec.symbols(data)
    for hook in hooks:
        hook.remove()
    assert seen[0] > 100 and not off


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_at_once_or_one_by_one(codec_of: CodecOf, kind: str) -> None:
    """Distributions of 3 clips x 6 frames in one batch against each frame alone, to the bit, at 1 and 4 threads."""
    codec, frames, clips = codec_of(kind), 6, 3
    qps = torch.tensor([3, 32, 61])
    rows = []
    for clip, qp in enumerate(qps.tolist()):
        rows.append(codec.analyse(noisy_frames(frames, 48, 80, seed=clip), qp))
    symbols = [torch.cat(level).float() for level in zip(*rows, strict=True)]
    qp = qps.repeat_interleave(frames)
    gains = codec.image.gains(qp)
    latents = [q * g.step[:, None, None] for q, g in zip(symbols, gains, strict=True)]

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
            for stride in start:
                assert all(torch.equal(a[clip : clip + 1], b) for a, b in zip(end[stride], state[stride], strict=True))
    torch.set_num_threads(before)


@pytest.mark.slow
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
    one, many = ([x for stride in state.values() for x in stride] for state in (one, many))
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert all(on_grid(s) for s in one)
    assert any(float(s.abs().max()) > 0.5 for s in one) and all(float(s.abs().max()) <= LIMIT for s in one)


def test_qp_table_interpolates() -> None:
    table = QPTable(3)
    fill(table, 9)
    out = table(torch.arange(64))
    assert torch.equal(out[::8], table.anchors[:-1])
    assert torch.equal(out[4::8], (table.anchors[:-1] + table.anchors[1:]) / 2)


def test_folding_is_a_permutation() -> None:
    x = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 2, 3, 12)
    assert folded[1, 1, 2].tolist() == torch.cat([x[1, 2, 4], x[1, 2, 5], x[1, 3, 4], x[1, 3, 5]]).tolist()
    assert torch.equal(depth_to_space(folded, 2), x)


def test_coding_tables_are_on_the_grid(codec_of: CodecOf) -> None:
    codec = codec_of("none")
    for table, level in zip(codec.image.coding, codec.levels, strict=True):
        assert table.shape == (3, 64, level.channels) and on_grid(table, 12, 2.0**11)
        gain, step, log2_gain = table
        torch.testing.assert_close(gain * step, torch.ones_like(gain), atol=2e-2, rtol=0)
        torch.testing.assert_close(gain.log2(), log2_gain, atol=2e-3, rtol=0)
        assert bool((gain.diff(dim=0) > 0).all())
