"""decord back end: the fallback when PyAV cannot decode a file's first frame. Runs in a decoder process only.

decord hands out a neighbouring frame where one does not decode, silently; `fault_tol` makes that an error. It always
reads the largest video stream and cannot be told otherwise, so a file with several is refused. It counts frames that
an edit list hides and packets that show nothing, and would fill these with copies too: such sound files come out
damaged here, after the same good frames that PyAV gives. No raw .264, .yuv, AV1, gif.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from vidlbc.video.backends import first_line
from vidlbc.video.contract import Damage, Picture, Unreadable, VideoInfo, fitted_size

# Below one frame of any video: the first substitution is reported (values >= 1 would allow that many).
_NO_SUBSTITUTES = 1e-9


class DecordBackend:
    name = "decord"

    def __init__(self, path: str) -> None:
        import decord
        from decord._ffi.base import DECORDLimitReachedError

        self._errors = (decord.DECORDError, DECORDLimitReachedError, RuntimeError)  # the first two are plain Exceptions
        decord.logging.set_level(decord.logging.QUIET)
        self.version = str(decord.__version__)
        self._path = path
        _refuse_several_streams(path)
        try:
            self._reader: Any = decord.VideoReader(path, decord.cpu(0), num_threads=1, fault_tol=_NO_SUBSTITUTES)
        except (*self._errors, AssertionError) as error:
            raise Unreadable(f"decord cannot open it: {_cause(error)}") from error

    def pictures(self) -> Iterator[Picture]:
        promised = len(self._reader)
        for index in range(promised):
            try:
                frame = _unpadded(self._reader.next().asnumpy())
                seconds = float(self._reader.get_frame_timestamp(index)[0])
            except StopIteration:
                raise Damage(f"decord counted {promised} frames, {index} decode") from None
            except self._errors as error:
                raise Damage(f"frame {index}: {_cause(error)}") from error
            yield Picture(frame.shape[0], frame.shape[1], seconds, partial(shrunk, frame))

    def info(self, height: int, width: int) -> VideoInfo:
        frames = len(self._reader)
        fps = Fraction(self._reader.get_avg_fps() or 25).limit_denominator(1001)
        return VideoInfo(
            self._path, width, height, frames, fps, float(frames / fps), "", "", 0, self.name, self.version
        )  # decord names neither codec nor pixel format, and turns the frames itself


def _refuse_several_streams(path: str) -> None:
    """decord would take the largest, every other back end takes the first."""
    import av

    from vidlbc.video.pyav_open import open_file

    try:
        with open_file(path) as container:
            videos = len(container.streams.video)
    except (av.FFmpegError, ValueError, OSError):
        return  # PyAV cannot say; whatever decord reads is better than nothing
    if videos > 1:
        raise Unreadable(f"holds {videos} video streams, of which decord cannot select the first", settled=True)


def _unpadded(frame: np.ndarray) -> np.ndarray:
    """decord takes a padded line's bytes over the width for the channels: (H, 48, 4) where a line has 192 bytes."""
    height, width, channels = frame.shape
    return frame if channels == 3 else frame.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)


def shrunk(frame: np.ndarray, max_side: int | None) -> np.ndarray:
    """uint8 (H, W, 3), area-averaged until its longest side is at most max_side."""
    height, width = fitted_size(frame.shape[0], frame.shape[1], max_side)
    if (height, width) == frame.shape[:2]:
        return frame
    import av

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
    return np.asarray(picture.reformat(width, height, interpolation="AREA", threads=1).to_ndarray())


def _cause(error: BaseException) -> str:
    """decord's message without the C++ file, line and path that begin it: what follows the last "]" or ")"."""
    text = first_line(error)
    if "duplicate frames" in text:
        return "decord would put copies of neighbours in place of frames that do not decode"
    return re.split(r"[\])](?=\s*\w)", text)[-1].strip()
