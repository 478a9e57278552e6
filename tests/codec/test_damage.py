"""Damage is always an error, never noise: every byte of a small bitstream cut, changed, forged with good checksums."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vidlbc
from tests.codec.small_models import KINDS, noisy_frames
from vidlbc.codec.bitstream import Packet, Reader, end_bytes
from vidlbc.codec.codec import Codec
from vidlbc.errors import BitstreamError, InputError, VidlbcError, WeightsMismatch

CodecOf = Callable[..., Codec]


@pytest.fixture(scope="module")
def stream(codec_of: CodecOf) -> bytes:
    """18 frames in two packets, under a kilobyte."""
    still = np.repeat(noisy_frames(1, 16, 16), 18, axis=0)
    data = codec_of("lstm").compress(still, qp=0)
    assert len(data) < 1500 and len(vidlbc.inspect(data).packets) == 2
    return data


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.slow
def test_every_truncation_is_an_error(codec_of: CodecOf, stream: bytes) -> None:
    for size in range(len(stream)):
        with pytest.raises(BitstreamError, match="^truncated bitstream: "):
            vidlbc.inspect(stream[:size])
    for size in range(0, len(stream), 37):
        with pytest.raises(BitstreamError, match="^truncated bitstream: "):
            codec_of("lstm").decompress(stream[:size])


@pytest.mark.slow
def test_every_change_of_a_byte_is_an_error(stream: bytes) -> None:
    """All 255 other values of every byte; the header's, the payload's and the checksums' own."""
    damaged = bytearray(stream)
    for position, true in enumerate(stream):
        # The payload's bytes are all alike to the checksum: three changes each will do there.
        others = range(1, 256) if position < 120 or position > len(stream) - 20 else (1, 0x80, 0xFF)
        for change in others:
            damaged[position] = true ^ change
            with pytest.raises(BitstreamError):
                vidlbc.inspect(bytes(damaged))
        damaged[position] = true


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_never_decodes(codec_of: CodecOf, stream: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(stream) - 1))
    damaged = bytearray(stream)
    damaged[position] ^= data.draw(st.integers(1, 255))
    for read in (codec_of("lstm").decompress, codec_of("lstm").symbols, codec_of("lstm").latents):
        with pytest.raises(BitstreamError):
            read(bytes(damaged))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_altered_symbols_fail_their_checksum(codec_of: CodecOf, kind: str) -> None:
    """A payload changed by someone who mends the container's checksum: caught by the checksums of the symbols."""
    codec = codec_of(kind)
    data = codec.compress(noisy_frames(3, 32, 32))
    reader = Reader(data)
    (packet,) = reader.packets()
    header, true = data[: reader.header_size], codec.symbols(data)
    messages = set()
    for position in range(0, len(packet.payload), 11):
        payload = bytearray(packet.payload)
        payload[position] ^= 0x10
        forged = header + dataclasses.replace(packet, payload=bytes(payload)).to_bytes() + end_bytes(3)
        vidlbc.inspect(forged)
        try:
            decoded = codec.symbols(forged)
        except BitstreamError as error:
            messages.add(str(error))
        else:
            # Only what the coder flushed at the very end may go unread.
            assert position >= len(packet.payload) - 4
            assert all(torch.equal(a, b) for a, b in zip(decoded, true, strict=True))
    assert (
        "decoded symbols of frame 0 fail their checksum: "
        "the bitstream was altered, or the weights differ from those that wrote it"
    ) in messages
    assert any("frame 2" in message for message in messages)


def test_a_forged_frame_check_and_a_forged_total(codec_of: CodecOf) -> None:
    codec = codec_of("none")
    data = codec.compress(noisy_frames(2, 16, 16))
    reader = Reader(data)
    (packet,) = reader.packets()
    header = data[: reader.header_size]

    def decode(changed: Packet) -> None:
        codec.decompress(header + changed.to_bytes() + end_bytes(2))

    decode(packet)
    with pytest.raises(BitstreamError, match="^decoded symbols of frame 1 fail their checksum: "):
        decode(dataclasses.replace(packet, checks=packet.checks[:1] + bytes([packet.checks[1] ^ 1])))
    with pytest.raises(BitstreamError) as error:
        decode(dataclasses.replace(packet, symbol_crc=packet.symbol_crc ^ 0x100))
    assert str(error.value) == "decoded symbols fail their checksum before frame 2"


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_forged_headers_are_an_error_or_harmless(codec_of: CodecOf, stream: bytes, data: st.DataObject) -> None:
    """Bytes of the header changed, with a good checksum: one of our errors, or the same symbols."""
    codec = codec_of("lstm")
    size = Reader(stream).header_size
    body = bytearray(stream[: size - 4])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    forged = sealed(bytes(body)) + stream[size:]
    try:
        header = Reader(forged).header
        if max(header.height, header.width) > 256:
            return  # a forged size asks for that much work before it can fail
        symbols = codec.padded_symbols(forged)
    except VidlbcError:
        return
    assert all(torch.equal(a, b) for a, b in zip(symbols, codec.padded_symbols(stream), strict=True))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_arbitrary_bytes_are_no_bitstream(data: bytes, magic: bool) -> None:
    with pytest.raises(BitstreamError):
        vidlbc.inspect(b"VLBC\x01" + data if magic else data)


def test_messages(codec_of: CodecOf, stream: bytes) -> None:
    size = Reader(stream).header_size
    first = vidlbc.inspect(stream).packets[0][1]

    def message(data: bytes) -> str:
        with pytest.raises(BitstreamError) as error:
            vidlbc.inspect(data)
        return str(error.value)

    assert message(b"") == "truncated bitstream: the magic number needs 4 bytes at offset 0, 0 are left"
    assert message(b"RIFF" + stream[4:]) == "not a vidlbc bitstream: starts with b'RIFF', expected b'VLBC'"
    assert (
        message(stream[:4] + b"\x07" + stream[5:]) == "bitstream format version 7 is unknown: this vidlbc reads 2 to 6"
    )
    assert message(stream[:20]) == "truncated bitstream: the fingerprint needs 16 bytes at offset 11, 9 are left"
    assert (
        message(stream[: size - 6] + b"\x63" + stream[size - 5 :])
        == f"damaged bitstream: checksum of the header does not match, before offset {size}"
    )
    assert (
        message(stream[:size] + b"\x00" + stream[size + 1 :])
        == f"damaged bitstream: unknown record 0x00 at offset {size}"
    )
    assert (
        message(stream[:size])
        == f"truncated bitstream: the next packet or the end record needs 1 bytes at offset {size}, 0 are left"
    )
    assert message(stream[:-6] + end_bytes(17)) == "damaged bitstream: 18 frames found, the end record says 17"
    assert message(stream + b"\x00") == f"damaged bitstream: more bytes after the end record, at offset {len(stream)}"
    assert message(stream[:size] + end_bytes(0)) == "damaged bitstream: it holds no frame"
    assert (
        message(stream[:size] + b"\x50" + sealed(bytes([0, 0, 0, 0, 0, 0])))
        == f"damaged bitstream: empty packet at offset {size + 11}"
    )
    assert (
        message(stream[: size + 40] + bytes([stream[size + 40] ^ 1]) + stream[size + 41 :])
        == f"damaged bitstream: checksum of packet at frame 0 does not match, before offset {size + 30 + first}"
    )
    impossible = "damaged bitstream: the header holds impossible values"
    for position, value in ((6, 64), (7, 0), (8, 0), (10, 0), (size - 12, 0), (28, 200)):
        body = bytearray(stream[: size - 4])
        body[position] = value
        assert message(sealed(bytes(body)) + stream[size:]) == impossible, position


def test_wrong_weights_name_both(codec_of: CodecOf, other_model: Codec) -> None:
    lstm, transformer = codec_of("lstm"), codec_of("transformer")
    data = lstm.compress(noisy_frames(1, 16, 16))
    for codec in (transformer, codec_of("none"), other_model):
        expected = (
            f"bitstream was written with weights {lstm.fingerprint} (lstm), "
            f"these are {codec.fingerprint} ({codec.kind}): load the model that wrote it"
        )
        for read in (codec.decompress, codec.symbols, codec.latents):
            with pytest.raises(WeightsMismatch) as error:
                read(data)
            assert str(error.value) == expected
        with pytest.raises(WeightsMismatch):
            codec.symbols([data, data])
    assert len({c.fingerprint for c in (lstm, transformer, codec_of("none"), other_model)}) == 4
    assert issubclass(WeightsMismatch, BitstreamError) and not issubclass(BitstreamError, InputError)


def test_inspect_needs_no_weights(stream: bytes) -> None:
    info = vidlbc.inspect(io.BytesIO(stream))
    assert info == vidlbc.inspect(stream)
    assert (info.version, info.frames, info.height, info.width) == (2, 18, 16, 16)
    assert (info.qp, info.kind, info.context, info.fps) == (0, "lstm", True, 0)
    assert info.levels == ((4, 1), (8, 3), (16, 4), (32, 5))
    assert info.bytes == len(stream) and info.bits_per_pixel == 8 * len(stream) / (18 * 16 * 16)
    assert [n for n, _ in info.packets] == [16, 2]
    # header | tag, frames, size, symbol crc, checks, modes, payload, crc | ... | end record
    fixed = sum(1 + 1 + (1 if size < 128 else 2) + 4 + n + (n + 7) // 8 + size + 4 for n, size in info.packets)
    assert info.bytes == info.header_bytes + fixed + 6


@pytest.mark.slow
def test_a_damaged_tail_does_not_take_the_frames_before_it(codec_of: CodecOf, stream: bytes) -> None:
    """Streaming: what was whole has been given out before the error comes."""
    codec, blocks = codec_of("lstm"), []
    with pytest.raises(BitstreamError):
        for block in codec.decompress_stream(stream[:-8]):
            blocks.append(block)
    assert len(blocks) == 1 and len(blocks[0]) == 16
    np.testing.assert_array_equal(blocks[0], codec.decompress(stream)[:16])
