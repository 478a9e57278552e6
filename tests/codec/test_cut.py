"""Spans of a bitstream: the same frames as of the whole, from no more of it than they need."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.codec.bitstream import Reader, cut
from vidlbc.errors import BitstreamError, InputError

COUNT, KEYINT = 23, 5


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return noisy_frames(COUNT, 40, 48)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "copies", moved=True, copies=True)


def packets_of(data: bytes) -> list[int]:
    return [packet.frames for packet in Reader(data).packets()]


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_a_span_begins_at_the_key_frame_before_it(moved: Path, frames: np.ndarray, kind: str) -> None:
    codec = vidlbc.load(moved, "cpu", temporal=kind, keyint=KEYINT)
    data = codec.compress(frames, 30)
    whole, latents = codec.decompress(data), codec.latents(data)
    for start, stop in [(0, 1), (3, 9), (5, 6), (12, COUNT), (COUNT - 1, COUNT), (0, COUNT)]:
        part, first = cut(data, start, stop)
        assert first == start // KEYINT * KEYINT
        assert sum(packets_of(part)) == min(COUNT, -(-stop // KEYINT) * KEYINT) - first
        assert np.array_equal(codec.decompress(data, (start, stop)), whole[start:stop])
        found = codec.latents(data, span=(start, stop))
        assert all(torch.equal(x, y[start:stop]) for x, y in zip(found, latents, strict=True))
        assert vidlbc.inspect(part).qps == vidlbc.inspect(data).qps[first : first + vidlbc.inspect(part).frames]


def test_without_key_frames_a_span_begins_with_the_clip(
    codec_of: Callable[..., vidlbc.Codec], moved: Path, frames: np.ndarray
) -> None:
    for codec in (codec_of("lstm"), vidlbc.load(moved, "cpu", temporal="lstm")):
        if hasattr(codec._priors, "intra_frames"):
            codec._priors.intra_frames = False  # weights that know nothing would call every frame a scene cut
        data = codec.compress(frames, 30)
        assert cut(data, 17, 20).first == 0
        assert np.array_equal(codec.decompress(data, (17, 20)), codec.decompress(data)[17:20])


@pytest.mark.parametrize(("kind", "context"), [("none", True), ("lstm", False)])
def test_frames_without_a_past_begin_anywhere(
    codec_of: Callable[..., vidlbc.Codec], frames: np.ndarray, kind: str, context: bool
) -> None:
    codec = codec_of(kind)
    data = codec.compress(frames, 30, context=context)
    part, first = cut(data, 20, 22)
    assert first == 16 and packets_of(part) == [COUNT - 16]
    assert np.array_equal(codec.decompress(data, (20, 22)), codec.decompress(data)[20:22])


def test_of_a_file_nothing_behind_the_span_is_read(moved: Path, frames: np.ndarray) -> None:
    data = vidlbc.load(moved, "cpu", temporal="lstm", keyint=KEYINT).compress(frames, 30)
    file = io.BytesIO(data[:-40])
    assert cut(file, 2, 4) == cut(data, 2, 4) and file.tell() < len(data) - 40


def test_spans_that_are_none(moved: Path, frames: np.ndarray) -> None:
    data = vidlbc.load(moved, "cpu", temporal="lstm", keyint=KEYINT).compress(frames, 30)
    for start, stop in [(-1, 3), (4, 4), (5, 2)]:
        with pytest.raises(InputError, match=f"^frames {start} to {stop}: expected two numbers of frames"):
            cut(data, start, stop)
    with pytest.raises(InputError, match="^frames 20 to 24: the bitstream holds 23$"):
        cut(data, 20, 24)
    with pytest.raises(BitstreamError, match="checksum of packet"):
        cut(data[:90] + b"\0" + data[91:], 0, COUNT)
