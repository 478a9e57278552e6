"""A step's process: in a session of its own, ended with everything that it started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0
_POLL_S = 0.25
_MARK = "VIDLBC_OFFLINE_ROOT"  # in the environment of a step, and so of what it starts


def start(command: Sequence[str], root: Path, log: Path) -> subprocess.Popen[bytes]:
    """Of the project's code in `root`, in which it is marked as a step."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as sink:
        return subprocess.Popen(
            command,
            cwd=root / "code",
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", _MARK: str(root)},
        )


def wait(process: subprocess.Popen[bytes], end: float, over: Callable[[], bool]) -> int | None:
    """The exit status; None where it was stopped, at `end` (epoch seconds) or because `over()`."""
    while process.poll() is None:
        if time.time() >= end or over():
            stop(process.pid)
            process.wait()
            return None
        time.sleep(_POLL_S)
    return process.returncode


def stop(pid: int) -> None:
    """The process group of `pid`, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        waited = time.monotonic() + GRACE_S
        while time.monotonic() < waited and _lives(pid):
            time.sleep(0.05)
        # What it started may outlive it: the group gets both signals.


def _lives(pid: int) -> bool:
    try:
        # A child that has ended and was not waited for is no longer at work.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def stop_left(root: Path) -> None:
    """End every step of `root`, and what it started: a killed runner leaves them at work, perhaps unrecorded."""
    wanted = f"{_MARK}={root}".encode()
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = wanted in place.read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is somebody else's
        if marked and int(place.parent.name) != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(int(place.parent.name), signal.SIGKILL)
