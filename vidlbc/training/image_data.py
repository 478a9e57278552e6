"""Training pictures: every picture and a few frames of every video under some folders, kept in memory as uint8.

A batch is a pure function of (seed, step): crops at a random place, size factor and flip.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import InputError, VideoError

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
VIDEOS = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".y4m", ".mpg"}


def load_pictures(
    sources: Sequence[str | Path], frames_per_video: int, min_side: int, exclude: Sequence[str] = ()
) -> list[np.ndarray]:
    """uint8 (H, W, 3) arrays, in a fixed order. Files that cannot be read are skipped and named on stderr.

    `sources`: folders (searched), files, or `.csv` lists `path,label,group,split` of which the `train` rows are taken.
    `exclude`: drops paths that contain one of these words. Raises InputError where a source is missing or nothing is
    left.
    """
    from PIL import Image

    from vidlbc.video import read_blocks

    pictures: list[np.ndarray] = []
    for path in _find(sources, exclude):
        if path.suffix.lower() in PICTURES:
            with Image.open(path) as image:
                array = np.asarray(image.convert("RGB"))
            if min(array.shape[:2]) >= min_side:
                pictures.append(array)
        elif frames_per_video:
            pictures += _frames(path, frames_per_video, min_side, read_blocks, VideoError)
    if not pictures:
        raise InputError(f"no picture of at least {min_side} pixels a side in {', '.join(map(str, sources))}")
    return pictures


def _find(sources: Sequence[str | Path], exclude: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise InputError(f"data source {source} does not exist: expected a folder, a file or a csv list")
        if source.suffix == ".csv":
            lines = source.read_text().splitlines()
            columns = lines[0].split(",")
            for row in (dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]):
                if row["split"] == "train":
                    found.append(source.parent / row["path"])
        elif source.is_dir():
            found += sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURES | VIDEOS)
        else:
            found.append(source)
    return [path for path in found if not any(word in str(path) for word in exclude)]


def _frames(path: Path, count: int, min_side: int, read_blocks, video_error) -> list[np.ndarray]:
    """`count` frames about evenly spread over the first 64."""
    import sys

    frames: list[np.ndarray] = []
    try:
        for block in read_blocks(path, stop=64):
            frames += list(block)
    except video_error as error:
        print(f"skipped: {error}", file=sys.stderr)
    frames = [f for f in frames if min(f.shape[:2]) >= min_side]
    return [
        np.ascontiguousarray(frames[i]) for i in np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)
    ]


class CropSampler:
    """`sampler(step)` -> (frames (B, 3, S, S) float in [0, 1], qp (B,))."""

    def __init__(
        self, pictures: Sequence[np.ndarray], size: int, batch: int, seed: int, device: torch.device, num_qp: int
    ):
        self.pictures, self.size, self.batch = pictures, size, batch
        self.seed, self.device, self.num_qp = seed, device, num_qp
        # Large pictures are drawn more often: each pixel is about as likely as any other.
        self.weights = np.cumsum([float(p.shape[0] * p.shape[1]) ** 0.5 for p in pictures])

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        draw = random.Random(self.seed * 1_000_003 + step)
        crops = np.stack([self._crop(draw) for _ in range(self.batch)])
        qp = torch.tensor([draw.randrange(self.num_qp) for _ in range(self.batch)])
        frames = torch.from_numpy(crops).to(self.device, non_blocking=True)
        return frames.permute(0, 3, 1, 2).float() / 255, qp.to(self.device)

    def _crop(self, draw: random.Random) -> np.ndarray:
        index = int(np.searchsorted(self.weights, draw.random() * self.weights[-1]))
        picture = self.pictures[min(index, len(self.pictures) - 1)]
        top = draw.randrange(picture.shape[0] - self.size + 1)
        left = draw.randrange(picture.shape[1] - self.size + 1)
        crop = picture[top : top + self.size, left : left + self.size]
        if draw.random() < 0.5:
            crop = crop[:, ::-1]
        if draw.random() < 0.5:
            crop = crop.transpose(1, 0, 2)
        return crop
