"""A span of a bitstream as one of its own: whole packets, from the last place before it where a decoder may begin."""

from collections.abc import Sequence
from typing import NamedTuple

from vidlbc.codec.bitstream.container import Header, Packet, Reader, Stored, end_bytes, unpack_kinds
from vidlbc.errors import InputError

_KEY = 0  # of frames in a packet's kinds: vidlbc.codec.coding.moving.FrameKind


class Cut(NamedTuple):
    """A bitstream, and which frame of the whole its first one is."""

    data: bytes
    first: int

    def place(self, start: int, stop: int) -> slice:
        """Where frames [start, stop) of the whole are in it."""
        return slice(start - self.first, stop - self.first)


def check_span(span: tuple[int, int]) -> tuple[int, int]:
    """(start, stop). Raises InputError where they are no such numbers."""
    numbers = list(span) if isinstance(span, Sequence) and not isinstance(span, str) else [span]
    if len(numbers) != 2 or any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
        raise InputError(f"span={span!r}: expected two numbers of frames, (start, stop)")
    if not 0 <= numbers[0] < numbers[1]:
        what = f"frames {numbers[0]} to {numbers[1]}"
        raise InputError(f"{what}: expected two numbers of frames, 0 or more, the second one larger")
    return numbers[0], numbers[1]


def cut(source: Stored, start: int, stop: int, base: bool = False) -> Cut:
    """Frames [start, stop) of a bitstream, those before them that a decoder needs, and the rest of the last packet.

    A decoder begins at a key frame; where frames have no past, at any packet; else, as where an encoder set no key
    frame, at the first one. Not a byte behind the span is read, but of a stream with a base layer; `base`: of that the
    base alone, which decodes with `base=True`. Raises InputError for a span that is empty or not in the stream,
    BitstreamError for a damaged one.
    """
    start, stop = check_span((start, stop))
    reader = Reader(source)
    header, first, parts = reader.header, 0, [reader.header.to_bytes()]
    for number, _ in enumerate(header.sections):
        if base and number:
            break
        kept: list[Packet] = []
        done = 0
        for packet in reader.packets():
            if done <= start and _begins(packet, header):
                kept, first = [], done
            if done < stop:
                kept.append(packet)
            done += packet.frames
            if done >= stop and (base or not header.base):
                break
        if done < stop:
            raise InputError(f"frames {start} to {stop}: the bitstream holds {done}")
        parts += [packet.to_bytes() for packet in kept]
        parts.append(end_bytes(sum(packet.frames for packet in kept), header.version))
    return Cut(b"".join(parts), first)


def _begins(packet: Packet, header: Header) -> bool:
    """May a decoder that has nothing begin with this packet?"""
    if not header.moved:
        return not header.context or header.kind == "none"
    return unpack_kinds(packet, header)[0] == _KEY
