"""The parent's side of a decoder process: start it, talk to it, kill it, reuse it.

A process serves one file after another (start-up costs 0.15-0.3 s), is thrown away after a file that was not sound
(what a broken file did to a C library's heap must not reach the next file) and after MAX_FILES files. Several readers
at once, in threads or not, each lease a process of their own. After a fork (a DataLoader worker) the child starts with
none. POSIX only: descriptors are handed over by number.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from multiprocessing.connection import Connection
from typing import IO, Any

import numpy as np

from vidlbc.errors import VidlbcError
from vidlbc.video.worker import SLOTS

MAX_FILES = 256
MAX_IDLE = 4
START_S = 120.0
STOP_S = 5.0

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from vidlbc.video.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


class Gone(Exception):
    """The process crashed, was killed, or had to be killed at the deadline. The text says which."""


class DecoderProcess:
    """One decoder process and the memory it shares. `files` counts the requests it has served."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._ring = _shared_file()
        self._stderr = tempfile.TemporaryFile()
        self._path = _import_path()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(self._path), str(theirs.fileno()), str(self._ring)],
                pass_fds=(theirs.fileno(), self._ring),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,  # Ctrl-C is for the parent, which then closes the socket
            )
        self._connection = Connection(ours.detach())
        self._slots = np.empty(0, np.uint8)
        self._cleanup = weakref.finalize(
            self, _end, self._process, self._connection, self._ring, self._stderr, os.getpid()
        )
        self.files = 0
        try:
            self.receive(START_S)
        except Gone as error:
            raise VidlbcError(f"the video decoder process does not start: {error}") from error

    def usable(self) -> bool:
        """Fit for another file: few enough served, and imports what the caller would import."""
        return self.files < MAX_FILES and self._path == _import_path()

    def request(self, **message: Any) -> None:
        self.files += 1
        self._send({"op": "read", **message})

    def free(self, slot: int) -> None:
        self._send({"free": slot})

    def receive(self, deadline_s: float) -> dict[str, Any]:
        """The next message. Raises Gone on a crash, or after killing a process silent for deadline_s seconds."""
        try:
            if not self._connection.poll(deadline_s):
                self.kill()
                raise Gone(f"the decoder hung: no frame for {deadline_s:g} s, killed")
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise Gone(self._cause_of_death()) from error
        return message

    def map_ring(self, frames: int, height: int, width: int) -> None:
        memory = mmap.mmap(self._ring, SLOTS * frames * height * width * 3)
        self._slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, frames, height, width, 3)

    def slot(self, slot: int, count: int) -> np.ndarray:
        """A view (count, H, W, 3), valid until `free(slot)`."""
        return self._slots[slot, :count]

    def stop(self) -> bool:
        """Cuts the current file short; whether the process is fit for another one."""
        try:
            self._send({"stop": True})
            limit = time.monotonic() + STOP_S
            while time.monotonic() < limit:
                if self.receive(max(0.01, limit - time.monotonic()))["kind"] == "done":
                    return True
        except Gone:
            return False
        return False

    def kill(self) -> None:
        self._cleanup()

    def _send(self, message: dict[str, Any]) -> None:
        # a dead process is noticed, and explained, by the receive that follows
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(json.dumps(message).encode())

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = None
        words = self._last_words()
        self.kill()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            if code == -signal.SIGALRM:
                return "the decoder hung: its own alarm ended it"
            return f"the decoder crashed ({name})" if code != -signal.SIGKILL else f"the decoder was killed ({name})"
        return f"the decoder process ended with status {code}{words}"

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""


def _end(process: subprocess.Popen[bytes], connection: Connection, ring: int, stderr: IO[bytes], owner: int) -> None:
    connection.close()
    stderr.close()
    os.close(ring)
    if os.getpid() == owner:  # not after a fork: the process belongs to the original
        process.kill()
        process.wait()


def _import_path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path]


def _shared_file() -> int:
    """A nameless file in memory; in the temporary folder where the system has no memfd."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vidlbc-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_lock = threading.Lock()
_idle: list[DecoderProcess] = []


def lease() -> DecoderProcess:
    """An idle process, or a new one."""
    while True:
        with _lock:
            process = _idle.pop() if _idle else None
        if process is None:
            return DecoderProcess()
        if process.usable():
            return process
        process.kill()


def give_back(process: DecoderProcess, fit: bool) -> None:
    """Ends a lease; `fit` says that the last file was sound and read or stopped in good order."""
    if fit and process.usable():
        with _lock:
            if len(_idle) < MAX_IDLE:
                _idle.append(process)
                return
    process.kill()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for process in _idle:
        process.kill()  # closes the inherited descriptors only
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)
