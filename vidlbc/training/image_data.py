"""Training crops for the image stage, drawn from pictures kept in memory as uint8.

A corpus larger than the memory given to it is visited pool after pool. What a step sees is a pure function of
(seed, step): crops at a random place, flips, a QP each; of several ranks, each takes its rows of the batch.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import InputError
from vidlbc.training.pictures import read_pictures


@dataclass(frozen=True)
class CropSettings:
    """Crops of `size` pixels a side, `batch` a step and process; `pool_mb` of pictures in memory, the same in each.

    `qps`: those that are drawn from, all alike; None: all.
    """

    size: int = 128
    batch: int = 8
    frames_per_video: int = 3
    max_side: int | None = None
    pool_mb: int = 4096
    steps_per_pool: int = 10_000
    qps: tuple[int, ...] | None = None


class CropSampler:
    """`sampler(step)` -> (frames (B, 3, S, S) float in [0, 1], qp (B,)), from the pictures given.

    Rank r of w has rows [r B, (r + 1) B) of the batch that one process with a batch of w B has.
    """

    def __init__(
        self,
        pictures: Sequence[np.ndarray],
        size: int,
        batch: int,
        seed: int,
        device: torch.device,
        qps: Sequence[int],
        rank: int = 0,
        world: int = 1,
    ):
        self.pictures, self.size, self.batch = pictures, size, batch
        self.seed, self.device, self.qps, self.rank, self.world = seed, device, qps, rank, world
        # Large pictures are drawn more often, by the root of their area: a crop of them shows a smaller share.
        self.weights = np.cumsum([float(p.shape[0] * p.shape[1]) ** 0.5 for p in pictures])

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        draw = random.Random(self.seed * 1_000_003 + step)
        drawn = [self._crop(draw) for _ in range(self.batch * self.world)]  # views: nothing is copied
        qps = [self.qps[draw.randrange(len(self.qps))] for _ in drawn]
        own = slice(self.batch * self.rank, self.batch * (self.rank + 1))
        crops, qp = np.stack(drawn[own]), torch.tensor(qps[own])
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


class PooledCrops:
    """`crops(step)`: a CropSampler's batch from the pool that the step belongs to."""

    def __init__(
        self,
        files: Sequence[Path],
        settings: CropSettings,
        num_qp: int,
        seed: int,
        rank: int,
        device: torch.device,
        on_read: Callable[[int, int], None] | None = None,
        world: int = 1,
    ):
        """`on_read(done, total)` is called after each file."""
        self.files, self.settings, self.num_qp, self.device = list(files), settings, num_qp, device
        self.seed, self.rank, self.world, self.on_read = seed, rank, world, on_read
        self.skipped: dict[Path, str] = {}
        self._whole = False
        self._index = -1
        self._sampler: CropSampler | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        return self.sampler(step)(step)

    def sampler(self, step: int) -> CropSampler:
        """The sampler over the pool of this step; reads the pool where it is not in memory."""
        index = 0 if self._whole else step // self.settings.steps_per_pool
        if self._sampler is None or index != self._index:
            s = self.settings
            qps = range(self.num_qp) if s.qps is None else s.qps
            ranks = self.rank, self.world
            self._sampler = CropSampler(self._read(index), s.size, s.batch, self.seed, self.device, qps, *ranks)
            self._index = 0 if self._whole else index
        return self._sampler

    def _read(self, index: int) -> list[np.ndarray]:
        """Files in random order until the memory is full. Where all fit, there is one pool, in the listed order."""
        order = list(range(len(self.files)))
        random.Random(f"{self.seed}/0/{index}").shuffle(order)
        read: dict[int, list[np.ndarray]] = {}
        free = self.settings.pool_mb * 2**20
        for place in order:
            if free <= 0:
                break
            read[place] = self._usable(self.files[place])
            free -= sum(picture.nbytes for picture in read[place])
            if self.on_read is not None:
                self.on_read(len(read), len(order))
        self._whole = len(read) == len(order)
        pictures = [picture for place in sorted(read) for picture in read[place]]
        if not pictures:
            raise InputError(
                f"none of {len(order)} files gives a picture of at least {self.settings.size} pixels a side"
                + "".join(f"; {reason}" for reason in list(self.skipped.values())[:2])
            )
        return pictures

    def _usable(self, path: Path) -> list[np.ndarray]:
        size = self.settings.size
        try:
            pictures = read_pictures(path, self.settings.frames_per_video, self.settings.max_side)
        except InputError as error:
            self.skipped[path] = str(error)
            return []
        usable = [picture for picture in pictures if min(picture.shape[:2]) >= size]
        if len(usable) < len(pictures):
            self.skipped[path] = f"{path}: smaller than {size} pixels a side"
        return usable
