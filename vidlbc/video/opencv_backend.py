"""OpenCV back end, for where PyAV is missing: `pip install opencv-python-headless`. Runs in a decoder process only.

OpenCV brings an FFmpeg of its own and tells of its errors on the standard output alone: a frame that does not decode is
left out, and the next one comes in its place. So that output becomes a file, and what FFmpeg says there ends the good
part of a video. OpenCV takes a picture for a video, reads no raw .yuv and names no duration; times count from the first
frame's. docs/video.md has what it misses.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, partial

import cv2
import numpy as np

from vidlbc.video.contract import Damage, Picture, Unreadable, VideoInfo, fitted_size

_ENVIRONMENT = {
    "OPENCV_FFMPEG_LOGLEVEL": "16",  # errors
    # A playlist named .mp4 must not reach the network.
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file|err_detect;explode",
}
_STANDARD_OUTPUT = 1
_PREFIX = "[OPENCV:FFMPEG:16]"
# Where a container counts no frames, OpenCV computes their number from its duration: so far off is no damage.
_SLACK_FRAMES, _SLACK_SECONDS = 3, 0.2


class OpencvBackend:
    name = "opencv"
    version = str(cv2.__version__)

    def __init__(self, path: str) -> None:
        os.environ.update(_ENVIRONMENT)
        self._path = path
        self._heard = _heard()
        if path.lower().endswith(".yuv"):
            raise Unreadable("raw .yuv files need PyAV (pip install av)", settled=True)
        if _is_picture(path):
            raise Unreadable("is a picture, not a video", settled=True)
        self._capture = self._open()
        complaint = self._complaint()  # of a file that opens, it will be told again where it belongs
        if not self._capture.isOpened():
            raise Unreadable(f"OpenCV cannot open it: {complaint or 'no video stream, or its header is damaged'}")

    def _open(self, *options: int) -> cv2.VideoCapture:
        """One thread, as the other back ends: several workers use several cores better."""
        capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *options])
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # the default, but for 4.11
        return capture

    def pictures(self) -> Iterator[Picture]:
        capture, frames = self._capture, 0
        while True:
            more = capture.grab()
            if complaint := self._complaint():
                raise Damage(f"frame {frames} does not decode ({complaint})")
            if not more:
                break
            height, width = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
            yield Picture(height, width, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, partial(self._rgb, frames))
            frames += 1
        self._check_completeness(frames)

    def _rgb(self, index: int, max_side: int | None) -> np.ndarray:
        good, frame = self._capture.retrieve()
        if not good or frame.ndim != 3:
            raise Damage(f"frame {index} cannot be converted")
        height, width = fitted_size(frame.shape[0], frame.shape[1], max_side)
        if (height, width) != frame.shape[:2]:
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        return frame[:, :, ::-1]

    def _complaint(self) -> str:
        """The first line that FFmpeg has written since the last call; "" where there is none."""
        start, self._heard = self._heard, _heard()
        said = os.pread(_STANDARD_OUTPUT, min(self._heard - start, 1 << 16), start).decode(errors="replace")
        lines = (line.removeprefix(_PREFIX).strip() for line in said.splitlines() if line.startswith(_PREFIX))
        return next((line for line in lines if line), "")

    def _check_completeness(self, frames: int) -> None:
        """Packets against the header, not frames: an edit list or a discard flag hides frames of a sound file."""
        promised = self._frames_promised()
        slack = max(_SLACK_FRAMES, _SLACK_SECONDS * self._fps())
        if promised is None or frames >= promised - slack:
            return
        packets, held = self._open(cv2.CAP_PROP_FORMAT, -1), 0
        while packets.grab():
            held += 1
        if held < promised - slack:
            raise Damage(f"the header promises {promised} frames, the file holds {held}")

    def _frames_promised(self) -> int | None:
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if 0 < count < 1 << 40 else None

    def _fps(self) -> Fraction:
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        return Fraction(fps).limit_denominator(1001) if 0 < fps <= 480 else Fraction(25)

    def info(self, height: int, width: int) -> VideoInfo:
        frames, fps = self._frames_promised(), self._fps()
        codec = _four_letters(self._capture.get(cv2.CAP_PROP_FOURCC))
        rotation = -int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        return VideoInfo(
            self._path,
            width,
            height,
            frames,
            fps,
            float(frames / fps) if frames else None,
            codec,
            "",
            rotation,
            self.name,
            self.version,
        )


def _heard() -> int:
    """Bytes that FFmpeg has written to the standard output."""
    _c_library().fflush(None)
    return os.fstat(_STANDARD_OUTPUT).st_size


@cache
def _c_library() -> ctypes.CDLL:
    """Of this process, whose standard output is a file from now on."""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STANDARD_OUTPUT)
    return ctypes.CDLL(None)


def _is_picture(path: str) -> bool:
    with open(path, "rb") as file:
        animated = file.read(4) == b"GIF8"
    return not animated and bool(cv2.haveImageReader(path))


def _four_letters(code: float) -> str:
    letters = int(code).to_bytes(4, "little", signed=True)
    return letters.decode("ascii", errors="replace").strip("\0 ").lower() if letters.isascii() else ""
