"""One file, decoded in a decoder process, as a stream of events: `Opened`, `Frames`..., `Outcome`.

Whatever happens to the process (crash, hang, kill) becomes the Outcome's verdict. With backend="auto" a file that the
first back end cannot open, or dies on, is offered to the next one. A file whose first frame it found damaged is not:
the next one would conceal that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidlbc.errors import InputError
from vidlbc.video.backends import candidates
from vidlbc.video.contract import Status, Verdict, VideoInfo
from vidlbc.video.process import Gone, give_back, lease
from vidlbc.video.sequences import is_sequence


@dataclass(frozen=True)
class Request:
    """What to decode. indices (sorted, unique) select frames; otherwise start <= index < stop. ship: send the frames,
    not only their times. max_side: pixels of the longest side, None for untouched. deinterlace: part fields.
    picture_fps: rate of folders of pictures."""

    start: int = 0
    stop: int | None = None
    indices: tuple[int, ...] | None = None
    ship: bool = True
    max_side: int | None = None
    block: int = 16
    deinterlace: bool = False
    picture_fps: float = 25.0

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise InputError(f"start={self.start}, stop={self.stop}: expected 0 <= start < stop")
        if not 0 < self.picture_fps <= 1000:
            raise InputError(f"picture_fps={self.picture_fps}: expected frames a second above 0, at most 1000")
        if self.block < 1 or (self.max_side is not None and self.max_side < 1):
            raise InputError(f"block={self.block}, max_side={self.max_side}: expected at least 1")


@dataclass(frozen=True)
class Opened:
    """The first frame decoded."""

    info: VideoInfo


@dataclass(frozen=True)
class Frames:
    """More frames. pixels: (n, H, W, 3), valid until the next event; None without `ship`. seconds: None if unknown."""

    pixels: np.ndarray | None
    seconds: list[float | None]


@dataclass(frozen=True)
class Outcome:
    """The end. settled: no other back end would do better. spent: processor seconds of the decoder, 0 where unknown."""

    verdict: Verdict
    settled: bool
    spent: float = 0.0


Event = Opened | Frames | Outcome


def decode(path: str | os.PathLike[str], request: Request, deadline_s: float, backend: str) -> Iterator[Event]:
    """Raises InputError for an unknown or missing back end; a bad file raises nothing, its Outcome says so."""
    if not deadline_s > 0:
        raise InputError(f"deadline_s={deadline_s}: expected a positive number of seconds")
    names = candidates(backend, os.path.abspath(path))
    reason = _not_a_file(Path(path))
    if reason:
        yield Outcome(Verdict("unreadable", 0, reason, "", ""), True)
        return
    first: Outcome | None = None
    for name in names:
        opened = False
        with contextlib.closing(_decode(os.path.abspath(path), request, deadline_s, name)) as events:
            for event in events:
                if not isinstance(event, Outcome):
                    opened = True
                    yield event
        outcome = event
        assert isinstance(outcome, Outcome)
        if opened or outcome.settled or outcome.verdict.status != "unreadable":
            yield outcome
            return
        first = first or outcome
    assert first is not None
    others = [name for name in names if name != first.verdict.backend]
    tried = f"; {', '.join(others)} cannot read it either" if others else ""
    yield Outcome(first.verdict.with_reason(first.verdict.reason + tried), True)


def _decode(path: str, request: Request, deadline_s: float, backend: str) -> Generator[Event, None, None]:
    """One back end. Always ends with an Outcome."""
    process = lease()
    name, version, good, fit = backend, "", 0, False
    finished = False
    try:
        process.request(path=path, backend=backend, deadline_s=deadline_s, **request.__dict__)
        while True:
            message = process.receive(deadline_s)
            kind = message.pop("kind")
            if kind == "opened":
                name, version = message["name"], message["version"]
            elif kind == "info":
                yield Opened(VideoInfo.from_json(message))
            elif kind == "ring":
                process.map_ring(**message)
            elif kind == "block":
                slot = message["slot"]
                yield Frames(None if slot is None else process.slot(slot, message["count"]), message["seconds"])
                good += message["count"]
                if slot is not None:
                    process.free(slot)
            elif kind == "done":
                finished = True
                if message["status"] == "missing":
                    raise InputError(message["reason"])
                fit = message["status"] == "ok"
                notes = tuple(message["notes"])
                verdict = Verdict(message["status"], message["frames"], message["reason"], name, version, notes)
                yield Outcome(verdict, message["settled"], message["spent"])
                return
    except Gone as error:
        finished = True
        # frames before `start` are not counted here: the process took that knowledge with it
        status: Status = "damaged" if good else "unreadable"
        yield Outcome(Verdict(status, request.start + good if good else 0, str(error), name, version), False)
    finally:
        give_back(process, fit if finished else process.stop())


def _not_a_file(path: Path) -> str | None:
    """What can be said without a decoder."""
    try:
        if not path.exists():
            return "no such file"
        if not path.is_file():
            if not path.is_dir():
                return "is not a regular file"
            return None if is_sequence(path) else "is a folder, not a video file"
        with path.open("rb") as file:
            return None if file.read(1) else "is empty (0 bytes)"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
