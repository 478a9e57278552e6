"""Clips to measure: every video and picture of a folder, by name, read one at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidlbc.data.corpus import is_video
from vidlbc.data.picture_sets.base import PICTURE_SUFFIXES
from vidlbc.errors import InputError, VideoError
from vidlbc.train.data.pictures import read_pictures
from vidlbc.video import VideoReader


class Footage(NamedTuple):
    """uint8 (T, H, W, 3); what is to be said of it, nothing or that it is damaged; frames a second, 0 for a picture."""

    frames: np.ndarray
    damage: str
    fps: float


@dataclass(frozen=True)
class Clip:
    """`name`: the path below the folder that was asked for."""

    name: str
    path: Path

    def read(self, max_frames: int | None = None) -> Footage:
        """At most `max_frames`; a picture is a clip of one frame, of a damaged video these are the good leading frames.

        Raises InputError or VideoError where nothing can be read.
        """
        if _is_picture(self.path):
            (picture,) = read_pictures(self.path, 1)
            return Footage(picture[None], "", 0.0)
        reader = VideoReader(self.path, stop=max_frames)
        blocks = list(reader.blocks())
        if not blocks:
            raise VideoError(f"{self.path}: {reader.verdict}")
        damaged = reader.verdict is not None and reader.verdict.status == "damaged"
        fps = 0.0 if reader.info is None else float(reader.info.fps)
        return Footage(np.concatenate(blocks), str(reader.verdict) if damaged else "", fps)


def find_clips(folder: str | Path) -> list[Clip]:
    """Of a folder and all below it, in the order of their names, or of one file, whatever its name.

    Raises InputError where there is none.
    """
    root = Path(folder)
    if root.is_file():
        return [Clip(root.name, root)]
    if not root.is_dir():
        raise InputError(f"data={root}: no such file or folder (expected videos or pictures)")
    found = sorted(p for p in root.rglob("*") if (_is_picture(p) or _is_video(p)) and p.is_file())
    if not found:
        raise InputError(f"data={root}: holds no video and no picture")
    return [Clip(path.relative_to(root).as_posix(), path) for path in found]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _is_video(path: Path) -> bool:
    # Raw video is no corpus format, but what the test sequences of video coding come as.
    return is_video(path.name) or path.suffix.lower() == ".yuv"
