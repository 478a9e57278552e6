"""What pads a frame is not shown: symbols that are chosen for rate and distortion spend next to nothing on it."""

from __future__ import annotations

import numpy as np
import pytest

import vidlbc
from tests.conftest import motion_frames
from vidlbc.codec.coding.moved_encoding import MovedChooser
from vidlbc.video.distortion import psnr

HEIGHT, WIDTH = 72, 104  # padded to 96x128: 39% of what is coded is not shown


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "transformer"])
def test_fewer_bytes_than_of_the_padded_frames_and_no_worse_where_it_is_seen(kind, monkeypatch):
    # Of frames with a border that does not move less is copied: key frames would have other QPs.
    monkeypatch.setattr(MovedChooser, "lift", lambda *given: 16)
    codec = vidlbc.load("default", "cpu", temporal=kind)
    frames = motion_frames(4, (HEIGHT, WIDTH), motion=(1.0, 2.0))
    frames = (frames + np.random.default_rng(0).normal(0, 12, frames.shape)).clip(0, 255).astype(np.uint8)
    padded = np.pad(frames, ((0, 0), (0, 24), (0, 24), (0, 0)), mode="edge")
    data, whole = (codec.compress(x, 32, rdo=True) for x in (frames, padded))
    assert len(data) < 0.95 * len(whole)
    own, cut = (psnr(x[:, :HEIGHT, :WIDTH], frames).mean() for x in map(codec.decompress, (data, whole)))
    assert own > cut - 0.15


def test_symbols_that_are_not_chosen_are_those_of_the_padded_picture():
    codec = vidlbc.load("default", "cpu", temporal="none")
    frames = motion_frames(2, (40, 56), motion=(1.0, 2.0))
    padded = np.pad(frames, ((0, 0), (0, 24), (0, 8), (0, 0)), mode="edge")
    for own, whole in zip(codec.analyse(frames, 32), codec.analyse(padded, 32), strict=True):
        assert (own == whole).all()
