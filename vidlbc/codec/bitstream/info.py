"""What a bitstream says about itself, read without weights."""

from dataclasses import dataclass, field
from fractions import Fraction

from vidlbc.codec.bitstream.container import Reader, Stored


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
    kept: tuple[int, ...]  # channels coded of each level, fine to coarse
    base_levels: int  # the coarsest levels that form the base layer; 0: no layers
    skip: int  # symbols whose scale index is below it are not coded
    bytes: int
    base_bytes: int | None  # what a reader of the base needs, from the start; None without layers
    header_bytes: int
    packets: tuple[tuple[int, int], ...] = field(repr=False)  # (frames, payload bytes), the base's first
    qps: tuple[int, ...] = field(repr=False)  # of each frame
    copies: bool  # whether blocks may be copied: what frames show is then what they are predicted from

    @property
    def bits_per_pixel(self) -> float:
        return 8 * self.bytes / (self.frames * self.height * self.width) if self.frames else 0.0


def inspect(source: Stored) -> BitstreamInfo:
    """Header, sizes and checksums of a bitstream, without weights. Raises BitstreamError where it is damaged."""
    reader = Reader(source)
    h = reader.header
    packets: list[tuple[int, int]] = []
    ends = []
    for _ in h.sections:
        packets += [(packet.frames, len(packet.payload)) for packet in reader.packets()]
        ends.append(reader.position)
    return BitstreamInfo(
        h.version,
        reader.frames,
        h.height,
        h.width,
        h.qp,
        h.kind,
        h.context,
        h.fingerprint.hex(),
        h.fps,
        h.levels,
        h.coded,
        h.base,
        h.skip,
        ends[-1],
        ends[0] if h.base else None,
        reader.header_size,
        tuple(packets),
        tuple(reader.qps),
        h.copies,
    )
