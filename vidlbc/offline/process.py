"""A step's process: in a session of its own, ended with everything that it started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

GRACE_S = 5.0
_POLL_S = 0.25


def start(command: Sequence[str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as sink:
        return subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip


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


def started_at(pid: int) -> str:
    """Tells a process from a later one of the same number: its start in clock ticks since boot; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def stop_left(pid: int, started: str) -> None:
    """End what a killed runner left running, if it is still that process."""
    if pid and started and started_at(pid) == started:
        stop(pid)
