"""Key frames whose symbols are found by gradient: fewer bits for the same error, in streams that any decoder reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import vidlbc
from tests.conftest import motion_frames
from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.codec.motion.search import EFFORTS

QP = 24


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    clip = motion_frames(3, (64, 90), motion=(1.0, 2.0))
    return (clip + np.random.default_rng(0).normal(0, 8, clip.shape)).clip(0, 255).astype(np.uint8)


def cost(codec, data: bytes, frames: np.ndarray) -> float:
    """Bits with the price of errors, at the QP of a key frame that none follow."""
    error = np.square(codec.decompress(data).astype(float) - frames).sum() / 3
    return 8 * len(data) + float(qp_lambda(torch.tensor(QP))) * error


def test_a_key_frame_costs_less_and_each_time_the_same(frames):
    codecs = [vidlbc.load("default", "cpu", effort=effort) for effort in ("fast", "default", "best")]
    data = [codec.compress(frames[:1], QP) for codec in codecs]
    fast, default, best = (cost(codecs[0], one, frames[:1]) for one in data)
    assert best < 0.985 * fast and best < default < fast
    assert codecs[1].compress(frames[:1], QP) == data[1]


def test_other_frames_cost_less_too_where_there_is_time(frames, monkeypatch):
    clip = frames[:2]

    def second(steps: int) -> float:
        monkeypatch.setitem(EFFORTS, "best", dataclasses.replace(EFFORTS["best"], key_steps=0, frame_steps=steps))
        codec = vidlbc.load("default", "cpu", effort="best")
        return cost(codec, codec.compress(clip, QP), clip)

    assert second(40) < second(0)


def test_only_symbols_that_may_be_chosen_are(frames):
    fast, default = (vidlbc.load("default", "cpu", effort=effort) for effort in ("fast", "default"))
    symbols = default.analyse(frames[:1], QP)
    for codec in (fast, default):
        data = codec.compress(frames[:1], QP, rdo=False)
        assert all(torch.equal(*pair) for pair in zip(codec.padded_symbols(data), symbols, strict=True))


def test_large_frames_go_tile_by_tile_and_cost_about_as_much(monkeypatch):
    frame = motion_frames(1, (64, 256), motion=(1.0, 2.0))
    fast, default = (vidlbc.load("default", "cpu", effort=effort) for effort in ("fast", "default"))
    rounded, whole = (cost(fast, codec.compress(frame, QP), frame) for codec in (fast, default))
    monkeypatch.setattr("vidlbc.codec.coding.refining._TILE", 64)
    tiles = cost(fast, default.compress(frame, QP), frame)
    assert whole < rounded and tiles != whole
    assert abs(tiles - whole) < 0.4 * (rounded - whole)


def test_key_frames_at_an_interval_take_no_longer_than_they_are_worth(frames, monkeypatch):
    from vidlbc.codec.coding import moved_encoding

    taken = []

    def counting(*arguments):
        taken.append(arguments[-1])
        return moved_encoding_refined(*arguments)

    moved_encoding_refined = moved_encoding.refined_key
    monkeypatch.setattr(moved_encoding, "refined_key", counting)
    vidlbc.load("default", "cpu", keyint=2).compress(frames, QP)
    assert taken == [1, 1]  # of 40 steps, 48 frames being worth all
