"""The container format of one clip. See `vidlbc.codec.bitstream.container` and docs/bitstream.md."""

from vidlbc.codec.bitstream.container import (
    MAX_RATE,
    MAX_SIDE,
    Header,
    Packet,
    Reader,
    Stored,
    end_bytes,
    pack_kinds,
    pack_modes,
    pack_qps,
    unpack_brightness,
    unpack_kinds,
    unpack_modes,
    unpack_qps,
)
from vidlbc.codec.bitstream.cut import Cut, check_span, cut
from vidlbc.codec.bitstream.info import BitstreamInfo, inspect

__all__ = [
    "MAX_RATE",
    "MAX_SIDE",
    "BitstreamInfo",
    "Cut",
    "Header",
    "Packet",
    "Reader",
    "Stored",
    "check_span",
    "cut",
    "end_bytes",
    "inspect",
    "pack_kinds",
    "pack_modes",
    "pack_qps",
    "unpack_brightness",
    "unpack_kinds",
    "unpack_modes",
    "unpack_qps",
]
