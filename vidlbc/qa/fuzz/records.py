"""A bitstream as fields that may hold anything, and back to bytes, with its checksums mended or not.

Unlike `vidlbc.codec.bitstream` this reads what is damaged, as far as it makes sense, and writes what is impossible.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from vidlbc.codec.bitstream.container import varint

_PACKET, _END = b"\x50", b"\x45"
VARINTS = frozenset(
    "height width numerator denominator kind_size count stride channels kept base one skip frames size again".split()
)


@dataclass
class StreamRecord:
    """`tag` is b"" for the header; `fields`: (name, bytes) in order; `crc`: as it was found."""

    tag: bytes
    fields: list[tuple[str, bytes]] = field(default_factory=list)
    crc: bytes = b""

    def get(self, name: str) -> bytes:
        return next((value for key, value in self.fields if key == name), b"")

    def set(self, name: str, value: bytes) -> None:
        self.fields = [(key, value if key == name else old) for key, old in self.fields]

    def to_bytes(self, mend: bool) -> bytes:
        body = b"".join(value for _, value in self.fields)
        return self.tag + body + (struct.pack("<I", zlib.crc32(body)) if mend else self.crc)


def parse(data: bytes) -> tuple[list[StreamRecord], bytes]:
    """The records, header first, and what is left where the bytes stop making sense."""
    cursor = _Cursor(data)
    records: list[StreamRecord] = []
    done = 0
    try:
        records.append(_header(cursor))
        done = cursor.at
        while done < len(data):
            tag = cursor.take(1)
            if tag not in (_PACKET, _END):
                break
            levels = _levels(records[0], sum(record.tag == _END for record in records))
            records.append(_packet(cursor, records[0], levels) if tag == _PACKET else _end(cursor, records[0]))
            done = cursor.at
    except _Short:
        pass
    return records, data[done:]


def join(records: list[StreamRecord], rest: bytes = b"", mend: bool = True) -> bytes:
    return b"".join(record.to_bytes(mend) for record in records) + rest


def mended(data: bytes) -> bytes:
    """The same with good checksums, as far as the records can be told."""
    return join(*parse(data))


def value_of(data: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data))


def resized(record: StreamRecord, payload: bytes) -> None:
    """Give a packet another payload, and its size."""
    record.set("payload", payload)
    record.set("size", varint(len(payload)))


class _Short(Exception):
    """The bytes end within a record."""


class _Cursor:
    def __init__(self, data: bytes):
        self._data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self._data):
            raise _Short
        self.at += size
        return self._data[self.at - size : self.at]

    def varint(self) -> bytes:
        out = b""
        while not out or out[-1] & 0x80:
            out += self.take(1)
        return out


def _levels(header: StreamRecord, section: int) -> int:
    """How many levels a packet of that section holds."""
    count, base = value_of(header.get("count")), value_of(header.get("base"))
    return (count - base if section else base) if base else count


def _header(cursor: _Cursor) -> StreamRecord:
    record = StreamRecord(b"")
    add = record.fields.append
    for name, size in (("magic", 4), ("version", 1), ("flags", 1), ("qp", 1)):
        add((name, cursor.take(size)))
    for name in ("height", "width", "numerator", "denominator"):
        add((name, cursor.varint()))
    add(("fingerprint", cursor.take(16)))
    add(("kind_size", cursor.varint()))
    add(("kind", cursor.take(value_of(record.get("kind_size")))))
    add(("count", cursor.varint()))
    count = value_of(record.get("count"))
    for _ in range(count):
        add(("stride", cursor.varint()))
        add(("channels", cursor.varint()))
    version = record.get("version")[0]
    if version >= 3:
        for _ in range(count):
            add(("kept", cursor.varint()))
        add(("base", cursor.varint()))
    if version >= 4:
        add(("one", cursor.varint()))
        add(("skip", cursor.varint()))
    record.crc = cursor.take(4)
    return record


def _packet(cursor: _Cursor, header: StreamRecord, levels: int) -> StreamRecord:
    record = StreamRecord(_PACKET)
    add = record.fields.append
    add(("frames", cursor.varint()))
    add(("size", cursor.varint()))
    frames, size = value_of(record.get("frames")), value_of(record.get("size"))
    add(("symbol_crc", cursor.take(4)))
    add(("checks", cursor.take(frames)))
    if header.get("version")[0] >= 5:
        add(("kinds", cursor.take(-(-frames // 4))))
        if header.get("version")[0] >= 6:
            own = others = cursor.take(-(-frames // 8))
            for _ in range((int.from_bytes(others, "little") & ((1 << frames) - 1)).bit_count()):
                own += (byte := cursor.take(1))
                own += cursor.take(6) if byte[0] & 0x80 else b""  # a brightness
            add(("qps", own))
    else:
        flags = cursor.take(-(-frames // 8))
        flagged = (int.from_bytes(flags, "little") & ((1 << frames) - 1)).bit_count()
        add(("modes", flags + cursor.take(-(-flagged * levels // 8))))
    add(("payload", cursor.take(size)))
    record.crc = cursor.take(4)
    return record


def _end(cursor: _Cursor, header: StreamRecord) -> StreamRecord:
    record = StreamRecord(_END, [("frames", cursor.varint())])
    if header.get("version")[0] >= 4:
        record.fields.append(("again", cursor.varint()))
    record.crc = cursor.take(4)
    return record
