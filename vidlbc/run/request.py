"""What a run was asked for, kept in its folder: the same command resumes it, another one is refused."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError
from vidlbc.run.atomic_files import dump_json, write_atomic


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder against a second run of the same command. The kernel frees the lock however a run dies."""
    with open(out / ".lock", "a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"out={out}: another run is at work here; wait for it or choose another out=") from None
        yield


def keep_request(path: Path, wanted: Mapping[str, Any], out: Path, write: bool) -> None:
    """Write `wanted` ({option: value}) where nothing is there yet; `out` is the folder that the user named.

    Raises InputError naming the first option that differs from what is there.
    """
    wanted = json.loads(json.dumps(wanted))
    if path.is_file():
        there = json.loads(path.read_text())
        for name in wanted:
            if there.get(name) != wanted[name]:
                told = f"{name}={there.get(name)}, this one has {name}={wanted[name]}".replace("=None", "=null")
                raise InputError(
                    f"out={out} holds a run with {told}: choose another out=, or give the old value to resume"
                )
    elif write:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, dump_json(wanted, indent=1))
