"""The source videos behind a corpus or a shard: files, or members of tars copied out while in use."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.data.content import local_file
from vidlbc.errors import VideoError
from vidlbc.shards import LatentShards
from vidlbc.video import VideoReader


@contextmanager
def source_file(root: str | Path, path: str) -> Iterator[Path]:
    """A file that a decoder can open. Raises VideoError where there is none."""
    with tempfile.TemporaryDirectory(prefix="vidlbc-") as folder:
        with local_file(root, path, Path(folder) / "member") as file:
            yield file


def source_frames(shards: LatentShards, meta: Mapping[str, Any]) -> np.ndarray:
    """The frames that a clip was encoded from, uint8 (T, H, W, 3). Raises VideoError where they cannot be had again."""
    return source_frames_at(shards, meta, meta["frames"], np.arange(meta["frames"]))


def source_frames_at(shards: LatentShards, meta: Mapping[str, Any], total: int, indices: np.ndarray) -> np.ndarray:
    """Some of the `total` frames that were encoded from the start of clip `meta` on, uint8 (n, H, W, 3).

    `indices` rise and count from there; only the frames they name are kept in memory. Raises VideoError where the file
    no longer gives the frames that were encoded.
    """
    settings = shards.plan.settings
    frames = stored_frames_at(shards, meta, spanned(shards, total), indices * settings.step, settings.max_side)
    if frames.shape[1:3] != (meta["height"], meta["width"]):
        raise VideoError(f"{meta['source']}: other frame sizes than were encoded: did the file change?")
    return frames


def spanned(shards: LatentShards, frames: int) -> int:
    """How many frames of its source so many coded frames of a video reach over."""
    return (frames - 1) * shards.plan.settings.step + 1


def stored_frames_at(
    shards: LatentShards, meta: Mapping[str, Any], total: int, indices: np.ndarray, max_side: int | None = None
) -> np.ndarray:
    """As `source_frames_at`, but `total` and `indices` count the frames of the file, at its own size by default."""
    settings = shards.plan.settings
    start, found, kept = meta["start"], 0, []
    with source_file(shards.root_of(meta), meta["source"]) as file:
        reader = VideoReader(
            file,
            start=start,
            stop=start + total,
            max_side=max_side,
            backend=settings.backend,
            deadline_s=settings.deadline_s,
            deinterlace=settings.deinterlace,
            picture_fps=settings.picture_fps,
        )
        for block in reader.blocks():
            here = indices[(indices >= found) & (indices < found + len(block))] - found
            if len(here):
                kept.append(block[here])
            found += len(block)
    if found != total or len({part.shape[1:3] for part in kept}) != 1:
        raise VideoError(f"{meta['source']}: {found} frames, {total} were encoded: did the file change?")
    return np.concatenate(kept)
