"""The index at the end of an AVI file: it tells a file that was cut from one whose header miscounts.

Its entries of no bytes stand for frames that a recorder dropped: the picture before them stays on the screen.

This module is imported by every decoder process: it stays free of anything but the standard library.
"""

from __future__ import annotations

import os
import struct

_ENTRY = struct.Struct("<4sIII")  # chunk id, flags, offset, length


def empty_chunks(path: str, stream: int) -> int | None:
    """How many chunks of a stream (its number in the file) hold nothing; None where the file has no whole index.

    Only the index of AVI 1.0 ("idx1") is read: OpenDML keeps it for the first gigabyte.
    """
    number = f"{stream:02d}".encode()
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return None
        at = 12
        while at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"idx1":
                entries = file.read(length - length % _ENTRY.size)
                if len(entries) < length - length % _ENTRY.size:
                    return None
                return sum(chunk[:2] == number and count == 0 for chunk, _, _, count in _ENTRY.iter_unpack(entries))
            at += 8 + length + length % 2
    return None
