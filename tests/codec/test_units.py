"""Bitstream version 4: units of several frames, in the container alone."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlbc.bitstream import Header, Packet, Reader, end_bytes, inspect, pack_modes
from vidlbc.errors import BitstreamError

LEVELS = ((8, 3), (16, 2))


def stream(unit: int, skip: int, units: int, frames: int) -> bytes:
    header = Header(40, 56, 7, bytes(16), "chunk", LEVELS, unit=unit, skip=skip)
    packet = Packet(units, 0, bytes(units), pack_modes([0] * units, 2), b"")
    return header.to_bytes() + packet.to_bytes() + end_bytes(units, frames)


@given(st.integers(2, 64), st.integers(0, 89), st.integers(1, 9), st.data())
def test_a_header_of_units_and_the_length_of_the_clip_are_read_as_written(unit, skip, units, data):
    frames = data.draw(st.integers((units - 1) * unit + 1, units * unit))
    written = stream(unit, skip, units, frames)
    reader = Reader(io.BytesIO(written))
    assert (reader.header.version, reader.header.unit, reader.header.skip) == (4, unit, skip)
    assert [p.frames for p in reader.packets()] == [units]
    assert (reader.units, reader.frames) == (units, frames)
    info = inspect(written)
    assert (info.frames, info.unit, info.skip) == (frames, unit, skip)


@pytest.mark.parametrize("frames", [0, 8, 17])
def test_a_length_that_the_units_cannot_hold_is_refused(frames):
    with pytest.raises(BitstreamError, match=f"2 units of 8 frames, the end record says {frames}"):
        inspect(stream(8, 0, 2, frames))


def test_streams_that_need_no_units_keep_the_older_versions():
    assert Header(40, 56, 7, bytes(16), "none", LEVELS).version == 2
    assert Header(40, 56, 7, bytes(16), "none", LEVELS, kept=(1, 2)).version == 3
    assert Header(40, 56, 7, bytes(16), "none", LEVELS, skip=1).version == 4
