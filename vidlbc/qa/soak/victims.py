"""Processes of an encoding run, by what Linux tells of them in /proc."""

import time
from collections.abc import Iterable
from pathlib import Path

from vidlbc.errors import VidlbcError

_END_S = 60.0


def workers_of(pid: int) -> list[int]:
    """Encoding workers that process `pid` has spawned. Its video decoders are none: their death is a file's verdict."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        pids = [int(pid) for pid in _read(children).split()]
        found += [pid for pid in pids if b"spawn_main" in _read(Path(f"/proc/{pid}/cmdline"))]
    return sorted(found)


def wait_until_gone(pids: Iterable[int]) -> None:
    """Raises VidlbcError where one lives on."""
    until = time.monotonic() + _END_S
    for pid in pids:
        while _state(pid) not in ("", "Z"):
            if time.monotonic() > until:
                raise VidlbcError(f"process {pid}, a worker of a killed run, is still alive after {_END_S:.0f} s")
            time.sleep(0.005)


def _state(pid: int) -> str:
    """`R`, `S`, ..., `Z` of a process that has ended and was not waited for; empty for none."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].strip()[:1].decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
