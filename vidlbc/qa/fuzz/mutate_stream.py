"""One mutated bitstream from valid ones: bytes, fields and packets, with and without good checksums."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from vidlbc.codec.bitstream.container import pack_kinds, varint
from vidlbc.qa.fuzz.records import VARINTS, StreamRecord, join, mended, parse, resized, value_of

Draw = np.random.Generator
_Made = TypeVar("_Made")

EXTREMES = (0, 1, 2, 15, 16, 127, 128, 255, 256, 1 << 16, (1 << 16) + 1, 1 << 31, 1 << 32, 1 << 40, 1 << 63, 1 << 70)
SIDES = (1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 256, 1000, 4096, 16384, 65535, 65536)


def mutate_stream(draw: Draw, streams: Mapping[str, bytes]) -> tuple[str, bytes]:
    """(name of the stream it was, bytes): a function of what `draw` is seeded with."""
    names = sorted(streams)
    name = names[draw.integers(len(names))]
    other = streams[names[draw.integers(len(names))]]
    data = streams[name]
    for _ in range(1 + int(draw.integers(3) == 0) + int(draw.integers(10) == 0)):
        data = damaged(draw, data, other) if draw.integers(5) < 2 else restructured(draw, data, other)
    if draw.integers(4):
        data = recounted(data) if draw.integers(3) == 0 else mended(data)
    return name, data


def damaged(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Bytes that know nothing of the format."""
    return _pick(draw, (_flip, _overwrite, _truncate, _insert, _delete, _repeat, _splice))(draw, data, other)


def restructured(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Fields and records; checksums become good ones, as far as the records go."""
    records, rest = parse(data)
    if not records:
        return data
    _pick(draw, (_one_field, _one_field, _one_field, _size, _payload, _payload, _kinds, _reorder, _graft))(
        draw, records, parse(other)[0]
    )
    return join(records, rest)


def recounted(data: bytes) -> bytes:
    """Mended, and the end records say what the packets before them hold."""
    records, rest = parse(data)
    frames = 0
    for record in records[1:]:
        if record.tag == b"\x50":
            frames += value_of(record.get("frames"))
            continue
        for name in ("frames", "again"):
            record.set(name, varint(frames))
        frames = 0
    return join(records, rest)


def _pick(draw: Draw, choices: tuple[Callable[..., _Made], ...]) -> Callable[..., _Made]:
    return choices[draw.integers(len(choices))]


# -- bytes -----------------------------------------------------------------------------------------------------------


def _span(draw: Draw, data: bytes, most: int = 64) -> tuple[int, int]:
    start = int(draw.integers(len(data) + 1))
    return start, min(len(data), start + int(draw.integers(1, most)))


def _flip(draw: Draw, data: bytes, other: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(int(draw.integers(1, 9))):
        if out:
            # Half of the time where the header and the first packet begin.
            place = int(draw.integers(len(out) if draw.integers(2) else min(len(out), 80)))
            out[place] ^= 1 << int(draw.integers(8))
    return bytes(out)


def _overwrite(draw: Draw, data: bytes, other: bytes) -> bytes:
    start, stop = _span(draw, data)
    fill = (draw.bytes(stop - start), bytes(stop - start), b"\xff" * (stop - start))[draw.integers(3)]
    return data[:start] + fill + data[stop:]


def _truncate(draw: Draw, data: bytes, other: bytes) -> bytes:
    return data[: int(draw.integers(len(data) + 1))]


def _insert(draw: Draw, data: bytes, other: bytes) -> bytes:
    start, _ = _span(draw, data)
    return data[:start] + draw.bytes(int(draw.integers(1, 64))) + data[start:]


def _delete(draw: Draw, data: bytes, other: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:start] + data[stop:]


def _repeat(draw: Draw, data: bytes, other: bytes) -> bytes:
    start, stop = _span(draw, data, 400)
    return data[:stop] + data[start:stop] * int(draw.integers(1, 4)) + data[stop:]


def _splice(draw: Draw, data: bytes, other: bytes) -> bytes:
    return data[: int(draw.integers(len(data) + 1))] + other[int(draw.integers(len(other) + 1)) :]


# -- fields and records ----------------------------------------------------------------------------------------------


def _one_field(draw: Draw, records: list[StreamRecord], others: list[StreamRecord]) -> None:
    record = records[0 if draw.integers(2) else draw.integers(len(records))]
    place = int(draw.integers(len(record.fields)))
    name, value = record.fields[place]
    record.fields[place] = (name, _other_varint(draw, value) if name in VARINTS else _other_bytes(draw, value))


def _other_varint(draw: Draw, value: bytes) -> bytes:
    way = draw.integers(5)
    if way == 0:
        return varint(max(0, value_of(value) + int(draw.integers(-3, 4))))
    if way == 1:
        return varint(value_of(value) * 2)
    if way == 2:
        # The same value in more bytes, or one that never ends.
        return value[:-1] + bytes([value[-1] | 0x80]) + b"\x80" * int(draw.integers(12)) + b"\0" if value else b"\x80"
    return varint(EXTREMES[draw.integers(len(EXTREMES))])


def _other_bytes(draw: Draw, value: bytes) -> bytes:
    way = draw.integers(5)
    if way == 0:
        return draw.bytes(len(value))
    if way == 1:
        return value + draw.bytes(int(draw.integers(1, 9)))
    if way == 2:
        return value[:-1]
    return _flip(draw, value, b"") if way == 3 else bytes([int(draw.integers(256))]) * len(value)


def _size(draw: Draw, records: list[StreamRecord], others: list[StreamRecord]) -> None:
    """Another frame size, often one that decodes."""
    for name in ("height", "width"):
        if draw.integers(3):
            records[0].set(name, varint(SIDES[draw.integers(len(SIDES))]))


def _payload(draw: Draw, records: list[StreamRecord], others: list[StreamRecord]) -> None:
    packets = [record for record in records if record.tag == b"\x50"]
    if not packets:
        return
    packet = packets[draw.integers(len(packets))]
    payload, way = packet.get("payload"), draw.integers(6)
    if way == 0:
        payload = b""
    elif way == 1:
        payload = bytes(len(payload))
    elif way == 2:
        payload = draw.bytes(int(draw.integers(2 * len(payload) + 2)))
    elif way == 3:
        payload = payload + draw.bytes(int(draw.integers(1, 4096)))
    elif way == 4 and (donors := [record for record in others if record.tag == b"\x50"]):
        payload = donors[draw.integers(len(donors))].get("payload")
    else:
        payload = damaged(draw, payload, b"")
    resized(packet, payload)
    if draw.integers(4) == 0:
        frames = value_of(packet.get("frames"))
        packet.set("checks", draw.bytes(frames) if frames < 256 else b"")
        packet.set("symbol_crc", zlib.crc32(payload).to_bytes(4, "little"))


def _kinds(draw: Draw, records: list[StreamRecord], others: list[StreamRecord]) -> None:
    """Frames of other kinds, of a stream that has them: with a past that is not there, or vectors that are none."""
    packets = [record for record in records if record.get("kinds")]
    if not packets:
        _payload(draw, records, others)
        return
    packet = packets[draw.integers(len(packets))]
    kinds = [int(draw.integers(3)) for _ in range(4 * len(packet.get("kinds")))]
    packet.set("kinds", pack_kinds(kinds))


def _reorder(draw: Draw, records: list[StreamRecord], others: list[StreamRecord]) -> None:
    """Twice, gone, or elsewhere: a packet, an end record, or the header."""
    place = int(draw.integers(len(records)))
    record = records.pop(place)
    way = draw.integers(4)
    if way == 0:
        records[place:place] = [record] * int(draw.integers(2, 6))
    elif way != 1 or not records:
        records.insert(int(draw.integers(len(records) + 1)), record)


def _graft(draw: Draw, records: list[StreamRecord], others: list[StreamRecord]) -> None:
    """A record of another stream, in place of one or beside it."""
    if others:
        place = int(draw.integers(len(records) + 1))
        records[place : place + int(draw.integers(2))] = [others[draw.integers(len(others))]]
