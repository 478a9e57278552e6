"""The bytes of one clip, format version 2. `docs/bitstream.md` is the specification; this module implements it.

    header | packet | packet | ... | end

Varints are LEB128. A packet holds up to 16 frames in one range-coder run, so that the coder's flush and the checksums
cost about two bytes a frame. Nothing here needs weights.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

from vidlbc.errors import BitstreamError

MAGIC = b"VLBC"
VERSION = 2
MAX_SIDE = 1 << 16
MAX_RATE = 1 << 32  # of the frame rate's numerator and denominator
MAX_PACKET_FRAMES = 255
_PACKET, _END = 0x50, 0x45


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first packet."""

    height: int
    width: int
    qp: int
    fingerprint: bytes
    kind: str
    levels: tuple[tuple[int, int], ...]  # (stride, channels), fine to coarse
    fps: Fraction = Fraction(0)
    context: bool = True

    def to_bytes(self) -> bytes:
        kind = self.kind.encode()
        body = MAGIC + struct.pack("<BBB", VERSION, int(self.context), self.qp)
        body += varint(self.height) + varint(self.width) + varint(self.fps.numerator) + varint(self.fps.denominator)
        body += self.fingerprint + varint(len(kind)) + kind + varint(len(self.levels))
        for stride, channels in self.levels:
            body += varint(stride) + varint(channels)
        return body + struct.pack("<I", zlib.crc32(body))


@dataclass(frozen=True)
class Packet:
    """Some frames' symbols: `checks` has a byte a frame, `symbol_crc` covers all of them, `payload` is range-coded.

    `modes`: see `pack_modes`.
    """

    frames: int
    symbol_crc: int
    checks: bytes
    modes: bytes
    payload: bytes

    def to_bytes(self) -> bytes:
        body = varint(self.frames) + varint(len(self.payload)) + struct.pack("<I", self.symbol_crc)
        body += self.checks + self.modes + self.payload
        return bytes([_PACKET]) + body + struct.pack("<I", zlib.crc32(body))


def pack_modes(masks: Sequence[int], levels: int) -> bytes:
    """Which levels of each frame are coded by the image stage's intra prior, not by the temporal stage.

    `masks`: bit l of a frame's mask stands for level l, fine to coarse. First a bit a frame, whether there is any such
    level; then, for the frames where there is, a bit a level. Lowest bits first, each part in whole bytes.
    """
    flags = sum(bool(mask) << t for t, mask in enumerate(masks))
    flagged = [mask for mask in masks if mask]
    bits = sum(mask << levels * i for i, mask in enumerate(flagged))
    return flags.to_bytes(-(-len(masks) // 8), "little") + bits.to_bytes(-(-len(flagged) * levels // 8), "little")


def unpack_modes(modes: bytes, frames: int, levels: int) -> list[int]:
    """The masks of `pack_modes`."""
    size = -(-frames // 8)
    flags, bits = int.from_bytes(modes[:size], "little"), int.from_bytes(modes[size:], "little")
    masks = []
    for t in range(frames):
        flagged = flags >> t & 1
        masks.append(bits & ((1 << levels) - 1) if flagged else 0)
        bits >>= levels * flagged
    return masks


def end_bytes(frames: int) -> bytes:
    body = varint(frames)
    return bytes([_END]) + body + struct.pack("<I", zlib.crc32(body))


def varint(value: int) -> bytes:
    """LEB128 of a non-negative integer."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


class _Source:
    """A binary file that remembers what was read since `mark`, and where it is."""

    def __init__(self, source: bytes | BinaryIO):
        self._file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source
        self.position = 0
        self.seen = bytearray()

    def take(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise BitstreamError(
                f"truncated bitstream: {what} needs {size} bytes at offset {self.position}, {len(data)} are left"
            )
        self.position += size
        self.seen += data
        return data

    def end(self) -> None:
        if self._file.read(1):
            raise BitstreamError(f"damaged bitstream: more bytes after the end record, at offset {self.position}")

    def mark(self) -> None:
        self.seen = bytearray()

    def varint(self, what: str, limit: int) -> int:
        value = shift = 0
        while True:
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << shift
            if value > limit:
                raise BitstreamError(f"damaged bitstream: {what} is over {limit}, at offset {self.position}")
            if not byte & 0x80:
                return value
            shift += 7
            if shift > 63:
                raise BitstreamError(f"damaged bitstream: {what} is no varint, at offset {self.position}")

    def crc(self, what: str) -> None:
        expected = zlib.crc32(self.seen)
        (found,) = struct.unpack("<I", self.take(4, f"the checksum of {what}"))
        if found != expected:
            raise BitstreamError(f"damaged bitstream: checksum of {what} does not match, before offset {self.position}")


class Reader:
    """Reads a header, then packets, from bytes or a binary file; holds one packet at a time."""

    def __init__(self, source: bytes | BinaryIO):
        """Raises BitstreamError where the header is not one."""
        self._source = _Source(source)
        self.header = self._header()
        self.header_size = self._source.position
        self.frames = 0

    def _header(self) -> Header:
        source = self._source
        magic = source.take(4, "the magic number")
        if magic != MAGIC:
            raise BitstreamError(f"not a vidlbc bitstream: starts with {magic!r}, expected {MAGIC!r}")
        version, flags, qp = struct.unpack("<BBB", source.take(3, "the header"))
        if version != VERSION:
            raise BitstreamError(f"bitstream format version {version} is unknown: this vidlbc reads version {VERSION}")
        height, width = source.varint("the height", MAX_SIDE), source.varint("the width", MAX_SIDE)
        numerator, denominator = (source.varint("the frame rate", MAX_RATE) for _ in range(2))
        fingerprint = source.take(16, "the fingerprint")
        kind = source.take(source.varint("the kind's length", 32), "the kind")
        count = source.varint("the number of levels", 16)
        levels = tuple((source.varint("a stride", 1024), source.varint("channels", 4096)) for _ in range(count))
        source.crc("the header")
        numbers = [height, width, denominator, *(stride for stride, _ in levels)]
        if not all(numbers) or not levels or qp > 63 or not kind.isascii():
            raise BitstreamError("damaged bitstream: the header holds impossible values")
        rate = Fraction(numerator, denominator)
        return Header(height, width, qp, fingerprint, kind.decode(), levels, rate, bool(flags & 1))

    def packets(self) -> Iterator[Packet]:
        """The packets in order. Raises BitstreamError where one is damaged, or the end record is missing or wrong."""
        # A frame cannot need more than 4 bytes a symbol; the bound is checked before memory is reserved.
        largest = (
            sum(-(-self.header.height // s) * -(-self.header.width // s) * c for s, c in self.header.levels) + 65536
        )
        while True:
            source = self._source
            tag = source.take(1, "the next packet or the end record")[0]
            source.mark()
            if tag == _END:
                frames = source.varint("the number of frames", 1 << 40)
                source.crc("the end record")
                if frames != self.frames:
                    raise BitstreamError(f"damaged bitstream: {self.frames} frames found, the end record says {frames}")
                if not frames:
                    raise BitstreamError("damaged bitstream: it holds no frame")
                source.end()
                return
            if tag != _PACKET:
                raise BitstreamError(f"damaged bitstream: unknown record 0x{tag:02x} at offset {source.position - 1}")
            count = source.varint("the packet's frames", MAX_PACKET_FRAMES)
            size = source.varint("the packet's size", 4 * largest * max(count, 1))
            (symbol_crc,) = struct.unpack("<I", source.take(4, "the packet"))
            checks = source.take(count, "the frame checks")
            flags = source.take(-(-count // 8), "the frame modes")
            flagged = (int.from_bytes(flags, "little") & ((1 << count) - 1)).bit_count()
            modes = flags + source.take(-(-flagged * len(self.header.levels) // 8), "the frame modes")
            payload = source.take(size, "the packet")
            source.crc(f"packet at frame {self.frames}")
            if not count:
                raise BitstreamError(f"damaged bitstream: empty packet at offset {source.position}")
            self.frames += count
            yield Packet(count, symbol_crc, checks, modes, payload)


@dataclass(frozen=True)
class BitstreamInfo:
    """What a bitstream says about itself."""

    version: int
    frames: int
    height: int
    width: int
    qp: int
    kind: str
    context: bool
    fingerprint: str
    fps: Fraction
    levels: tuple[tuple[int, int], ...]
    bytes: int
    header_bytes: int
    packets: tuple[tuple[int, int], ...] = field(repr=False)  # (frames, payload bytes)

    @property
    def bits_per_pixel(self) -> float:
        return 8 * self.bytes / (self.frames * self.height * self.width) if self.frames else 0.0


def inspect(source: bytes | BinaryIO) -> BitstreamInfo:
    """Header, sizes and checksums of a bitstream, without weights. Raises BitstreamError where it is damaged."""
    reader = Reader(source)
    packets = tuple((packet.frames, len(packet.payload)) for packet in reader.packets())
    h = reader.header
    return BitstreamInfo(
        VERSION, reader.frames, h.height, h.width, h.qp, h.kind, h.context, h.fingerprint.hex(), h.fps, h.levels,
        reader._source.position, reader.header_size, packets,
    )  # fmt: skip
