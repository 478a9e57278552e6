"""The decoder process: answers requests over a socket, puts frames into memory shared with its parent.

Started by `process.py` as a plain `python -c`, so neither the caller's `__main__` nor torch is imported here (numpy
and the one back end in use are; measured 0.15 s from start to the first frame). Every message is JSON; no pickle.

    parent  -- {"op": "read", ...} -->  worker
    parent  <-- opened, info, ring, (block, tick)*, done --  worker        {"free": slot} / {"stop": true} go back

Two guards against a decoder that never returns, perhaps holding the interpreter lock: the parent kills a silent
worker at its deadline; and the worker sets an alarm whose default action kills it, so that one outliving its parent
does not spin for ever.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vidlbc.video.backends import first_line, open_backend
from vidlbc.video.contract import Backend, Damage, Missing, Picture, Unreadable
from vidlbc.video.rates import off_a_constant_rate

SLOTS = 3  # one being filled, one in flight, one being read
SLOT_BYTES = 24 << 20  # frames of at most this many bytes travel together; a larger frame travels alone
MAX_FRAME_BYTES = 1 << 30
TICK_S = 0.5
ALARM_MARGIN_S = 5.0


class Stopped(Exception):
    """The parent has lost interest, or is gone."""


class Ring:
    """SLOTS slots of `frames` frames (h, w, 3) in a shared memory file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._slots = np.empty(0, np.uint8)

    def shape(self, frames: int, height: int, width: int) -> None:
        size = SLOTS * frames * height * width * 3
        os.ftruncate(self._descriptor, size)
        memory = mmap.mmap(self._descriptor, size)
        self._slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, frames, height, width, 3)

    def put(self, slot: int, position: int, frame: np.ndarray) -> None:
        self._slots[slot, position] = frame


class Session:
    """One request: one file, one back end."""

    def __init__(self, connection: Connection, ring: Ring, request: dict[str, Any]) -> None:
        self._connection = connection
        self._ring = ring
        self._request = request
        self._free = list(range(SLOTS))
        self._slot_frames = 0
        self._filled = 0
        self._seconds: list[float | None] = []
        self._times: list[float | None] = []  # of all frames
        self._spoke = time.monotonic()
        self._good = 0  # frames decoded cleanly, from frame 0 on
        self._began = time.process_time()

    def run(self) -> None:
        status, reason, settled = "ok", "", True
        backend: Backend | None = None
        try:
            self._alive()
            backend = open_backend(self._request["backend"], self._request["path"])
            self._send(kind="opened", name=backend.name, version=backend.version)
            if self._request["deinterlace"]:
                if not hasattr(backend, "deinterlace"):
                    raise Missing(f"deinterlace=true: back end {backend.name} cannot, pyav can")
                backend.deinterlace = True
            if hasattr(backend, "picture_fps"):
                backend.picture_fps = self._request["picture_fps"]
            self._read(backend)
        except Stopped:
            status = "stopped"
        except Missing as error:
            status, reason = "missing", first_line(error)
        except Unreadable as error:
            status, reason, settled = "unreadable", first_line(error), error.settled
        except Damage as error:
            status, reason = "damaged", first_line(error)
        except Exception as error:  # whatever a decoder library raises is a verdict on the file, not a crash
            status, reason, settled = "damaged", f"{type(error).__name__}: {first_line(error)}", False
        if status == "ok" and self._good == 0:
            status, reason, settled = "unreadable", "holds no frame", True
        if status == "damaged" and self._good == 0:
            status = "unreadable"
        if status in ("ok", "damaged"):
            self._flush()
        spent = time.process_time() - self._began
        notes = [] if status in ("unreadable", "missing") else [*getattr(backend, "notes", ()), *self._rate()]
        self._send(
            kind="done", status=status, reason=reason, settled=settled, frames=self._good, spent=spent, notes=notes
        )
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _read(self, backend: Backend) -> None:
        request = self._request
        start, stop, ship, max_side = request["start"], request["stop"], request["ship"], request["max_side"]
        wanted = None if request["indices"] is None else set(request["indices"])
        size = (0, 0)
        for picture in backend.pictures():
            self._alive()
            index = self._good
            if index == 0:
                size = (picture.height, picture.width)
                self._introduce(backend, picture)
            if (picture.height, picture.width) != size:
                raise Damage(
                    f"frame {index} is {picture.width}x{picture.height}, the frames before it {size[1]}x{size[0]}"
                )
            if index in wanted if wanted is not None else index >= start:
                self._take(picture.rgb(max_side) if ship else None, picture.seconds)
            self._times.append(picture.seconds)
            self._good += 1
            if stop is not None and self._good >= stop:
                return

    def _rate(self) -> list[str]:
        off = off_a_constant_rate(self._times)
        return [f"variable frame rate, up to {off:.2g} s off a constant one"] if off else []

    def _introduce(self, backend: Backend, picture: Picture) -> None:
        if picture.height * picture.width * 3 > MAX_FRAME_BYTES:
            raise Unreadable(f"frames of {picture.width}x{picture.height} are too large", settled=True)
        rgb = picture.rgb(None)
        self._send(kind="info", **backend.info(rgb.shape[0], rgb.shape[1]).to_json())
        height, width, _ = picture.rgb(self._request["max_side"]).shape
        self._slot_frames = max(1, min(self._request["block"], SLOT_BYTES // (height * width * 3)))
        if self._request["ship"]:
            self._ring.shape(self._slot_frames, height, width)
            self._send(kind="ring", frames=self._slot_frames, height=height, width=width)

    def _take(self, frame: np.ndarray | None, seconds: float | None) -> None:
        if frame is not None:
            while not self._free:
                self._listen()
            self._ring.put(self._free[0], self._filled, frame)
        self._seconds.append(seconds)
        self._filled += 1
        if self._filled == self._slot_frames:
            self._flush()

    def _flush(self) -> None:
        """Hands over what the current slot holds."""
        if not self._filled:
            return
        slot = self._free.pop(0) if self._request["ship"] else None
        self._send(kind="block", slot=slot, count=self._filled, seconds=self._seconds)
        self._filled, self._seconds = 0, []

    def _alive(self) -> None:
        """Called before every step that may hang: winds up the alarm, tells the parent, hears whether to stop."""
        signal.setitimer(signal.ITIMER_REAL, self._request["deadline_s"] + ALARM_MARGIN_S)
        if time.monotonic() - self._spoke > TICK_S:
            self._send(kind="tick")
        while self._connection.poll(0):
            self._listen()

    def _listen(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # the consumer may take its time
        message = json.loads(self._connection.recv_bytes())
        if "free" not in message:
            raise Stopped
        self._free.append(message["free"])
        signal.setitimer(signal.ITIMER_REAL, self._request["deadline_s"] + ALARM_MARGIN_S)

    def _send(self, **message: Any) -> None:
        self._connection.send_bytes(json.dumps(message).encode())
        self._spoke = time.monotonic()


def main(connection_descriptor: int, ring_descriptor: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash on a hostile file leaves no core dump behind
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    connection = Connection(connection_descriptor)
    ring = Ring(ring_descriptor)
    try:
        connection.send_bytes(b'{"kind": "ready"}')
        while True:
            request = json.loads(connection.recv_bytes())
            if request.get("op") == "read":  # a {"free"} or {"stop"} that crossed the end of the last file is stale
                Session(connection, ring, request).run()
    except (EOFError, ConnectionError):
        return  # the parent is gone
