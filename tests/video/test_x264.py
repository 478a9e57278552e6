"""libx264 gives one stream for one clip, whatever lay in the memory it is given."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from vidlbc.evaluate.codecs import VideoCodec, build_anchors, ffmpeg
from vidlbc.video import write_mp4, writing
from vidlbc.video.x264 import repeatable_x264


def test_the_same_bytes_whatever_the_heap_held(make_frames):
    """Without `repeatable_x264` the bytes differ from call to call where the processor has AVX-512."""
    frames, rng, streams = make_frames(8, (48, 64)), np.random.default_rng(0), set()
    for _ in range(30):
        # Left behind: numbers that look like motion vectors to the left.
        blocks = [rng.integers(-260, 0, size, np.int16) for size in rng.integers(500, 200_000, 40)]
        del blocks
        streams.add(VideoCodec("x264").encode(frames, 30, Fraction(15)))
    assert len(streams) == 1


@pytest.mark.parametrize(("level", "options"), [("AVX512", {"x264-params": "asm=AVX2"}), ("AVX2", {}), ("DEFAULT", {})])
def test_avx2_is_named_only_where_there_is_more(level, options, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    assert repeatable_x264() == options


def test_every_use_of_x264_takes_the_options(make_frames, monkeypatch, tmp_path):
    """Seen by another option, which the encoder names in its stream."""
    for module in (ffmpeg, writing):
        monkeypatch.setattr(module, "repeatable_x264", lambda: {"x264-params": "mbtree=0"})
    monkeypatch.setattr(ffmpeg, "without_messages", lambda stream: stream)
    frames = make_frames(3, (48, 64))
    write_mp4(tmp_path / "a.mp4", frames, 25)
    anchors = build_anchors(["x264", "x264-ld"])[0].values()
    streams = [VideoCodec("x264", bare=False).encode(frames, 30, Fraction(15)), (tmp_path / "a.mp4").read_bytes()]
    streams += [anchor.encode(frames, 30, Fraction(25)) for anchor in anchors]
    assert all(b"mbtree=0" in stream for stream in streams)
