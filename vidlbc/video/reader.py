"""Reading videos: `VideoReader` and `read_blocks` (streams), `open_source` (exact frames), `probe`, `examine`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from vidlbc.errors import InputError, VideoError
from vidlbc.video.contract import Verdict, VideoInfo, VideoSource
from vidlbc.video.decoding import Frames, Opened, Outcome, Request, decode

DEADLINE_S = 60.0
_SOURCE_BLOCK = 8

StrPath = str | os.PathLike[str]


class VideoReader:
    """One pass over one file, in blocks; afterwards the verdict.

    reader = VideoReader(path, max_side=256)
    for block in reader.blocks():      # uint8 (n, H, W, 3), n = block but for the last
        ...
    reader.verdict                     # ok | damaged: `frames` good leading frames were given | unreadable: none was
    reader.seconds                     # when each of the frames that were given is shown, None where unknown
    reader.spent                       # processor seconds of the decoder process

    The first frame that does not decode cleanly ends the blocks; nothing is ever put in its place. Memory: `block`
    frames here and at most 3 x 24 MiB (or 3 frames, when larger) shared with the decoder process, whatever the length.
    start, stop: frame indices. deadline_s: seconds without progress after which the decoder process is killed.
    max_side: longest side in pixels, larger frames are area-averaged. deinterlace: part the fields of interlaced frames
    (PyAV alone). picture_fps: rate of a folder of numbered pictures. Raises InputError on bad values only.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        start: int = 0,
        stop: int | None = None,
        block: int = 16,
        deadline_s: float = DEADLINE_S,
        backend: str = "auto",
        max_side: int | None = None,
        deinterlace: bool = False,
        picture_fps: float = 25.0,
    ) -> None:
        self.path = path
        self.info: VideoInfo | None = None
        self.verdict: Verdict | None = None
        self.spent = 0.0
        self.seconds: list[float | None] = []
        self._block = block
        request = Request(start, stop, None, True, max_side, block, deinterlace, picture_fps)
        self._events = decode(path, request, deadline_s, backend)
        self._used = False

    def blocks(self) -> Iterator[np.ndarray]:
        """Once only. Leaving early leaves `verdict` None."""
        if self._used:
            raise InputError(f"{self.path}: blocks() reads the file once; make another VideoReader to read it again")
        self._used = True
        partial: np.ndarray | None = None
        filled = 0
        with closing(self._events):  # type: ignore[type-var]
            for event in self._events:
                if isinstance(event, Opened):
                    self.info = event.info
                elif isinstance(event, Outcome):
                    self.verdict, self.spent = event.verdict, event.spent
                elif event.pixels is not None:
                    self.seconds += event.seconds
                    done = 0
                    while done < len(event.pixels):
                        if partial is None:
                            partial, filled = np.empty((self._block, *event.pixels.shape[1:]), np.uint8), 0
                        n = min(self._block - filled, len(event.pixels) - done)
                        partial[filled : filled + n] = event.pixels[done : done + n]
                        filled, done = filled + n, done + n
                        if filled == self._block:
                            yield partial
                            partial = None
        if partial is not None:
            yield partial[:filled]


def read_blocks(
    path: StrPath,
    *,
    start: int = 0,
    stop: int | None = None,
    block: int = 16,
    deadline_s: float = DEADLINE_S,
    backend: str = "auto",
    max_side: int | None = None,
) -> Iterator[np.ndarray]:
    """The blocks of a VideoReader. Raises VideoError for an unreadable file; warns, after the good frames of a damaged
    one, with its verdict."""
    reader = VideoReader(
        path, start=start, stop=stop, block=block, deadline_s=deadline_s, backend=backend, max_side=max_side
    )
    yield from reader.blocks()
    assert reader.verdict is not None
    if reader.verdict.status == "unreadable":
        raise VideoError(f"{path}: {reader.verdict}")
    if reader.verdict.status == "damaged":
        warnings.warn(f"{path}: {reader.verdict}", stacklevel=2)


def probe(path: StrPath, backend: str = "auto", deadline_s: float = DEADLINE_S) -> VideoInfo:
    """What the file says of itself; its first frame is decoded. Raises VideoError when that fails."""
    info, verdict = _survey(path, Request(stop=1, ship=False), deadline_s, backend)
    if info is None:
        raise VideoError(f"{path}: {verdict}")
    return info


def examine(path: StrPath, deadline_s: float = DEADLINE_S, backend: str = "auto") -> tuple[VideoInfo | None, Verdict]:
    """Decodes everything, strictly, keeps nothing. Never raises on a bad file: that is what the verdict is for."""
    return _survey(path, Request(ship=False), deadline_s, backend)


def _survey(path: StrPath, request: Request, deadline_s: float, backend: str) -> tuple[VideoInfo | None, Verdict]:
    info: VideoInfo | None = None
    for event in decode(path, request, deadline_s, backend):
        if isinstance(event, Opened):
            info = event.info
        elif isinstance(event, Outcome):
            return info, event.verdict
    raise AssertionError("decode() ends with an Outcome")


class WorkerSource:
    """A VideoSource whose every access decodes in a decoder process, from frame 0: seeking would be faster on long
    files, but lands on other frames than counting does in too many of them."""

    def __init__(self, path: StrPath, backend: str = "auto", deadline_s: float = DEADLINE_S) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._info = probe(path, backend, deadline_s)
        self._backend = self._info.backend if backend == "auto" else backend

    @property
    def info(self) -> VideoInfo:
        return self._info

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3). Raises VideoError at the first frame that does not decode."""
        reader = VideoReader(
            self._path, start=start, stop=stop, block=_SOURCE_BLOCK, deadline_s=self._deadline_s, backend=self._backend
        )
        for block in reader.blocks():
            yield from block
        assert reader.verdict is not None
        if reader.verdict.status != "ok":
            raise VideoError(f"{self._path}: frame {reader.verdict.frames} does not decode: {reader.verdict}")

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), in the order asked for, repeats allowed. Raises VideoError naming the first index missing
        from the file."""
        wanted = [int(i) for i in indices]
        if not wanted:
            return np.empty((0, self._info.height, self._info.width, 3), np.uint8)
        if min(wanted) < 0:
            raise VideoError(f"{self._path}: frame {min(wanted)} does not exist; indices count from 0")
        distinct = sorted(set(wanted))
        request = Request(indices=tuple(distinct), stop=distinct[-1] + 1)
        found = 0
        out = np.empty((len(distinct), self._info.height, self._info.width, 3), np.uint8)
        for event in decode(self._path, request, self._deadline_s, self._backend):
            if isinstance(event, Frames) and event.pixels is not None:
                out[found : found + len(event.pixels)] = event.pixels
                found += len(event.pixels)
            elif isinstance(event, Outcome) and found < len(distinct):
                verdict = event.verdict
                why = f"the video has {verdict.frames} frames" if verdict.status == "ok" else str(verdict)
                raise VideoError(f"{self._path}: frame {distinct[found]} cannot be had: {why}")
        return out if wanted == distinct else out[np.searchsorted(distinct, wanted)]

    def timestamps(self) -> np.ndarray:
        """float64 (frames,), seconds; index / fps where the file states no times. Raises VideoError if unreadable;
        of a damaged file, the times of its good leading frames."""
        times: list[float | None] = []
        for event in decode(self._path, Request(ship=False), self._deadline_s, self._backend):
            if isinstance(event, Frames):
                times += event.seconds
            elif isinstance(event, Outcome) and event.verdict.status == "unreadable":
                raise VideoError(f"{self._path}: {event.verdict}")
        fps = self._info.fps
        return np.array([float(i / fps) if t is None else t for i, t in enumerate(times)], np.float64)


def open_source(path: StrPath, backend: str = "auto", deadline_s: float = DEADLINE_S) -> VideoSource:
    """Raises VideoError when no frame of the file decodes."""
    return WorkerSource(path, backend, deadline_s)
