"""What kind `none` takes for the quality of another stream."""

from __future__ import annotations

import numpy as np
import pytest

import vidlbc
from tests.codec.test_shipped_models import scene
from vidlbc.pipeline.quality import at_equal_quality
from vidlbc.video.distortion import psnr


@pytest.fixture(scope="module")
def plain() -> vidlbc.Codec:
    return vidlbc.load("default", "cpu", temporal="none")


def coded(codec: vidlbc.Codec, frames: np.ndarray, qp: int) -> tuple[int, float]:
    data = codec.compress(frames, qp)
    return len(data), float(np.mean(psnr(codec.decompress(data), frames)))


@pytest.mark.parametrize("begin", [33, 5, 60])
def test_its_own_quality_takes_its_own_bytes(plain, begin):
    frames = scene()[:2]
    size, quality = coded(plain, frames, 33)
    found, bits = at_equal_quality(plain, frames, begin, None, quality)
    assert found == pytest.approx(size, rel=5e-3) and len(bits) == 2


def test_between_two_qps_it_is_between_their_bytes(plain):
    frames = scene()[:2]
    (fewer, worse), (more, better) = (coded(plain, frames, qp) for qp in (30, 31))
    found, _ = at_equal_quality(plain, frames, 40, None, (worse + better) / 2)
    assert fewer < found < more


def test_beyond_its_qps_it_is_what_the_last_one_takes(plain):
    frames = scene()[:2]
    assert at_equal_quality(plain, frames, 20, None, 90.0)[0] == coded(plain, frames, 63)[0]
    assert at_equal_quality(plain, frames, 20, None, 3.0)[0] == coded(plain, frames, 0)[0]
