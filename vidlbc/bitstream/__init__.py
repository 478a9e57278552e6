"""The container format of one clip. See `vidlbc.bitstream.container` and docs/bitstream.md."""

from vidlbc.bitstream.container import BitstreamInfo, Header, Packet, Reader, end_bytes, inspect

__all__ = ["BitstreamInfo", "Header", "Packet", "Reader", "end_bytes", "inspect"]
