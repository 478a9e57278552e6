"""Distortion, rate and intervals against values worked out by hand or with an independent computation."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_msssim import ms_ssim as reference_ms_ssim

from vidlbc.codec.bitstream.rates import bits_per_pixel, kilobits_per_second
from vidlbc.errors import InputError
from vidlbc.evaluate import bootstrap_ci
from vidlbc.evaluate.rate_distortion.bjontegaard import bd_rate
from vidlbc.video.distortion import ms_ssim, psnr


def noise(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_psnr_by_hand() -> None:
    a = np.full((3, 4, 5, 3), 100, np.uint8)
    b = a.copy()
    b[1] += 10  # MSE 100
    b[2, 0, 0, 0] = 130  # MSE 900 / 60
    assert psnr(a, b).tolist() == pytest.approx([100.0, 10 * math.log10(255**2 / 100), 10 * math.log10(255**2 / 15)])
    assert psnr(a[:1], np.zeros_like(a[:1])).tolist() == pytest.approx([10 * math.log10(255**2 / 100**2)])


def test_psnr_of_opposites_is_zero_and_long_clips_are_whole() -> None:
    black = np.zeros((19, 16, 16, 3), np.uint8)
    assert psnr(black, 255 - black).tolist() == pytest.approx([0.0] * 19)


def test_ms_ssim_is_the_library_at_full_size() -> None:
    a = noise(2, 176, 200)
    b = np.clip(a.astype(int) + 20, 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(z).permute(0, 3, 1, 2).float() for z in (a, b))
    expected = reference_ms_ssim(x, y, data_range=255, size_average=False)
    np.testing.assert_allclose(ms_ssim(a, b), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("side", [16, 17, 32, 33, 64, 100, 144, 160, 161])
def test_ms_ssim_of_small_frames(side: int) -> None:
    a = noise(1, side, side + 3)
    worse = np.clip(a.astype(int) + np.random.default_rng(1).normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    worst = noise(1, side, side + 3, seed=2)
    assert ms_ssim(a, a)[0] == pytest.approx(1.0)
    assert 0.0 <= ms_ssim(a, worst)[0] < ms_ssim(a, worse)[0] < 1.0


def test_clips_that_do_not_match_are_named() -> None:
    with pytest.raises(InputError, match=r"different shapes cannot be compared: \(1, 16, 16, 3\) and \(1, 16, 17, 3\)"):
        psnr(noise(1, 16, 16), noise(1, 16, 17))
    with pytest.raises(InputError, match="the first clip must be uint8"):
        ms_ssim(noise(1, 16, 16).astype(np.float32), noise(1, 16, 16))


def test_rates_by_hand() -> None:
    assert bits_per_pixel(1000, 10, 20, 40) == 1.0
    assert kilobits_per_second(30_000, 120, Fraction(30000, 1001)) == pytest.approx(240 / (120 * 1001 / 30000))
    with pytest.raises(InputError, match="no bits per pixel for 10 bytes of 0 frames of 4 x 4"):
        bits_per_pixel(10, 0, 4, 4)
    with pytest.raises(InputError, match="no kbit/s"):
        kilobits_per_second(10, 5, 0)


ANCHOR = ([686.76, 309.58, 157.11, 85.95], [40.28, 37.18, 34.24, 31.42])
TESTED = ([893.34, 407.8, 204.93, 112.75], [40.39, 37.21, 34.17, 31.24])


@pytest.mark.slow
def test_bd_rate_is_bjontegaards() -> None:
    """Against VCEG-M33 itself: cubic fits of log rate over PSNR, integrated over the common range."""
    low, high = max(ANCHOR[1][-1], TESTED[1][-1]), min(ANCHOR[1][0], TESTED[1][0])
    integrals = []
    for rate, quality in (ANCHOR, TESTED):
        p = np.polyint(np.polyfit(quality, np.log(rate), 3))
        integrals.append(np.polyval(p, high) - np.polyval(p, low))
    expected = 100 * (math.exp((integrals[1] - integrals[0]) / (high - low)) - 1)
    assert bd_rate(*ANCHOR, *TESTED, method="cubic") == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(factor=st.floats(0.2, 5.0), method=st.sampled_from(["akima", "pchip", "cubic"]))
def test_bd_rate_of_a_scaled_curve_is_the_scale(factor: float, method: str) -> None:
    value = bd_rate(*ANCHOR, [r * factor for r in ANCHOR[0]], ANCHOR[1], method)
    assert value == pytest.approx(100 * (factor - 1), rel=1e-6, abs=1e-6)


def test_bd_rate_needs_curves_that_overlap() -> None:
    assert bd_rate(*ANCHOR, TESTED[0], [q + 30 for q in TESTED[1]]) is None
    with pytest.raises(InputError, match="the tested curve needs at least 4 rates and qualities, got 3 and 4"):
        bd_rate(*ANCHOR, TESTED[0][:3], TESTED[1])
    with pytest.raises(InputError, match="the anchor curve must rise in quality with the rate"):
        bd_rate(ANCHOR[0], ANCHOR[1][::-1], *TESTED)


def test_bootstrap_matches_the_binomial() -> None:
    hits = np.array([1.0] * 60 + [0.0] * 140)
    low, high = bootstrap_ci(hits, draws=4000)
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert low == pytest.approx(0.3 - spread, abs=0.012) and high == pytest.approx(0.3 + spread, abs=0.012)
    assert bootstrap_ci(hits, draws=200, seed=3) == bootstrap_ci(hits, draws=200, seed=3)
    assert bootstrap_ci([0.25]) == (0.25, 0.25)
    with pytest.raises(InputError, match="at least one value"):
        bootstrap_ci([])


def test_bootstrap_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(100):
        low, high = bootstrap_ci(rng.normal(size=50), draws=300, seed=trial)
        inside += low <= 0.0 <= high
    assert 86 <= inside <= 100
