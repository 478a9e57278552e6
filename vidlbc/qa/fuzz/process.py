"""A worker process as its parent sees it: asked by number, killed where it does not answer, begun anew."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from vidlbc.errors import VidlbcError
from vidlbc.qa.fuzz.worker import Outcome

_START = 600.0  # seconds until the valid inputs are read; no deadline, but an end
_TICK = 0.25


class Limits(Protocol):
    """Of `FuzzSettings`. `hang`: seconds by the clock after which a process that rests is killed."""

    @property
    def seed(self) -> int: ...
    @property
    def headroom(self) -> int: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def hang(self) -> float: ...
    @property
    def max_pixels(self) -> int: ...


class Worker:
    """`run(number)` -> Outcome, whatever becomes of the process. `valid`: what valid inputs take at most."""

    def __init__(self, corpus: Path, limits: Limits, command: Sequence[str] | None = None):
        """`command`: another than `python -m vidlbc.qa.fuzz.worker ...`. Raises VidlbcError where valid input fails."""
        arguments = [corpus, limits.seed, limits.headroom, ",".join(limits.targets), limits.max_pixels]
        self._command = list(command or [sys.executable, "-m", "vidlbc.qa.fuzz.worker", *map(str, arguments)])
        self._limits = limits
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.valid = self._start()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._errors.close()

    def run(self, number: int) -> Outcome:
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(f"{number}\n".encode())
            self._process.stdin.flush()
            answer = self._answer(self._limits.hang, 2 * max(self._limits.seconds, self.valid.seconds))
        except (BrokenPipeError, _Died):
            return self._lost(number, "crash", self._death())
        except TimeoutError as error:
            return self._lost(number, "slow", str(error))
        return answer

    def _start(self) -> Outcome:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        try:
            valid = self._answer(_START, _START)
        except (_Died, TimeoutError):
            raise VidlbcError(f"fuzz: a worker process did not start: {self._death()}") from None
        if valid.verdict != "decoded":
            self._stop()
            reason = (valid.text.strip().splitlines() or ["no reason"])[-1]
            raise VidlbcError(f"fuzz: reading valid input ended in {valid.verdict}: {reason}")
        return valid

    def _answer(self, clock: float, processor: float) -> Outcome:
        """The next line. Raises _Died; TimeoutError after `clock` seconds, or `processor` seconds of its own."""
        assert self._process is not None and self._process.stdout is not None
        began, used = time.monotonic(), _used(self._process.pid)
        while not select.select([self._process.stdout], [], [], _TICK)[0]:
            taken, passed = _used(self._process.pid) - used, time.monotonic() - began
            if taken > processor or passed > clock:
                raise TimeoutError(f"killed after {taken:.1f} s of the processor, {passed:.1f} s by the clock")
        line = self._process.stdout.readline()
        if not line:
            raise _Died
        fields: dict[str, Any] = json.loads(line)
        return Outcome(**fields)

    def _lost(self, number: int, verdict: str, text: str) -> Outcome:
        self._stop()
        return Outcome(number, "", verdict, text, 0.0, 0)

    def _death(self) -> str:
        """How the process ended, and what it said last."""
        assert self._process is not None
        status = self._process.wait()
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
        return f"exit status {status}: {self._errors.read().decode(errors='replace').strip()}"

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


class _Died(Exception):
    """The process ended."""


def _used(pid: int) -> float:
    """Seconds of the processor that a process has had; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
