"""Decoded symbols kept in a folder, so that the priors run once a clip and not once an epoch.

    CACHE/ab/abcdef....symbols    named by the sha256 of what was decoded; LZ4 of a safetensors file, with a CRC-32

Any number of processes may share a folder. An entry that is missing or damaged is decoded again and written anew;
deleting the folder loses time and nothing else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidlbc.errors import InputError
from vidlbc.run.atomic_files import write_atomic

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_HEAD = struct.Struct("<4sI")  # magic, CRC-32 of all that follows
_SIZE = struct.Struct("<Q")  # uncompressed size; then LZ4
_MAGIC = b"vls1"
_MOST = 256  # bytes that one of LZ4 can stand for


class SymbolCache:
    """Lists of integer tensors, by name. Stored in the smallest of int8, int16 and int32 that holds a level."""

    def __init__(self, folder: str | Path) -> None:
        """Raises InputError where the folder cannot be made or written to."""
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cache={folder}: cannot write a cache there ({error.strerror})") from None

    def get(self, name: str) -> list[Tensor] | None:
        """int32 tensors, as they were put; None where there are none, or none that are whole."""
        import pyarrow as pa
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            data = self.path(name).read_bytes()
        except OSError:
            return None
        if len(data) < _HEAD.size + _SIZE.size:
            return None
        magic, crc = _HEAD.unpack_from(data)
        body = memoryview(data)[_HEAD.size :]
        if magic != _MAGIC or zlib.crc32(body) != crc:
            return None
        (size,) = _SIZE.unpack_from(body)
        if size > _MOST * len(body):
            return None
        try:
            levels = load(pa.decompress(body[_SIZE.size :], size, "lz4", asbytes=True))
            found = [levels[str(index)] for index in range(len(levels))]
        except (pa.ArrowException, SafetensorError, KeyError, ValueError, OSError):
            return None
        return [level.to(torch.int32) for level in found] if all(q.dtype in _kinds() for q in found) else None

    def put(self, name: str, levels: Sequence[Tensor]) -> None:
        """Whole or not at all. Raises ShardError where the disk is full."""
        import pyarrow as pa
        from safetensors.torch import save

        raw = save({str(index): _narrow(level).contiguous().cpu() for index, level in enumerate(levels)})
        body = _SIZE.pack(len(raw)) + pa.compress(raw, "lz4", asbytes=True)
        write_atomic(self.path(name), _HEAD.pack(_MAGIC, zlib.crc32(body)) + body)

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.symbols"


def _kinds() -> tuple[torch.dtype, ...]:
    import torch

    return torch.int8, torch.int16, torch.int32


def _narrow(level: Tensor) -> Tensor:
    import torch

    low, high = (int(bound) for bound in level.aminmax()) if level.numel() else (0, 0)
    for kind in (torch.int8, torch.int16):
        if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max:
            return level.to(kind)
    return level.to(torch.int32)
