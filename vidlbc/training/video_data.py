"""Training clips for the temporal stage: windows of frames from a corpus, kept in memory as uint8.

Reading a corpus at training speed would make the video decoder the slowest stage. So a *pool* of windows is decoded
once and drawn from many times; a corpus larger than the pool is visited pool after pool. What a step sees is a pure
function of (seed, step).
"""

import copy
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import InputError, VideoError
from vidlbc.training.camera_motion import moving_picture
from vidlbc.video import VideoReader

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ClipSettings:
    """`frames` a training clip, random crops of `size` pixels, `batch` clips a step and rank.

    `picture_share`: share of the clips made from still pictures, where there are any. Every second step has crops of
    `large_size` instead, as many as have the same area, of videos that large and of pictures: context that reads a
    window around each place must learn what the inside of a large frame looks like.
    """

    frames: int = 6
    size: int = 160
    batch: int = 2
    pool_windows: int = 256
    window_frames: int = 24
    steps_per_pool: int = 2000
    max_side: int | None = None
    picture_share: float = 0.25
    large_size: int | None = None


class ClipSampler:
    """`sampler(step)` -> (frames uint8 (B, T, 3, S, S), qp (B,)). One clip in three plays backwards or mirrored.

    Rank r of w has rows [r B, (r + 1) B) of the batch that one process with a batch of w B has.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        settings: ClipSettings,
        num_qp: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        on_read: Callable[[int, int], None] | None = None,
        open_path: Callable[[str | Path], AbstractContextManager[Path]] = lambda path: nullcontext(Path(path)),
        pictures: Sequence[np.ndarray] = (),
    ):
        """`open_path` gives the file of a path (a corpus may keep its videos in tars); `pictures`: uint8 (H, W, 3)."""
        if not paths:
            raise InputError("no training video: expected at least one in the train split")
        self.paths, self.settings, self.seed, self.rank, self.world = list(paths), settings, seed, rank, world
        self.num_qp, self.on_read, self.open_path = num_qp, on_read, open_path
        self.pictures = list(pictures)
        self.unreadable: dict[str, str] = {}
        self._pool: list[np.ndarray] = []
        self._pool_index = -1

    def __call__(self, step: int) -> Batch:
        pool, s = self._pool_of(step // self.settings.steps_per_pool), self.settings
        draw = random.Random((self.seed * 1_000_003 + step) * 64)
        size, batch, share = s.size, s.batch, s.picture_share
        if s.large_size is not None and step % 2:
            size, batch = s.large_size, max(1, round(s.batch * (s.size / s.large_size) ** 2))
            large = [window for window in pool if min(window.shape[1:3]) >= size]
            # Few videos are large: more of these clips are pictures.
            pool, share = large or pool, (1 + share) / 2 if large else 1.0
        # All ranks' clips are drawn, and this one's are made.
        drawn = [self._any_clip(draw, pool, size, share) for _ in range(batch * self.world)]
        qps = [draw.randrange(self.num_qp) for _ in drawn]
        own = slice(batch * self.rank, batch * (self.rank + 1))
        clips = np.stack([make() for make in drawn[own]])
        return torch.from_numpy(clips).permute(0, 1, 4, 2, 3), torch.tensor(qps[own])

    def of_all_ranks(self) -> "ClipSampler":
        """The one whose batches hold the rows of all ranks."""
        whole = copy.copy(self)
        whole.settings = replace(self.settings, batch=self.settings.batch * self.world)
        whole.rank, whole.world = 0, 1
        return whole

    def _pool_of(self, index: int) -> list[np.ndarray]:
        everything = len(self.paths) <= self.settings.pool_windows
        index = 0 if everything else index
        if index == self._pool_index:
            return self._pool
        draw = random.Random(f"{self.seed}/{index}")
        chosen = list(self.paths) if everything else draw.sample(self.paths, self.settings.pool_windows)
        pool = []
        for number, path in enumerate(chosen):
            pool += self._windows(path, max(1, self.settings.pool_windows // len(chosen)))
            if self.on_read is not None:
                self.on_read(number + 1, len(chosen))
        if not pool:
            reasons = "; ".join(f"{p}: {r}" for p, r in list(self.unreadable.items())[:3])
            raise InputError(
                f"none of {len(chosen)} training videos has {self.settings.frames} readable frames ({reasons})"
            )
        self._pool, self._pool_index = pool, index
        return pool

    def _windows(self, path: str | Path, count: int) -> list[np.ndarray]:
        """Up to `count` windows of one video, from its first few hundred frames."""
        length = self.settings.window_frames
        frames: list[np.ndarray] = []
        size: tuple[int, ...] = ()
        try:
            with self.open_path(path) as file:
                reader = VideoReader(file, stop=min(count, 4) * length, max_side=self.settings.max_side)
                for block in reader.blocks():
                    if block.shape[1:3] != (size := size or block.shape[1:3]):
                        break  # a window holds one frame size
                    frames.append(self._part(block, str(path)))
        except VideoError as error:
            self.unreadable[str(path)] = str(error)
            return []
        if not frames:
            self.unreadable[str(path)] = reader.verdict.reason if reader.verdict else "no frames"
            return []
        video = _at_least(np.concatenate(frames), self.settings.size)
        return [
            np.ascontiguousarray(video[start : start + length])
            for start in range(0, len(video), length)
            if len(video[start : start + length]) >= self.settings.frames or (start == 0 and len(video))
        ]

    def _part(self, block: np.ndarray, path: str) -> np.ndarray:
        """At most two crops high and wide: whole pictures of a pool of large videos would not fit in memory."""
        side = max(2 * self.settings.size, self.settings.large_size or 0)
        draw = random.Random(f"{self.seed}/{path}")
        top, left = (draw.randrange(max(0, extent - side) + 1) for extent in block.shape[1:3])
        return np.ascontiguousarray(block[:, top : top + side, left : left + side])

    def _any_clip(
        self, draw: random.Random, pool: list[np.ndarray], size: int, share: float
    ) -> Callable[[], np.ndarray]:
        if self.pictures and draw.random() < share:
            picture, own = draw.choice(self.pictures), random.Random(draw.getrandbits(64))
            return lambda: moving_picture(picture, self.settings.frames, size, own)
        return self._clip(draw, _at_least(draw.choice(pool), size), size)

    def _clip(self, draw: random.Random, window: np.ndarray, size: int) -> Callable[[], np.ndarray]:
        s = self.settings
        # Every second or third frame now and then: faster motion than the corpus has.
        stride = draw.choice([1, 1, 1, 1, 2, 3])
        while stride > 1 and (s.frames - 1) * stride >= len(window):
            stride -= 1
        first = draw.randrange(max(1, len(window) - (s.frames - 1) * stride))
        index = np.minimum(first + np.arange(s.frames) * stride, len(window) - 1)
        if draw.random() < 0.3:
            index = index[::-1]
        top = draw.randrange(window.shape[1] - size + 1)
        left = draw.randrange(window.shape[2] - size + 1)
        flip = draw.random() < 0.5

        def make() -> np.ndarray:
            clip = window[index, top : top + size, left : left + size]
            return clip[:, :, ::-1] if flip else clip

        return make


def _at_least(video: np.ndarray, size: int) -> np.ndarray:
    """Frames smaller than the crop are padded by their border."""
    bottom, right = (max(0, size - side) for side in video.shape[1:3])
    return np.pad(video, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="edge") if bottom or right else video
