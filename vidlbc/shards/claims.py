"""What a worker has in hand: a note in the shard's working folder, which outlives the worker.

    encode_shard --take, frames, put_down--> .00000.tmp/in_hand --> a launcher: its display; whom to blame for a death

A file, since the shard's folder is what launcher and worker share under every engine; nothing has to be sent while a
process dies.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vidlbc.shards.layout import ShardFiles

_SECONDS = 0.5  # between two notes of frames; taking up a file is noted at once
_SIZE = 200  # bytes of a note: one write of one size leaves the old note or the new one


@dataclass(frozen=True)
class Claim:
    """State of an unfinished shard. `sources`: places in `plan.sources` of the files that are open.

    `files` counts those finished, `failed` the unreadable ones of them, `frames` all frames so far, `expected` those of
    all files that were begun, by their headers until they are finished.
    """

    sources: tuple[int, ...] = ()
    files: int = 0
    failed: int = 0
    frames: int = 0
    expected: int = 0


class Stopped(Exception):
    """The shard has failed in another thread."""


class Notes:
    """The worker's side: keeps the note up to date, and tells `progress`, where given, in the same process.

    Several threads may call it.
    """

    def __init__(self, work: Path, progress: Callable[[Claim], None] | None = None) -> None:
        self._path = work / "in_hand"
        self._progress = progress
        self._state = Claim()
        self._written = 0.0
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Notes:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        self._write()
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def take(self, source: int) -> None:
        """File `source` is about to be opened."""
        with self._lock:
            self._state = replace(self._state, sources=(*self._state.sources, source))
            self._write()

    def frames(self, count: int) -> None:
        """`count` more frames are done. Raises Stopped where it is for nothing."""
        if self._stopped:
            raise Stopped
        with self._lock:
            self._state = replace(self._state, frames=self._state.frames + count)
            if time.monotonic() - self._written > _SECONDS:
                self._write()
            self._tell()

    def expect(self, count: int) -> None:
        """A file that was begun will give `count` more frames than was thought; fewer where it is below 0."""
        with self._lock:
            self._state = replace(self._state, expected=self._state.expected + count)

    def put_down(self, source: int, failed: bool) -> None:
        """File `source` is finished."""
        with self._lock:
            state = self._state
            left = tuple(place for place in state.sources if place != source)
            self._state = replace(state, sources=left, files=state.files + 1, failed=state.failed + failed)
            self._write()
            self._tell()

    def stop(self) -> None:
        """The shard has failed: whoever still encodes a file of it ends at its next frames."""
        self._stopped = True

    def _tell(self) -> None:
        if self._progress:
            self._progress(self._state)

    def _write(self) -> None:
        os.pwrite(self._file, json.dumps(asdict(self._state)).ljust(_SIZE).encode(), 0)
        self._written = time.monotonic()


def read_claim(files: ShardFiles) -> Claim | None:
    """The note of an unfinished shard; None where nobody began it, or it is finished."""
    try:
        note = Claim(**json.loads((files.work / "in_hand").read_text(encoding="utf-8")))
        return replace(note, sources=tuple(note.sources))
    except (OSError, ValueError, TypeError):
        return None
