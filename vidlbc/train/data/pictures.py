"""Pictures to train an image stage on: where they are, and how one file becomes arrays.

    sources (folders, files, patterns, annotation lists) --find_files--> files --read_pictures--> uint8 (H, W, 3) arrays

A video counts as a few pictures, evenly spread over its first frames.
"""

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.data.corpus import is_video, locate
from vidlbc.data.picture_sets.base import PICTURE_SUFFIXES
from vidlbc.errors import InputError
from vidlbc.shards import read_annotations
from vidlbc.video import VideoReader

_FRAMES_LOOKED_AT = 64


@dataclass(frozen=True)
class PictureSource:
    """A folder (searched), a file, a pattern (`folder/*train*`) or an annotation list, whose train split is taken.

    `every`: take one file in so many, so that a large, uniform set does not outweigh the others.
    """

    path: str
    every: int = 1

    @classmethod
    def of(cls, entry: str | Mapping[str, Any]) -> "PictureSource":
        """From a config: a path, or {path: ..., every: ...}. Raises InputError."""
        if isinstance(entry, str):
            return cls(entry)
        try:
            source = cls(**entry)
        except TypeError:
            raise InputError(f"data source {entry!r}: expected a path, or {{path: ..., every: ...}}") from None
        if not isinstance(source.every, int) or source.every < 1:
            raise InputError(f"data source {source.path}: every={source.every!r}, expected an integer of at least 1")
        return source


def sources(entries: Any) -> tuple[PictureSource, ...]:
    """From a config: one source, several, or none."""
    return tuple(
        PictureSource.of(entry) for entry in (entries if isinstance(entries, list) else [entries] if entries else [])
    )


def find_files(sources: Sequence[PictureSource], split: str = "train") -> list[Path]:
    """Every picture and video file, in a fixed order; of a list that has splits, this one's.

    Raises InputError where a source is missing or holds none.
    """
    found: list[Path] = []
    for source in sources:
        files = _files_of(source.path, split)
        if not files:
            raise InputError(f"data source {source.path}: holds no picture and no video")
        found += files[:: source.every]
    return list(dict.fromkeys(found))


def _files_of(text: str, split: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        return _media(path.rglob("*"))
    if path.is_file():
        return [path] if _is_media(path) else _listed(path, split)
    if glob.has_magic(text):
        return _media(map(Path, glob.glob(str(path), recursive=True)))
    raise InputError(f"data source {text}: no such file or folder (expected pictures, videos or a list of them)")


def _media(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if _is_media(path) and path.is_file())


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES or is_video(path.name)


def _listed(path: Path, split: str) -> list[Path]:
    corpus = read_annotations(path)
    chosen = corpus.select(split) if corpus.splits else corpus
    places = [locate(corpus.root, item.path) for item in chosen.items]
    if any(member is not None for _, member in places):
        raise InputError(
            f"data source {path}: lists files inside tars, which the image stage does not read; unpack them"
        )
    return [file for file, _ in places]


def read_pictures(path: Path, frames_per_video: int, max_side: int | None = None) -> list[np.ndarray]:
    """uint8 (H, W, 3) arrays of one file; larger ones are scaled down to `max_side`.

    Raises InputError where nothing can be read from it.
    """
    return _frames(path, frames_per_video, max_side) if is_video(path.name) else [_picture(path, max_side)]


def _picture(path: Path, max_side: int | None) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        raise InputError(f"{path}: {str(error) or type(error).__name__}") from None
    if max_side is not None and max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.array(picture)


def _frames(path: Path, count: int, max_side: int | None) -> list[np.ndarray]:
    if not count:
        return []
    reader = VideoReader(path, stop=_FRAMES_LOOKED_AT, max_side=max_side)
    blocks = list(reader.blocks())
    if not blocks:
        raise InputError(f"{path}: {reader.verdict}")
    frames = np.concatenate(blocks)
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)
    return [np.ascontiguousarray(frames[index]) for index in chosen]
