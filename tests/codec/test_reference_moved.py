"""The codec of moved kinds against a second decoder, without torch, written from docs/bitstream.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.codec import reference_moved
from tests.codec.small_models import kinds_of, large_symbols, noisy_frames
from vidlbc.codec.bitstream import Reader
from vidlbc.codec.coding.moved_encoding import MovedChooser
from vidlbc.codec.moved_codec import MovedCodec

KINDS = ("lstm", "transformer")


def letters_of(data: bytes) -> str:
    """K, S or M a frame."""
    return "".join(kind.name[0] for kind in kinds_of(data))


def check(codec: MovedCodec, moved_folder: Path, data: bytes) -> None:
    frames, expected = reference_moved.decode(data, moved_folder), codec.padded_symbols(data)
    assert len(frames) == len(expected[0])
    for t, frame in enumerate(frames):
        for level, q in zip(frame, expected, strict=True):
            np.testing.assert_array_equal(level, q[t].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "qp", "rdo"), [((40, 72), 27, False), ((33, 49), 60, True), ((96, 160), 5, False), ((16, 30), 44, False)]
)
def test_the_specification_decodes(wandering, moved_codec, moved_folder, kind, size, qp, rdo) -> None:
    codec = moved_codec(kind)
    data = codec.compress(noisy_frames(4, *size), qp=qp, rdo=rdo)
    assert letters_of(data) == "KMMM"
    check(codec, moved_folder, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_key_frames_still_frames_and_packets(wandering, monkeypatch, moved_codec, moved_folder, kind) -> None:
    codec, search, turn = moved_codec(kind), MovedChooser.search, iter(range(99))

    def sometimes(*arguments):
        return search(*arguments) * (next(turn) % 3 > 0)

    monkeypatch.setattr(MovedChooser, "search", sometimes)
    codec.keyint = 18
    # More frames than go by before steps become graphs (vidlbc.codec.traced), also of the decoder alone.
    data = codec.compress(noisy_frames(32, 32, 64), qp=36)
    assert letters_of(data) == "K" + "SMM" * 5 + "SM" + "KM" + "SMM" * 4
    assert [p.frames for p in Reader(data).packets()] == [16, 2, 14]
    codec.padded_symbols(data)
    check(codec, moved_folder, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_variants_and_streams_without_context(wandering, moved_codec, moved_folder, kind) -> None:
    codec, frames = moved_codec(kind), noisy_frames(3, 48, 32)
    check(codec, moved_folder, codec.compress(frames, qp=30, variant="short"))
    alone = codec.compress(frames, qp=30, context=False)
    assert letters_of(alone) == "KKK"
    check(codec, moved_folder, alone)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_symbols_as_large_as_they_get(wandering, moved_codec, moved_folder, kind) -> None:
    """Every limit of the grid is met: what the symbols say of pictures and states is as far out as it can be."""
    codec = moved_codec(kind)
    check(codec, moved_folder, codec.compress_symbols(large_symbols(codec, 4, 64, 96), 20, 64, 96)[0])
