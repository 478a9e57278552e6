"""Blocks that are copied, frames that are repeated, and QPs of frames: format version 6."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vidlbc
from tests.codec import reference_moved
from tests.codec.small_models import kinds_of, noisy_frames, raw_bits, save_small_model
from vidlbc.codec.bitstream import Reader, end_bytes
from vidlbc.codec.coding.moved_encoding import LIFT, MovedChooser
from vidlbc.codec.coding.moving import FrameKind
from vidlbc.codec.moved_codec import MovedCodec
from vidlbc.errors import BitstreamError, InputError

KINDS = ("lstm", "transformer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "copies"
    return save_small_model(path, moved=True, copies=True, overlap=True, variants={"short": [0, 2, 2, 3]})


@pytest.fixture
def codec_of(folder: Path) -> Callable[..., MovedCodec]:
    def load(kind: str, **options: object) -> MovedCodec:
        codec = vidlbc.load(folder, "cpu", temporal=kind, **options)
        assert isinstance(codec, MovedCodec)
        codec._priors.intra_frames = False
        return codec

    return load


@pytest.fixture
def scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever blocks are copied: here and there whole cells of stride 32."""

    def copies(self: MovedChooser, frame: object, known: object, seen: object, lasts: object) -> Tensor:
        rows, columns = (side // 2 for side in self._still.shape[1:3])
        key = zlib.crc32(seen.picture.numpy().tobytes())  # type: ignore[attr-defined]
        small, large = (raw_bits(key + k, rows * columns).reshape(rows, columns) % 3 == 0 for k in range(2))
        return torch.from_numpy(small | np.kron(large[::2, ::2], np.ones((2, 2), bool)))[None]

    monkeypatch.setattr(MovedChooser, "copies", copies)
    monkeypatch.setattr(MovedChooser, "lift", lambda *given: LIFT)


def same(a, b) -> bool:
    return all(torch.equal(*pair) for pair in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", [None, "short"])
def test_what_is_coded_is_decoded(wandering, scattered, codec_of, kind, variant):
    codec, frames = codec_of(kind), noisy_frames(5, 40, 72)
    data, symbols, report = codec.encode(frames, qp=30, variant=variant, rdo=True)
    info = vidlbc.inspect(data)
    assert info.version == 6 and info.copies and 0.2 < report.copied < 0.7
    assert info.qps == (30 + LIFT, 30, 30, 30, 30)
    assert kinds_of(data) == [FrameKind.KEY, *[FrameKind.MOVED] * 4]
    found = codec.decode(data)
    assert same(found.symbols, symbols) and found.qps == info.qps
    assert codec.compress(frames, qp=30, variant=variant, rdo=True) == data


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_the_document(wandering, scattered, codec_of, folder, kind):
    """Frames with and without vectors, more of them than go by before steps become graphs, in 2 packets."""
    codec = codec_of(kind, keyint=18)
    frames = noisy_frames(30, 64, 96)
    frames[9:12] = frames[8]  # repeated ones
    data = codec.compress(frames, qp=36, rdo=True)
    letters = "".join(kind.name[0] for kind in kinds_of(data))
    assert letters == "K" + "M" * 8 + "RRR" + "M" * 6 + "K" + "M" * 11
    expected, (found, pictures) = reference_moved.decode_shown(data, folder), codec.decode_shown(data)
    for t, (symbols, picture) in enumerate(expected):
        for level, q in zip(symbols, found.symbols, strict=True):
            np.testing.assert_array_equal(level, q[t].numpy())
        np.testing.assert_array_equal(picture, pictures[t])


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_with_other_threads_decodes_the_same(wandering, scattered, codec_of, folder, kind, tmp_path):
    data, symbols, _ = codec_of(kind).encode(noisy_frames(5, 40, 56), qp=40, rdo=True)
    (tmp_path / "clip.vlbc").write_bytes(data)
    script = (
        "import sys, torch, vidlbc, zlib; torch.set_num_threads(2);"
        "codec = vidlbc.load(sys.argv[1], 'cpu', temporal=sys.argv[2]);"
        "found, pictures = codec.decode_shown(open(sys.argv[3], 'rb').read());"
        "print(zlib.crc32(b''.join(q.numpy().tobytes() for q in found.symbols)), zlib.crc32(pictures.tobytes()))"
    )
    command = [sys.executable, "-c", script, str(folder), kind, str(tmp_path / "clip.vlbc")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    crcs = (b"".join(q.numpy().tobytes() for q in symbols), codec_of(kind).decompress(data).tobytes())
    assert found == [str(zlib.crc32(x)) for x in crcs]


def test_copied_blocks_show_the_picture_they_are_copied_from(codec_of, monkeypatch):
    """Of a frame without vectors, the one before."""
    codec, frames = codec_of("transformer"), noisy_frames(3, 64, 64)
    copied = torch.zeros(1, 4, 4, dtype=torch.bool)
    copied[:, 1, 2] = copied[:, 2:, :2] = True
    monkeypatch.setattr(MovedChooser, "search", lambda self, picture, past, displaced: 0 * past.field)
    monkeypatch.setattr(MovedChooser, "copies", lambda *given: copied)
    data = codec.compress(frames, qp=30, rdo=True)
    assert kinds_of(data) == [FrameKind.KEY, FrameKind.STILL, FrameKind.STILL]
    pictures = codec.decompress(data)
    for t in (1, 2):
        for y, x in np.ndindex(4, 4):
            block = (t, slice(16 * y, 16 * y + 16), slice(16 * x, 16 * x + 16))
            before = (t - 1, *block[1:])
            assert np.array_equal(pictures[block], pictures[before]) == bool(copied[0, y, x])


def test_nothing_is_spent_on_what_is_copied(codec_of, monkeypatch):
    codec, copied = codec_of("lstm"), torch.zeros(1, 4, 6, dtype=torch.bool)
    copied[:, :2, :2] = copied[:, 2, 2] = copied[:, :3, 5] = True
    monkeypatch.setattr(MovedChooser, "copies", lambda *given: copied)
    data = codec.compress(noisy_frames(3, 64, 96), qp=30, rdo=True)
    bits: list[list[Tensor]] = [[] for _ in codec.levels]
    codec.code_lengths(data, lambda index, of_level: bits[index].append(of_level))
    for level, of_frames in zip(codec.levels, bits, strict=True):
        free = of_frames[2].sum(-1) == 0
        if level.stride == 32:  # only where all the blocks of a cell are copied
            assert free.tolist() == [[True, False, False], [False, False, False]]
        else:
            cells = 16 // level.stride
            assert torch.equal(free, copied[0].repeat_interleave(cells, 0).repeat_interleave(cells, 1))


def test_a_clip_that_stands_still_takes_next_to_nothing(codec_of):
    codec = codec_of("transformer")
    one = noisy_frames(1, 64, 64)
    still = codec.encode(np.repeat(one, 40, axis=0), qp=30, rdo=True)
    first = codec.encode(np.repeat(one, 2, axis=0), qp=30, rdo=True)
    assert kinds_of(still.data) == [FrameKind.KEY, *[FrameKind.REPEATED] * 39]
    assert len(still.data) < len(first.data) + 120
    assert still.report.copied == 39 / 40 and still.report.frame_bits[1:] == (0.0,) * 39
    assert same(codec.padded_symbols(still.data), still.symbols)
    pictures = codec.decompress(still.data)
    assert len(pictures) == 40 and (pictures == pictures[0]).all()
    # Each frame still tells what its symbols took.
    told: list[float] = []
    codec.code_lengths(still.data, lambda index, of_level: told.append(float(of_level.sum())))
    assert len(told) == 160 and sum(told[:4]) > 0 == sum(told[4:])


def test_pictures_are_the_references_unless_they_shall_not_be(wandering, scattered, codec_of):
    codec, alone, shown = (codec_of("lstm", refine=refine) for refine in (None, False, True))
    frames = noisy_frames(18, 40, 56)
    data, rounded = (codec.compress(frames, qp=30, rdo=rdo) for rdo in (True, False))
    assert vidlbc.inspect(rounded).version == 5
    blocks = list(codec.decompress_stream(data))
    assert [len(block) for block in blocks] == [16, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), shown.decompress(data))
    np.testing.assert_array_equal(codec.decompress(rounded), alone.decompress(rounded))
    assert not np.array_equal(codec.decompress(data)[1:], alone.decompress(data)[1:])
    # Of the image stage alone, each frame at its own QP.
    found = alone.decode(data)
    expected = alone.synthesize(alone.dequantise(*found), found.qps, 40, 56)
    np.testing.assert_array_equal(alone.decompress(data), expected)
    for latents, frame in ((codec.latents(data), 0), (codec.latents(data), 17)):
        one = codec.dequantise([q[frame : frame + 1] for q in found.symbols], found.qps[frame])
        assert same([y[frame : frame + 1] for y in latents], codec.crop(one, 40, 56))
    assert len({codec.picture_fingerprint, alone.picture_fingerprint, shown.picture_fingerprint}) == 3


def test_key_frames_have_a_higher_qp_the_more_is_copied_from_them(wandering, codec_of, monkeypatch):
    frames = noisy_frames(6, 32, 32)
    for share, keyint, qps in (
        (4, 0, [30 + LIFT, *[30] * 5]),
        (4, 4, [43, 30, 30, 30, 43, 30]),
        (4, 1, [30] * 6),
        (2, 0, [36, *[30] * 5]),
        (0, 0, [30] * 6),
    ):
        copied = torch.arange(4).view(1, 2, 2) < share
        monkeypatch.setattr(MovedChooser, "copies", lambda *given, copied=copied: copied)
        found = vidlbc.inspect(codec_of("lstm", keyint=keyint).compress(frames, qp=30, rdo=True)).qps
        assert list(found) == qps, (share, keyint)
    monkeypatch.setattr(MovedChooser, "copies", lambda *given: torch.ones(1, 2, 2, dtype=torch.bool))
    codec = codec_of("lstm")
    assert vidlbc.inspect(codec.compress(frames, qp=60, rdo=True)).qps[:2] == (63, 60)
    assert vidlbc.inspect(codec.compress(frames[:1], qp=30, rdo=True)).qps == (30,)
    without = vidlbc.inspect(codec.compress(frames, qp=30, rdo=True, context=False))
    assert without.version == 5 and without.qps == (30,) * 6


def test_blocks_of_frames_make_no_difference(codec_of):
    codec, frames = codec_of("transformer"), noisy_frames(19, 32, 48)
    whole, sink = codec.compress(frames, qp=20, rdo=True), io.BytesIO()
    codec.compress_stream([frames[:3], frames[3:18], frames[18:]], sink, qp=20, rdo=True)
    assert sink.getvalue() == whole and len(codec.decompress(whole)) == 19


def test_symbols_of_such_frames_are_not_chosen_or_coded_without_them(scattered, codec_of, folder):
    codec, frames = codec_of("transformer"), noisy_frames(3, 32, 48)
    with pytest.raises(InputError, match="use encode"):
        codec.analyse(frames, 30, rdo=True)
    with pytest.raises(InputError, match="QPs of their own, which transcoding does not keep"):
        codec.transcode(codec.compress(frames, qp=30, rdo=True), vidlbc.load(folder, "cpu", temporal="none"))


def test_a_changed_byte_never_decodes(wandering, scattered, codec_of):
    codec = codec_of("lstm")
    data = codec.compress(noisy_frames(3, 32, 32), qp=10, rdo=True)
    for position in range(0, len(data), 23):
        damaged = bytearray(data)
        damaged[position] ^= 0x11
        with pytest.raises(BitstreamError):
            codec.decompress(bytes(damaged))


def test_what_a_mended_container_says_is_checked(wandering, scattered, codec_of):
    codec = codec_of("transformer")
    data = codec.compress(noisy_frames(3, 32, 32), qp=30, rdo=True)
    reader = Reader(data)
    (packet,) = reader.packets()
    assert packet.modes == bytes([0b101000, 0b001, 30 + LIFT])

    def forged(modes: bytes) -> bytes:
        changed = dataclasses.replace(packet, modes=modes).to_bytes()
        return data[: reader.header_size] + changed + end_bytes(3, 6)

    assert forged(packet.modes) == data
    for modes, message in (
        (bytes([0b101011, 0b001, 30 + LIFT]), "frame 0 has a past, and no frame is before it"),
        (bytes([0b101000, 0b001, 64]), "a frame's QP is over 63"),
        (bytes([0b101000, 0b001, 41]), "fail their checksum|range coder"),
        (bytes([0b111000, 0b001, 30 + LIFT]), "fail their checksum|range coder"),
        (bytes([0b101000, 0b011, 30 + LIFT, 31]), "fail their checksum|range coder"),
    ):
        with pytest.raises(BitstreamError, match=message):
            codec.symbols(forged(modes))


def test_weights_without_such_blocks_refuse_the_format(tmp_path):
    plain = save_small_model(tmp_path / "plain", kinds=("lstm",), moved=True)
    codec = vidlbc.load(plain, "cpu")
    codec._priors.intra_frames = False
    data = codec.compress(noisy_frames(2, 32, 32), qp=30, rdo=True)
    assert vidlbc.inspect(data).version == 5
    reader = Reader(data)
    (packet,) = reader.packets()
    header = dataclasses.replace(reader.header, copies=True).to_bytes()
    changed = dataclasses.replace(packet, modes=packet.modes + b"\0").to_bytes()
    with pytest.raises(BitstreamError, match="its weights know of no copied blocks"):
        codec.symbols(header + changed + end_bytes(2, 6))
