"""Pillow back end: folders of numbered pictures, and animated WebP, which FFmpeg does not decode. In a decoder process.

A folder's pictures say nothing of their rate: `picture_fps`. Turned pictures (EXIF) are turned; those of 16 bits keep
their upper eight; transparent ones lie on black.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps

from vidlbc.video.backends import first_line
from vidlbc.video.contract import Damage, Picture, Unreadable, VideoInfo, fitted_size
from vidlbc.video.sequences import numbered_pictures

_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class PicturesBackend:
    name = "pictures"
    version = f"Pillow {PIL.__version__}"
    picture_fps = 25.0  # of folders; set before `pictures` is called
    notes: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        self._path = path
        self._files = numbered_pictures(path) if os.path.isdir(path) else []
        self._animation: Any = None
        if not self._files:
            try:
                self._animation = Image.open(path)
            except _ERRORS as error:
                raise Unreadable(f"is no animated picture ({first_line(error)})", settled=True) from error
        self._seconds = 0.0

    @property
    def _frames(self) -> int:
        return len(self._files) or int(getattr(self._animation, "n_frames", 1))

    def pictures(self) -> Iterator[Picture]:
        for index in range(self._frames):
            seconds = self._seconds
            try:
                frame = self._file(index) if self._files else self._step(index)
            except _ERRORS as error:
                what = self._files[index].name if self._files else f"frame {index}"
                raise Damage(f"{what} does not decode ({first_line(error)})") from error
            yield Picture(frame.shape[0], frame.shape[1], seconds, partial(_shrunk, frame))

    def _file(self, index: int) -> np.ndarray:
        self._seconds = (index + 1) / self.picture_fps
        with Image.open(self._files[index]) as picture:
            return _rgb(ImageOps.exif_transpose(picture))

    def _step(self, index: int) -> np.ndarray:
        self._animation.seek(index)
        frame = _rgb(self._animation)
        self._seconds += float(self._animation.info.get("duration") or 100) / 1000
        return frame

    def info(self, height: int, width: int) -> VideoInfo:
        fps = Fraction(self.picture_fps).limit_denominator(1001)
        if not self._files:
            milliseconds = float(self._animation.info.get("duration") or 100)
            fps = Fraction(1000 / milliseconds).limit_denominator(1001)
        codec = "webp" if not self._files else self._files[0].suffix[1:].lower()
        duration = float(self._frames / fps)
        return VideoInfo(self._path, width, height, self._frames, fps, duration, codec, "", 0, self.name, self.version)


def _rgb(picture: Any) -> np.ndarray:
    """uint8 (H, W, 3)."""
    picture.load()
    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip them
        wide = np.asarray(picture).astype(np.int64)
        return np.repeat((wide >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
    return np.array(picture.convert("RGB"))


def _shrunk(frame: np.ndarray, max_side: int | None) -> np.ndarray:
    height, width = fitted_size(frame.shape[0], frame.shape[1], max_side)
    if (height, width) == frame.shape[:2]:
        return frame
    return np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))
