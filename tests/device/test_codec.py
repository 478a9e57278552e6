"""The codec on a device that only pretends to be one: the CPU's streams to the byte, no mixed devices, few waits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import KINDS, TEMPORAL_OPTIONS, noisy_frames, save_small_model
from tests.pretended_device import Event, pretended_cuda
from tests.pretended_tensor import Device
from vidlbc.codec.codec import Codec
from vidlbc.codec.frame_pool import FramePool

FRAMES = 4
# How often the host may wait for the device, for each frame.
ENCODE_WAITS, RDO_WAITS, DECODE_WAITS = 50, 70, 25

# What the priors are made of where there is a GPU: sums of products whose order does not matter, IEEE arithmetic one
# operation at a time, squares (pow), and what moves or compares numbers. No convolution, no transcendental function.
EXACT = set(
    "mm addmm bmm baddbmm addcmul_ sum add add_ sub sub_ rsub mul mul_ div sqrt pow abs neg round round_ amax lt "
    "clamp clamp_ clamp_min_ leaky_relu_ cat clone index embedding constant_pad_nd _to_copy".split()
)
# With these the encoder estimates bits, to choose between priors. A decoder reads the choice.
ESTIMATES = {"exp2", "sigmoid", "log2", "reciprocal", "_local_scalar_dense"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small", kinds=tuple(TEMPORAL_OPTIONS))


def both(folder: Path, kind: str) -> tuple[Codec, Codec]:
    """The codec on the CPU and on the device."""
    return vidlbc.load(folder, device="cpu", temporal=kind), vidlbc.load(folder, device="cuda", temporal=kind)


def waits(device: Device) -> float:
    return device.syncs.total() / FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_streams_are_the_cpus(folder: Path, kind: str) -> None:
    frames = noisy_frames(FRAMES, 40, 56)
    with pretended_cuda() as device:
        here, there = both(folder, kind)
        for rdo, most in ((False, ENCODE_WAITS), (True, RDO_WAITS)):
            device.reset()
            data = there.compress(frames, rdo=rdo)
            assert waits(device) <= most
            assert data == here.compress(frames, rdo=rdo)
        device.reset()
        pictures = there.decompress(data)
        assert waits(device) <= DECODE_WAITS
        assert np.array_equal(pictures, here.decompress(data))
        for ours, theirs in zip(here.latents(data), there.latents(data), strict=True):
            assert theirs.is_cuda and torch.equal(ours, theirs.cpu())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_clips_decode_as_one_batch(folder: Path, kind: str) -> None:
    with pretended_cuda():
        here, there = both(folder, kind)
        clips = [here.compress(noisy_frames(FRAMES, 40, 56, seed=seed), qp=20 + seed) for seed in range(2)]
        batch = there.symbols(clips)
        for row, clip in enumerate(clips):
            for ours, theirs in zip(here.symbols(clip), batch, strict=True):
                assert torch.equal(ours, theirs[row].cpu())


@pytest.mark.slow
def test_rate_control(folder: Path) -> None:
    frames = noisy_frames(2, 32, 32)
    with pretended_cuda():
        here, there = both(folder, "none")
        assert there.compress(frames, bitrate=200, fps=25) == here.compress(frames, bitrate=200, fps=25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_priors_have_exact_operations_only(folder: Path, kind: str) -> None:
    """Symbols to bytes and back, without the image stage."""
    with pretended_cuda() as device:
        here, there = both(folder, kind)
        there._priors.intra_frames = False  # under random weights the temporal stage would never be the shorter
        symbols = here.analyse(noisy_frames(3, 40, 56), 32)
        device.reset()
        data, _ = there.compress_symbols(symbols, 32, 40, 56)
        assert set(device.operations) <= EXACT | ESTIMATES
        device.reset()
        there.symbols(data)
        assert set(device.operations) <= EXACT
        assert {"addmm", "addcmul_"} <= set(device.operations)
        assert ("baddbmm" in device.operations) == (kind == "transformer")


@pytest.mark.slow
def test_a_clip_keeps_no_events(folder: Path) -> None:
    with pretended_cuda():
        codec = vidlbc.load(folder, device="cuda", temporal="transformer")
        gc.collect()
        before = Event.alive
        codec.compress(noisy_frames(FRAMES, 32, 32))
        gc.collect()
        assert Event.alive <= before
        assert codec.clock.seconds()["temporal stage"] > 0


def test_a_lone_picture_costs_one() -> None:
    seen: list[int] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x + 1

    with pretended_cuda():
        pool = FramePool(torch.device("cuda"), "fp32")
        for count, expected in ((1, [1]), (2, [16]), (16, [16]), (17, [16, 1]), (33, [16, 16, 1])):
            seen.clear()
            out = torch.cat(pool.map(network, torch.arange(count)[:, None]))
            assert seen == expected
            assert out.cpu().flatten().tolist() == list(range(1, count + 1))


def test_the_intra_prior_is_rounded_on_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """exp2 and division of another device must not decide weights."""
    import vidlbc.codec.coding.priors as priors

    devices: list[torch.device] = []
    to_grid: Callable[[torch.nn.Module], torch.nn.Module] = priors.to_grid

    def watched(module: torch.nn.Module) -> torch.nn.Module:
        devices.extend(p.device for p in module.parameters())
        return to_grid(module)

    monkeypatch.setattr(priors, "to_grid", watched)
    with pretended_cuda():
        vidlbc.load(folder, device="cuda", temporal="lstm")
    assert devices and {d.type for d in devices} == {"cpu"}
