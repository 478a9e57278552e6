"""Codecs at equal bytes."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from vidlbc.evaluate.codecs import Anchor, Jpeg, VideoCodec
from vidlbc.evaluate.codecs.equal_bytes import X264_FPS, nearest
from vidlbc.experiments.machine_perception.matching import OutOfReach, matched
from vidlbc.video.distortion import psnr


def test_jpeg_with_shared_tables_is_the_same_picture_in_fewer_bytes(make_frames):
    frames = make_frames(4, (48, 64))
    alone, files = [], 0
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=40, subsampling="4:2:0")
        files += len(file.getvalue())
        alone.append(np.array(Image.open(file).convert("RGB")))
    jpeg = Jpeg(shared_tables=True)
    data = jpeg.encode(frames, 40, X264_FPS)
    assert np.array_equal(jpeg.decode(data), np.stack(alone))
    assert len(data) < files - 3 * 500


def test_x264_is_decoded_from_the_raw_stream(make_frames):
    frames = make_frames(6, (48, 64))
    x264 = VideoCodec("x264", bare=False)
    streams = {crf: x264.encode(frames, crf, X264_FPS) for crf in (40.0, 10.0)}
    assert len(streams[40.0]) < len(streams[10.0])
    quality = {crf: psnr(x264.decode(data), frames).mean() for crf, data in streams.items()}
    assert quality[40.0] < quality[10.0] and quality[10.0] > 28
    assert streams[10.0][:4] in (b"\0\0\0\1", b"\0\0\1\x67")


class Linear(Anchor):
    """A codec of `quality` bytes a frame."""

    name, scale, steps = "linear", "rate", range(10, 61)

    def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
        return bytes(int(quality) * len(frames))

    def decode(self, data: bytes, height: int | None = None, width: int | None = None) -> np.ndarray:
        raise NotImplementedError

    def check(self, quality: float) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("target, expected", [(330, 33.0), (336, 34.0), (334, 33.0), (90, 10.0)])
def test_the_nearest_setting_is_found(target, expected):
    clips = [np.zeros((5, 2, 2, 3), np.uint8)] * 2
    assert matched(Linear(), clips, target) == expected


def test_a_rate_out_of_reach_is_told():
    with pytest.raises(OutOfReach, match="linear: its nearest to 9000 bytes are 600 at rate 60"):
        matched(Linear(), [np.zeros((10, 2, 2, 3), np.uint8)], 9000)


def test_a_clip_is_brought_to_its_bytes_in_few_trials(make_frames):
    class Counted(VideoCodec):
        trials = 0

        def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
            self.trials += 1
            return super().encode(frames, quality, fps)

    frames, coder = make_frames(8, (48, 64)), Counted("x264")
    for target in (1500, 6000):
        coder.trials = 0
        crf, (data,) = nearest(coder, [frames], target, X264_FPS)
        assert abs(len(data) / target - 1) < 0.06 and coder.trials <= 6 and crf in coder.steps
    crf, (data,) = nearest(coder, [frames], 10, X264_FPS)  # out of reach: the smallest there is
    assert crf == 51.0 and len(data) > 20


def test_x264_is_decoded_alike_without_its_message_and_with_odd_sides(make_frames):
    frames = make_frames(6, (47, 63))
    x264 = VideoCodec("x264")
    whole, bare = (VideoCodec("x264", bare=bare).encode(frames, 30, X264_FPS) for bare in (False, True))
    assert 500 < len(whole) - len(bare) < 1000 and b"x264 - core" in whole and b"x264 - core" not in bare
    decoded = x264.decode(bare)
    assert decoded.shape == (6, 48, 64, 3) and np.array_equal(decoded, x264.decode(whole))
    assert np.array_equal(x264.decode(bare, 47, 63), decoded[:, :47, :63])
    assert psnr(decoded[:, :47, :63], frames).mean() > 22
