"""Frames brighter or darker than the one before: what is found, what it saves, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vidlbc
from tests.codec.small_models import noisy_frames
from tests.codec.test_shipped_models import _DECODE, scene
from vidlbc.codec.bitstream import (
    Header,
    Packet,
    Reader,
    end_bytes,
    pack_kinds,
    pack_qps,
    unpack_brightness,
    unpack_qps,
)
from vidlbc.codec.coding import moved_encoding
from vidlbc.codec.motion.brightness import Brightness, brightened, brightness_between
from vidlbc.errors import BitstreamError

colours = st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.integers(-128, 127)] * 3)


def lights_of(data: bytes) -> list[bytes | None]:
    reader = Reader(data)
    return [light for packet in reader.packets() for light in unpack_brightness(packet, reader.header)]


@pytest.fixture(scope="module")
def codec() -> vidlbc.Codec:
    return vidlbc.load("default", "cpu", temporal="lstm")


@pytest.fixture(scope="module")
def fade() -> np.ndarray:
    shares = np.linspace(0.4, 1, 6)[:, None, None, None]
    return (scene()[:6] * shares).round().astype(np.uint8)


@given(*colours)
def test_bytes_are_six_and_say_the_same(gains, offsets):
    light = Brightness(gains, offsets)
    assert len(light.to_bytes()) == 6 and Brightness.from_bytes(light.to_bytes()) == light


@given(st.lists(st.tuples(st.integers(0, 63), st.none() | st.binary(min_size=6, max_size=6)), min_size=1, max_size=40))
def test_what_frames_have_of_their_own_is_packed_and_found(own):
    header = Header(32, 32, 32, bytes(16), "lstm", ((8, 2),), moved=True, copies=True)
    modes = pack_kinds([2] * len(own)) + pack_qps([qp for qp, _ in own], 32, [light for _, light in own])
    packet = Packet(len(own), 0, bytes(len(own)), modes, b"")
    assert unpack_qps(packet, header) == [qp for qp, _ in own]
    assert unpack_brightness(packet, header) == [light for _, light in own]


def test_a_picture_with_gains_and_offsets():
    picture = torch.tensor([[[[0, 100, 255]]]], dtype=torch.uint8)
    assert brightened(picture, Brightness((64, 64, 64), (0, 0, 0))).tolist() == picture.tolist()
    assert brightened(picture, Brightness((255, 96, 32), (7, -1, 100))).tolist() == [[[[7, 149, 228]]]]
    assert brightened(picture, Brightness((1, 255, 1), (-128, 127, -128))).tolist() == [[[[0, 255, 0]]]]


def test_it_is_found_where_all_pixels_change_alike_and_only_there():
    frames = [torch.from_numpy(frame[None]) for frame in scene()]
    darker = torch.from_numpy((scene()[1:2] * 0.7 + 5).round().astype(np.uint8))
    found = brightness_between(darker, frames[0])
    assert found is not None
    assert all(abs(gain - 45) <= 1 for gain in found.gains) and all(abs(offset - 5) <= 2 for offset in found.offsets)
    assert [brightness_between(*pair) for pair in zip(frames[1:], frames[:-1], strict=True)] == [None] * 8
    other = torch.from_numpy(noisy_frames(1, 96, 96, 5))
    assert brightness_between(other, other.flip(1)) is None
    flat = torch.full_like(other, 40)
    assert brightness_between(flat + 30, flat) == Brightness((64, 64, 64), (30, 30, 30))


def test_a_fade_takes_fewer_bytes_and_decodes_in_another_process(codec, fade, tmp_path: Path, monkeypatch):
    data = codec.compress(fade, 24)
    assert [light is not None for light in lights_of(data)] == [False, *[True] * 5]
    (tmp_path / "a.vlbc").write_bytes(data)
    command = [sys.executable, "-c", _DECODE, "default", "lstm", tmp_path / "a.vlbc", tmp_path / "a.npz"]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    with np.load(tmp_path / "a.npz") as found:
        assert all(np.array_equal(found[key], q.numpy()) for key, q in zip(found, codec.symbols(data), strict=True))
    assert np.array_equal(codec.decompress(data), np.concatenate(list(codec.decompress_stream(data))))
    monkeypatch.setattr(moved_encoding, "brightness_between", lambda frame, before: None)
    assert len(data) < 0.8 * len(codec.compress(fade, 24))


@pytest.mark.parametrize("kind", [0, 3])
def test_frames_that_are_not_predicted_have_none(codec, fade, kind):
    light = Brightness((64,) * 3, (1, 1, 1)).to_bytes()
    first = Reader(codec.compress(fade[:1], 24))
    (alone,) = first.packets()
    whole = Packet(1, alone.symbol_crc, alone.checks, pack_kinds([0]) + pack_qps([24], 24), alone.payload)
    bad = Packet(1, 0, b"\0", pack_kinds([kind]) + pack_qps([24], 24, [light]), b"\0" * 8)
    stream = first.header.to_bytes() + whole.to_bytes() + bad.to_bytes() + end_bytes(2, 6)
    with pytest.raises(BitstreamError, match="^damaged bitstream: frame 1 has a brightness, and is not predicted$"):
        codec.decompress(stream)
