"""The bytes of one clip, format versions 2 to 6. `docs/bitstream.md` is the specification; this module implements it.

    header | packet | packet | ... | end                                              one section
    header | base packet | ... | end | enhancement packet | ... | end                 two: the base stands alone

The lowest version that can say it is written. Version 3: a variant keeps only the first channels of its levels, or the
coarse levels form a base layer whose bytes come before all others. Version 4: symbols that are all but certain are left
out. Version 5: frames have vectors, and are predicted from moved pictures. Version 6: some of their blocks are copied,
some frames repeat the one before, and each may have a QP of its own and a brightness. Varints are LEB128. A packet
holds up to 16 frames in one range-coder run, so that the coder's flush and the checksums cost about two bytes a frame.
Nothing here needs weights.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from vidlbc.errors import RETIRED, BitstreamError, InputError

MAGIC = b"VLBC"
COPIED_VERSION, MOVED_VERSION, VERSION, LAYERED_VERSION, PLAIN_VERSION = 6, 5, 4, 3, 2
MAX_QP = 63
MAX_SKIP = 89  # more than the largest scale index
MAX_SIDE = 1 << 16
MAX_RATE = 1 << 32  # of the frame rate's numerator and denominator
MAX_PACKET_FRAMES = 255
_PACKET, _END = 0x50, 0x45
_BRIGHT, _BRIGHTNESS = 0x80, 6  # of the byte of a frame's own QP: a brightness follows, so many bytes
_MAX_UNIT = 64  # of the reserved field: frames that temporal=chunk coded as one; 1 for every other kind
# Of an escape entry with the least count (24 bits), and its 16 plain bits.
_MAX_SYMBOL_BYTES = 5
_READ = 1 << 20


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
    kept: tuple[int, ...] = ()  # channels coded of each level, the first ones; () is all of them
    base: int = 0  # how many of the coarsest levels form the base layer; 0: no layers
    skip: int = 0  # symbols whose scale index is below it are not coded: they are the rounded mean
    moved: bool = False  # frames are predicted from moved pictures: packets tell the kind of each, no levels' priors
    copies: bool = False  # of these, blocks may be copied, and packets tell the QP of each frame

    @property
    def coded(self) -> tuple[int, ...]:
        """Channels coded of each level, fine to coarse."""
        return self.kept or tuple(channels for _, channels in self.levels)

    @property
    def sections(self) -> tuple[range, ...]:
        """Levels of each section of packets, in the order of the bytes."""
        count = len(self.levels)
        cut = count - self.base
        return (range(cut, count), range(cut)) if self.base else (range(count),)

    @property
    def version(self) -> int:
        if self.moved:
            return COPIED_VERSION if self.copies else MOVED_VERSION
        if self.skip:
            return VERSION
        truncated = self.coded != tuple(channels for _, channels in self.levels)
        return LAYERED_VERSION if truncated or self.base else PLAIN_VERSION

    def to_bytes(self) -> bytes:
        kind = self.kind.encode()
        body = MAGIC + struct.pack("<BBB", self.version, int(self.context), self.qp)
        body += varint(self.height) + varint(self.width) + varint(self.fps.numerator) + varint(self.fps.denominator)
        body += self.fingerprint + varint(len(kind)) + kind + varint(len(self.levels))
        for stride, channels in self.levels:
            body += varint(stride) + varint(channels)
        if self.version >= LAYERED_VERSION:
            body += b"".join(map(varint, self.coded)) + varint(self.base)
        if self.version >= VERSION:
            body += varint(1) + varint(self.skip)
        return body + struct.pack("<I", zlib.crc32(body))


@dataclass(frozen=True)
class Packet:
    """Some frames' symbols: `checks` has a byte a frame, `symbol_crc` covers all of them, `payload` is range-coded.

    `modes`: see `pack_modes`, in version 5 `pack_kinds`, from version 6 on `pack_kinds` and `pack_qps` after it.
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


def pack_kinds(kinds: Sequence[int]) -> bytes:
    """What each frame is, 0 to 3 (vidlbc.codec.coding.moving.FrameKind): two bits a frame, the first one's lowest."""
    bits = sum(kind << 2 * t for t, kind in enumerate(kinds))
    return bits.to_bytes(-(-len(kinds) // 4), "little")


def pack_qps(qps: Sequence[int], qp: int, brightness: Sequence[bytes | None] = ()) -> bytes:
    """What frames have of their own: first a bit a frame, whether its QP is another than the header's `qp` or it has a
    brightness, lowest bits first, in whole bytes; then for each such frame a byte with its QP, and where that byte's
    highest bit is set the six of its brightness (vidlbc.codec.motion.brightness)."""
    every = brightness or [None] * len(qps)
    own = [(t, q, light) for t, (q, light) in enumerate(zip(qps, every, strict=True)) if q != qp or light is not None]
    flags = sum(1 << t for t, _, _ in own)
    parts = [bytes([q]) if light is None else bytes([q | _BRIGHT]) + light for _, q, light in own]
    return flags.to_bytes(-(-len(qps) // 8), "little") + b"".join(parts)


def unpack_kinds(packet: Packet, header: Header) -> list[int]:
    """The kinds of `pack_kinds`. Raises BitstreamError where one is none."""
    bits = int.from_bytes(packet.modes[: -(-packet.frames // 4)], "little")
    kinds = [bits >> 2 * t & 3 for t in range(packet.frames)]
    if 3 in kinds and not header.copies:
        raise BitstreamError("damaged bitstream: a frame is of no known kind")
    return kinds


def unpack_qps(packet: Packet, header: Header) -> list[int]:
    """The QPs of `pack_qps`, or as many of the header's. Raises BitstreamError where one is none."""
    qps = [qp for qp, _ in _own(packet, header)]
    if max(qps) > MAX_QP:
        raise BitstreamError(f"damaged bitstream: a frame's QP is over {MAX_QP}")
    return qps


def unpack_brightness(packet: Packet, header: Header) -> list[bytes | None]:
    """The brightness of `pack_qps`, None of frames that have none."""
    return [light for _, light in _own(packet, header)]


def _own(packet: Packet, header: Header) -> Iterator[tuple[int, bytes | None]]:
    """QP and brightness of each frame."""
    count = packet.frames
    rest = io.BytesIO(packet.modes[-(-count // 4) :] if header.copies else bytes(count))
    flags = int.from_bytes(rest.read(-(-count // 8)), "little")
    for t in range(count):
        if flags >> t & 1:
            (byte,) = rest.read(1)
            yield byte & ~_BRIGHT, rest.read(_BRIGHTNESS) if byte & _BRIGHT else None
        else:
            yield header.qp, None


def end_bytes(frames: int, version: int = PLAIN_VERSION) -> bytes:
    """`frames`: coded in all packets; from version 4 on the number is there twice."""
    body = varint(frames) * (2 if version >= VERSION else 1)
    return bytes([_END]) + body + struct.pack("<I", zlib.crc32(body))


def varint(value: int) -> bytes:
    """LEB128 of a non-negative integer."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


# Where a bitstream may lie: in memory, in a file that is open or named; arrays of bytes are taken too.
Stored = bytes | BinaryIO | str | os.PathLike[str]


def binary_file(source: Any) -> BinaryIO:
    """What is stored, to be read. Raises InputError where it is neither bytes, nor a file, nor the path of one."""
    if isinstance(source, str | os.PathLike):
        try:
            return io.BytesIO(Path(source).read_bytes())
        except OSError as error:
            raise InputError(f"{str(source)[:200]}: no bitstream can be read ({error.strerror})") from None
        except ValueError as error:
            raise InputError(f"{str(source)[:40]!r}: is no path ({error})") from None
    if hasattr(source, "read"):
        return cast(BinaryIO, source)
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    array = np.asarray(source)
    if array.dtype != np.uint8 or array.ndim != 1:
        found = type(source).__name__ if array.dtype.kind in "OSU" else f"{array.dtype} {array.shape}"
        raise InputError(f"a bitstream is {found}: expected bytes, a path, or a file open for reading bytes")
    return io.BytesIO(array.tobytes())


class _Source:
    """A binary file that remembers what was read since `mark`, and where it is."""

    def __init__(self, source: Stored):
        self._file = binary_file(source)
        self.position = 0
        self.seen = bytearray()

    def take(self, size: int, what: str) -> bytes:
        # A file reserves what it is asked for: a size that was read from it is believed as far as there are bytes.
        data = self._file.read(min(size, _READ))
        while len(data) < size and (more := self._file.read(min(size - len(data), max(_READ, len(data))))):
            data += more
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
    """Reads a header, then packets section by section, from bytes or a binary file; holds one packet at a time."""

    def __init__(self, source: Stored):
        """Raises BitstreamError where the header is not one, InputError where the source is none."""
        self._source = _Source(source)
        self.header = self._header()
        self.header_size = self._source.position
        self.frames = 0  # of the section that was read to its end
        self.qps: list[int] = []  # of the frames of the section that is read, packet by packet
        self._sections = list(self.header.sections)

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._source.position

    def _header(self) -> Header:
        source = self._source
        magic = source.take(4, "the magic number")
        if magic != MAGIC:
            raise BitstreamError(f"not a vidlbc bitstream: starts with {magic!r}, expected {MAGIC!r}")
        version, flags, qp = struct.unpack("<BBB", source.take(3, "the header"))
        if not PLAIN_VERSION <= version <= COPIED_VERSION:
            raise BitstreamError(
                f"bitstream format version {version} is unknown: this vidlbc reads {PLAIN_VERSION} to {COPIED_VERSION}"
            )
        height, width = source.varint("the height", MAX_SIDE), source.varint("the width", MAX_SIDE)
        numerator, denominator = (source.varint("the frame rate", MAX_RATE) for _ in range(2))
        fingerprint = source.take(16, "the fingerprint")
        kind = source.take(source.varint("the kind's length", 32), "the kind")
        count = source.varint("the number of levels", 16)
        levels = tuple((source.varint("a stride", 1024), source.varint("channels", 4096)) for _ in range(count))
        kept: tuple[int, ...] = ()
        base, unit, skip = 0, 1, 0
        if version >= LAYERED_VERSION:
            kept = tuple(source.varint("the channels kept", channels) for _, channels in levels)
            base = source.varint("the levels of the base", max(count - 1, 0))
        if version >= VERSION:
            unit, skip = source.varint("the frames of a unit", _MAX_UNIT), source.varint("the scales skipped", MAX_SKIP)
        source.crc("the header")
        numbers = [height, width, denominator, unit, *(stride for stride, _ in levels)]
        if not all(numbers) or not levels or qp > MAX_QP or not (kind.isascii() and kind.decode().isprintable()):
            raise BitstreamError("damaged bitstream: the header holds impossible values")
        if kind == b"chunk" or unit > 1:
            raise BitstreamError(f"bitstream was written with {RETIRED}")
        rate = Fraction(numerator, denominator)
        context = bool(flags & 1)
        moved, copies = version >= MOVED_VERSION, version >= COPIED_VERSION
        if moved and (base or skip) or copies and not context:
            raise BitstreamError("damaged bitstream: the header holds impossible values")
        return Header(
            height, width, qp, fingerprint, kind.decode(), levels, rate, context, kept, base, skip, moved, copies
        )

    def packets(self) -> Iterator[Packet]:
        """The packets of the next section in order: a stream with a base layer has two, the base first.

        Not a byte behind the section is read, but for the last one. Raises BitstreamError where a packet is damaged, or
        an end record is missing or wrong.
        """
        levels = self._sections.pop(0)
        frames = 0
        self.qps.clear()  # every section has those of all frames
        # A frame cannot need more bytes a symbol; the bound is checked before memory is reserved.
        cells = [-(-self.header.height // s) * -(-self.header.width // s) * c for s, c in self.header.levels]
        if self.header.moved:
            # Of every block of 8x8 two flags and two differences, and as many and two flags of every block of 16x16.
            cells.append(-(-self.header.height // 8) * -(-self.header.width // 8) * 6)
        largest = _MAX_SYMBOL_BYTES * (sum(cells) + 65536)
        while True:
            source = self._source
            tag = source.take(1, "the next packet or the end record")[0]
            source.mark()
            if tag == _END:
                self._end(frames)
                return
            if tag != _PACKET:
                raise BitstreamError(f"damaged bitstream: unknown record 0x{tag:02x} at offset {source.position - 1}")
            count = source.varint("the packet's frames", MAX_PACKET_FRAMES)
            size = source.varint("the packet's size", largest * max(count, 1))
            (symbol_crc,) = struct.unpack("<I", source.take(4, "the packet"))
            checks = source.take(count, "the frame checks")
            modes = self._modes(count, len(levels))
            payload = source.take(size, "the packet")
            source.crc(f"packet at frame {frames}")
            if not count:
                raise BitstreamError(f"damaged bitstream: empty packet at offset {source.position}")
            frames += count
            packet = Packet(count, symbol_crc, checks, modes, payload)
            self.qps += unpack_qps(packet, self.header)
            yield packet

    def _modes(self, frames: int, levels: int) -> bytes:
        if self.header.moved:
            kinds = self._source.take(-(-frames // 4), "the kinds of frames")
            if not self.header.copies:
                return kinds
            own = flags = self._source.take(-(-frames // 8), "the QPs of frames")
            for _ in range((int.from_bytes(flags, "little") & ((1 << frames) - 1)).bit_count()):
                own += (byte := self._source.take(1, "the QPs of frames"))
                if byte[0] & _BRIGHT:
                    own += self._source.take(_BRIGHTNESS, "the brightness of frames")
            return kinds + own
        flags = self._source.take(-(-frames // 8), "the frame modes")
        flagged = (int.from_bytes(flags, "little") & ((1 << frames) - 1)).bit_count()
        return flags + self._source.take(-(-flagged * levels // 8), "the frame modes")

    def _end(self, frames: int) -> None:
        """The rest of the end record of a section of so many frames."""
        promised, count = self.frames, 2 if self.header.version >= VERSION else 1
        told = [self._source.varint("the number of frames", 1 << 40) for _ in range(count)]
        self._source.crc("the end record")
        for number in told:
            if number != frames:
                raise BitstreamError(f"damaged bitstream: {frames} frames found, the end record says {number}")
        if not frames:
            raise BitstreamError("damaged bitstream: it holds no frame")
        if promised not in (0, frames):
            raise BitstreamError(f"damaged bitstream: {promised} frames in the base, {frames} in the enhancement")
        self.frames = frames
        if not self._sections:
            self._source.end()
