"""Exactness where there is a GPU, at real sizes: shipped models, whole frames, batches of clips; skipped elsewhere.

A small map may round alike by luck, and a library may choose another algorithm for a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import vidlbc
from tests.codec.small_models import noisy_frames
from vidlbc.codec.codec import Codec
from vidlbc.codec.prior.grid import DepthwiseConv, Linear, RMSNorm, check_device, snap, to_grid
from vidlbc.errors import VidlbcError

pytestmark = pytest.mark.gpu
SHIPPED = [("default", "none"), ("default", "lstm"), ("default", "transformer"), ("large", "transformer")]
# Maps of the finest working stride, 8, of 16 frames of 256x256 and of one of 1080p.
MAPS = [(16, 32, 32), (1, 136, 240)]


def both(name: str, kind: str) -> tuple[Codec, Codec]:
    """On the GPU and on the CPU."""
    return vidlbc.load(name, device="cuda", temporal=kind), vidlbc.load(name, device="cpu", temporal=kind)


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x.cpu(), y.cpu()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("make", [lambda: Linear(128, 512), lambda: Linear(512, 128), lambda: DepthwiseConv(128, 5)])
def test_the_largest_sums_are_float64s(make: Callable[[], torch.nn.Module], shape: tuple[int, ...]) -> None:
    """Inputs of full size with the sign of a weight: as far as sums get."""
    generator = torch.Generator().manual_seed(1)
    layer = make()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    to_grid(layer)
    channels = layer.weight.shape[1] if isinstance(layer, Linear) else len(layer.weight)
    x = torch.randint(-(2**12), 2**12 + 1, (*shape, channels), generator=generator).float() / 256
    x[:, ::2] = 16 * torch.randint(0, 2, x[:, ::2].shape, generator=generator).mul_(2).sub_(1)
    with torch.inference_mode():
        expected = layer.double()(x.double())
        assert torch.equal(layer.float().cuda()(x.cuda()).cpu().double(), expected)


@pytest.mark.parametrize("shape", MAPS)
def test_division_and_root_are_the_cpus(shape: tuple[int, ...]) -> None:
    x = snap(torch.randn(*shape, 128, generator=torch.Generator().manual_seed(2)) * 3)
    norm = RMSNorm(128)
    with torch.inference_mode():
        assert torch.equal(norm.cuda()(x.cuda()).cpu(), norm(x))


@pytest.mark.parametrize(("name", "kind"), SHIPPED)
@pytest.mark.parametrize(("count", "height", "width"), [(18, 256, 256), (3, 1080, 1920)])
def test_streams_decode_on_either_side(name: str, kind: str, count: int, height: int, width: int) -> None:
    gpu, cpu = both(name, kind)
    frames = noisy_frames(count, height, width)
    for writer, reader in ((gpu, cpu), (cpu, gpu)):
        data = writer.compress(frames, qp=40)
        symbols = reader.symbols(data)
        assert same(symbols, writer.symbols(data))
        assert writer.transcode(data, reader)[0] == data


@pytest.mark.parametrize(("name", "kind"), SHIPPED)
def test_batches_of_mixed_clips(name: str, kind: str) -> None:
    """Written on both sides, at several QPs, with and without optimised quantisation: one batch on each side."""
    gpu, cpu = both(name, kind)
    clips = []
    for seed, qp in enumerate((8, 24, 40, 63)):
        writer = gpu if seed % 2 else cpu
        clips.append(writer.compress(noisy_frames(9, 256, 192, seed=seed), qp=qp, rdo=seed > 1))
    there, here = gpu.symbols(clips), cpu.symbols(clips)
    assert same(there, here)
    for row, clip in enumerate(clips):
        assert same([level[row] for level in there], cpu.symbols(clip))


@pytest.fixture
def _precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("_precision")
def test_a_gpu_that_may_round_is_refused() -> None:
    torch.set_float32_matmul_precision("high")
    with pytest.raises(VidlbcError, match="device cuda.* rounds float32 sums that must be exact"):
        check_device(torch.device("cuda"))
    torch.set_float32_matmul_precision("highest")
    check_device(torch.device("cuda"))
