"""The source videos behind a corpus or a shard: files, or members of tars copied out while in use."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.errors import VideoError
from vidlbc.shards import LatentShards
from vidlbc.shards.content import local_file
from vidlbc.video import VideoReader


@contextmanager
def source_file(root: str | Path, path: str) -> Iterator[Path]:
    """A file that a decoder can open."""
    with (
        tempfile.TemporaryDirectory(prefix="vidlbc-") as folder,
        local_file(root, path, Path(folder) / "member") as file,
    ):
        yield file


def source_frames(shards: LatentShards, meta: Mapping[str, Any]) -> np.ndarray:
    """The frames that a clip was encoded from, uint8 (T, H, W, 3). Raises VideoError where they cannot be had again."""
    settings = shards.plan.settings
    with source_file(shards.plan.root, meta["source"]) as file:
        reader = VideoReader(
            file, start=meta["start"], stop=meta["stop"], max_side=settings.max_side, backend=settings.backend
        )
        blocks = list(reader.blocks())
    frames = np.concatenate(blocks) if blocks else np.zeros((0, 0, 0, 3), np.uint8)
    if len(frames) != meta["frames"]:
        raise VideoError(f"{meta['source']}: {len(frames)} frames, {meta['frames']} were encoded: did the file change?")
    return frames
