"""What a shard's tar truly holds, byte by byte, whatever is wrong with it.

tar --> headers, bitstreams, rows, padding, end --> clips that can be trusted + faults with the byte where they lie

A tar of ours is a function of its clips, so every byte is known from them: one that differs is a fault. Behind a
damaged header the search goes on at the next one, so that one flip costs at most what it hit.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vidlbc.shards.table import ClipRow, row_fault
from vidlbc.shards.writer import clip_json, member

_BLOCK = tarfile.BLOCKSIZE
_NAME = re.compile(r"([0-9a-f]{32})\.(vlbc|json|cls)")
_MOST_JSON = 1 << 20  # bytes; a row has some 1000


@dataclass(frozen=True)
class Clip:
    """One clip of a tar: its row (KEY.json), and where its bitstream lies. `sound`: its sha256 is the row's."""

    row: ClipRow
    offset: int
    sound: bool


@dataclass
class Scan:
    """`clips` in the order of the tar; `faults` are (key of the clip or None, what is wrong)."""

    clips: list[Clip] = field(default_factory=list)
    faults: list[tuple[str | None, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Member:
    key: str
    suffix: str
    offset: int
    size: int


def scan_tar(path: Path) -> Scan:
    """Read a tar from end to end. Raises OSError where the file cannot be opened or read; damage is in the result."""
    scan = Scan()
    waiting: dict[str, int] = {}  # bitstreams whose row has not come yet: where they lie
    unlabelled: dict[str, int] = {}  # rows whose label has not come yet
    with open(path, "rb") as file:
        for found in _members(file, path.stat().st_size, scan):
            if found.suffix == "vlbc":
                waiting[found.key] = found.offset
            elif found.suffix == "json":
                row = _row(file, found, scan)
                if row is None:
                    continue
                offset = waiting.pop(found.key, None)
                if offset is None:  # the header before it is damaged; the bitstream ends where this one begins
                    offset = found.offset - _BLOCK - _padded(row["bytes"])
                scan.clips.append(Clip(row, offset, is_sound(file, row, offset)))
                if row["label"] is not None:
                    unlabelled[found.key] = row["label"]
            elif _read(file, found) != str(unlabelled.pop(found.key, -1)).encode():
                scan.faults.append((found.key, "its label (KEY.cls) is not that of its row"))
    scan.faults += [(clip.row["key"], "its sha256 is not the one recorded") for clip in scan.clips if not clip.sound]
    scan.faults += [(key, "its row (KEY.json) is missing or damaged") for key in waiting]
    scan.faults += [(key, "its label (KEY.cls) is missing") for key in unlabelled]
    return scan


def _members(file: BinaryIO, length: int, scan: Scan) -> Iterator[_Member]:
    """Every member with a sound header; what lies between them, and behind the last, is checked."""
    at, lost = 0, False
    while at + _BLOCK <= length:
        file.seek(at)
        header = file.read(_BLOCK)
        found = _parse(header, at)
        if found is None and not header.strip(b"\0"):
            if lost:  # zeros inside of what was lost, or the end: only the last bytes are the end
                rest = file.read(2 * _BLOCK)
                if rest.strip(b"\0") or at + len(rest) + _BLOCK < length:
                    at += _BLOCK
                    continue
            _check_end(file, at, length, scan)
            return
        if found is None:
            if not lost:
                scan.faults.append((None, f"damaged tar header at byte {at}"))
            lost, at = True, at + _BLOCK
            continue
        lost = False
        end = found.offset + _padded(found.size)
        if end > length:
            scan.faults.append((found.key, f"KEY.{found.suffix} is cut off: the tar ends at byte {length} of {end}"))
            return
        yield found
        file.seek(found.offset + found.size)
        if file.read(end - found.offset - found.size).strip(b"\0"):
            scan.faults.append((found.key, f"damaged padding behind KEY.{found.suffix}"))
        at = end
    scan.faults.append((None, f"the tar has no end: cut off at byte {length}"))


def _parse(header: bytes, at: int) -> _Member | None:
    """The member of a header as `vidlbc.shards.writer` makes it, or None for any other bytes."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    match = _NAME.fullmatch(info.name)
    if match is None or info.size < 0 or header != member(info.name, info.size).tobuf(tarfile.USTAR_FORMAT):
        return None
    return _Member(match[1], match[2], at + _BLOCK, info.size)


def _check_end(file: BinaryIO, at: int, length: int, scan: Scan) -> None:
    end = -(-(at + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if length != end:
        scan.faults.append((None, f"the tar has {length} bytes, {end} were written"))
    file.seek(at)
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            scan.faults.append((None, f"bytes behind the tar's end, at {at}"))
            return


def _row(file: BinaryIO, found: _Member, scan: Scan) -> ClipRow | None:
    """The row that KEY.json holds; None, and a fault, where it is not one that we wrote."""
    data = _read(file, found)
    try:
        row = json.loads(data)
        reason = row_fault(row)
        if not reason and row["key"] != found.key:
            reason = f"names another key, {row['key']}"
        if not reason and clip_json(row) != data:
            reason = "damaged"
    except (ValueError, RecursionError):
        reason = "not JSON"
    if reason:
        scan.faults.append((found.key, f"its row (KEY.json) cannot be used: {reason}"))
    return None if reason else row


def _read(file: BinaryIO, found: _Member) -> bytes:
    file.seek(found.offset)
    return file.read(min(found.size, _MOST_JSON))


def is_sound(file: BinaryIO, row: Mapping[str, Any], offset: int) -> bool:
    """Are the bytes at `offset` of an open tar those whose sha256 the row tells?"""
    good = _digest_at(file, offset, row["bytes"]) == row["sha256"]
    if row.get("base_bytes") is not None:
        good = good and _digest_at(file, offset, row["base_bytes"]) == row["base_sha256"]
    return good


def _digest_at(file: BinaryIO, offset: int, size: int) -> str | None:
    """sha256 (hex) of `size` bytes from `offset` on, in constant memory; None where the file has fewer."""
    if offset < 0:
        return None
    file.seek(offset)
    digest = hashlib.sha256()
    while size:
        chunk = file.read(min(size, 1 << 20))
        if not chunk:
            return None
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
