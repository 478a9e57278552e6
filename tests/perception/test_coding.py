"""Codecs at equal bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vidlbc.evaluation.distortion import psnr
from vidlbc.studies.equal_bytes import X264, Coder, OutOfReach, matched
from vidlbc.studies.machine_perception_coding import Jpeg


def test_jpeg_with_shared_tables_is_the_same_picture_in_fewer_bytes(make_frames):
    frames = make_frames(4, (48, 64))
    alone, files = [], 0
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=40, subsampling="4:2:0")
        files += len(file.getvalue())
        alone.append(np.array(Image.open(file).convert("RGB")))
    data = Jpeg().encode(frames, 40)
    assert np.array_equal(Jpeg().decode(data), np.stack(alone))
    assert len(data) < files - 3 * 500


def test_x264_is_decoded_from_the_raw_stream(make_frames):
    frames = make_frames(6, (48, 64))
    streams = {crf: X264().encode(frames, crf) for crf in (40.0, 10.0)}
    assert len(streams[40.0]) < len(streams[10.0])
    quality = {crf: psnr(X264().decode(data), frames).mean() for crf, data in streams.items()}
    assert quality[40.0] < quality[10.0] and quality[10.0] > 28
    assert streams[10.0][:4] in (b"\0\0\0\1", b"\0\0\1\x67")


class Linear(Coder):
    """A codec of `value` bytes a frame."""

    name, setting, settings = "linear", "rate", tuple(float(v) for v in range(10, 61))

    def encode(self, frames: np.ndarray, value: float) -> bytes:
        return bytes(int(value) * len(frames))

    def decode(self, data: bytes) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.parametrize("target, expected", [(330, 33.0), (336, 34.0), (334, 33.0), (90, 10.0)])
def test_the_nearest_setting_is_found(target, expected):
    clips = [np.zeros((5, 2, 2, 3), np.uint8)] * 2
    assert matched(Linear(), clips, target) == expected


def test_a_rate_out_of_reach_is_told():
    with pytest.raises(OutOfReach, match="linear: its nearest to 9000 bytes are 600 at rate 60"):
        matched(Linear(), [np.zeros((10, 2, 2, 3), np.uint8)], 9000)
