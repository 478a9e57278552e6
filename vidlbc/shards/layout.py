"""Files of a shard folder, and who may write there.

    OUT/00000.tar  00000.parquet  00000_stats.json      one shard; the stats come last and say that it is done
    OUT/manifest/  plan.json labels.json manifest.parquet summary.txt runs.jsonl
    OUT/.00000.tmp/                                     work in progress, removed when stale

Only shards lie at the top, so `OUT/*.tar` and `OUT/*.parquet` are what other tools expect.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, ShardError
from vidlbc.run.atomic_files import full_disk_as_error

MANIFEST = "manifest"


@dataclass(frozen=True)
class ShardFiles:
    """The three files of shard `index` in `folder`."""

    folder: Path
    index: int

    @property
    def stem(self) -> str:
        return f"{self.index:05d}"

    @property
    def tar(self) -> Path:
        return self.folder / f"{self.stem}.tar"

    @property
    def parquet(self) -> Path:
        return self.folder / f"{self.stem}.parquet"

    @property
    def stats(self) -> Path:
        return self.folder / f"{self.stem}_stats.json"

    @property
    def work(self) -> Path:
        return self.folder / f".{self.stem}.tmp"


def read_stats(files: ShardFiles) -> dict[str, Any] | None:
    """The stats of a finished shard, or None: absent, or tar and parquet are not the size that the stats say."""
    try:
        stats = json.loads(files.stats.read_text(encoding="utf-8"))
        sizes = (files.tar.stat().st_size, files.parquet.stat().st_size)
    except (FileNotFoundError, ValueError, RecursionError):  # no JSON, no text, numbers of any length, any depth
        return None
    whole = isinstance(stats, dict) and sizes == (stats.get("tar_bytes"), stats.get("parquet_bytes"))
    return stats if whole else None


@contextmanager
def workspace(files: ShardFiles) -> Iterator[Path]:
    """A folder next to the shard for what is not finished, removed at the end whatever happens.

    It is this process's alone: one that works on the same shard is waited for, and what a killed one left is removed.
    Raises ShardError, in one line, when the disk fills up: nothing that was finished is touched.
    """
    with full_disk_as_error(files.folder), _shard_lock(files):
        shutil.rmtree(files.work, ignore_errors=True)
        files.work.mkdir()
        try:
            yield files.work
        finally:
            shutil.rmtree(files.work, ignore_errors=True)


@contextmanager
def _shard_lock(files: ShardFiles) -> Iterator[None]:
    """Byte `index` of one file, as a POSIX record lock: millions of shards need no file each, and NFS has them too."""
    (files.folder / MANIFEST).mkdir(parents=True, exist_ok=True)
    with open(files.folder / MANIFEST / ".shards.lock", "a+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, files.index)
        yield


def clean_stale(folder: Path) -> set[int]:
    """Remove what killed runs left behind; returns the shards that they had begun.

    Only under `exclusive`: it would pull live work away.
    """
    stale = [*folder.glob(".*.tmp"), *(folder / MANIFEST).glob(".*.tmp")]
    for path in stale:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    numbers = (path.name[1 : -len(".tmp")] for path in stale if path.parent == folder)
    return {int(number) for number in numbers if number.isdecimal()}


def exclusive(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder against every other run. The kernel frees the lock when a run dies, however it dies."""
    return _held(folder, fcntl.LOCK_EX)


def shared(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder together with other tasks of one array: against `exclusive`, and so against `clean_stale`."""
    return _held(folder, fcntl.LOCK_SH)


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[None]:
    try:
        (folder / MANIFEST).mkdir(parents=True, exist_ok=True)
        lock = open(folder / MANIFEST / ".lock", "a+b")  # noqa: SIM115  # closed below, after the lock's use
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: expected a folder for shards, found a file") from None
    except PermissionError:
        raise InputError(f"{folder}: no permission to write shards here") from None
    with lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardError(f"{folder}: another run is writing here; wait for it or choose another folder") from None
        yield
