"""Files that are written whole or not at all, and survive a power cut."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidlbc.errors import ShardError


def dump_json(value: Any, indent: int | None = None) -> bytes:
    """JSON whose bytes depend on the value alone."""
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> None:
    """fsync a finished temporary file, give it its name in one step, fsync the folder."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, final)
    sync_folder(final.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all. Raises ShardError when the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_as_error(path.parent):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o644)
            publish(Path(name), path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def full_disk_as_error(folder: Path) -> Iterator[None]:
    """Turn a full disk (or quota) into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ShardError(
            f"{folder}: the disk is full; finished shards are kept: free some space and run the same command again"
        ) from error
