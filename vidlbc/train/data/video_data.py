"""Training clips for the temporal stage: windows of frames from a corpus, and pictures that move, as uint8 in memory.

    videos --read (pool)--> Packed windows --+
                                             +--draw--> clips (B, T, 3, S, S), a QP each
    still pictures -------> Packed pictures -+

Reading a corpus at training speed would make the video decoder the slowest stage. So a *pool* of windows is decoded
once and drawn from many times; a corpus larger than the pool is visited pool after pool. What a step sees is a pure
function of (seed, step). Where the pool fits, it lies on the training device, and clips are drawn there.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import InputError, VideoError
from vidlbc.train.data.camera_motion import moving_pictures
from vidlbc.train.data.packed import Draw, Packed, seeded
from vidlbc.train.residence import place_of
from vidlbc.video import VideoReader

# Every second or third frame now and then: faster motion than the corpus has.
_STRIDES = (1, 1, 1, 1, 2, 3)

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


@dataclass(frozen=True)
class _Step:
    """What decides the shapes of a step's tensors: which pool, pixels of a side, clips of this rank, and how many of
    all ranks' clips are made from pictures."""

    pool: int
    size: int
    batch: int
    pictures: int


class ClipSampler:
    """`sampler(step)` -> (frames uint8 (B, T, 3, S, S), qp (B,)). One clip in three plays backwards, one in two is
    mirrored.

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
        device: torch.device | None = None,
        resident: str = "auto",
    ):
        """`open_path` gives the file of a path (a corpus may keep its videos in tars); `pictures`: uint8 (H, W, 3);
        `device`: that of the training; `resident`: see vidlbc.train.residence."""
        if not paths:
            raise InputError("no training video: expected at least one in the train split")
        self.paths, self.settings, self.seed, self.rank, self.world = list(paths), settings, seed, rank, world
        self.num_qp, self.on_read, self.open_path = num_qp, on_read, open_path
        self.device, self.where = device or torch.device("cpu"), resident
        self.pictures = Packed(pictures) if len(pictures) else None
        self.unreadable: dict[str, str] = {}
        self._pool: Packed | None = None
        self._pool_index = -1
        self._large = torch.empty(0)
        self._generator = torch.Generator()
        self._constants: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}

    def __call__(self, step: int) -> Batch:
        shape = self.shape(step)
        return self._clips(shape, seeded(self._generator, self.seed, step))

    @property
    def resident(self) -> bool:
        """Do the windows of the last step lie on the training device?"""
        return self._pool is not None and self._pool.device.type == self.device.type

    def draw(self, step: int) -> Batch:
        """By the device's own generator."""
        return self._clips(self.shape(step))

    def shape(self, step: int) -> _Step:
        """Steps that have it in common draw from the same memory, in tensors of the same shapes."""
        s, pool = self.settings, self._pool_of(step // self.settings.steps_per_pool)
        size, batch, share, turn = s.size, s.batch, s.picture_share, step
        if s.large_size is not None:
            turn = step // 2
            if step % 2:
                size, batch = s.large_size, max(1, round(s.batch * (s.size / s.large_size) ** 2))
                # Few videos are large: more of these clips are pictures.
                share = (1 + share) / 2 if len(self._large) else 1.0
        if self.pictures is None:
            return _Step(pool, size, batch, 0)
        clips = share * batch * self.world
        return _Step(pool, size, batch, int((turn + 1) * clips) - int(turn * clips))

    def _clips(self, shape: _Step, generator: torch.Generator | None = None) -> Batch:
        """One batch by the numbers of `generator`; None: the device's own."""
        assert self._pool is not None
        draw = Draw(shape.batch, self._pool.device, self.rank, self.world, generator)
        qp = draw.whole(0, self.num_qp)
        own = range(shape.batch * self.rank, shape.batch * (self.rank + 1))
        count = shape.batch * self.world
        # Pictures are spread evenly over all ranks' clips: the same ones for any number of ranks.
        still = [(i + 1) * shape.pictures // count > i * shape.pictures // count for i in own]
        size = (shape.batch, self.settings.frames, shape.size, shape.size, 3)
        clips = torch.empty(size, dtype=torch.uint8, device=draw.device)
        # Numbers are drawn for all rows either way: what a clip is does not depend on its neighbours.
        if shape.pictures < count:
            rows = self._on(draw.device, tuple(row for row, is_still in enumerate(still) if not is_still))
            clips.index_copy_(0, rows, self._windows_of(shape, draw, rows))
        if shape.pictures:
            rows = self._on(draw.device, tuple(row for row, is_still in enumerate(still) if is_still))
            clips.index_copy_(0, rows, self._pictures_of(shape, draw, rows))
        return clips.permute(0, 1, 4, 2, 3), qp

    def _on(self, device: torch.device, numbers: tuple[int, ...]) -> Tensor:
        """Made once: while a CUDA graph is captured nothing may be copied from the host."""
        if (device, numbers) not in self._constants:
            self._constants[device, numbers] = torch.tensor(numbers, dtype=torch.long, device=device)
        return self._constants[device, numbers]

    def _pictures_of(self, shape: _Step, draw: Draw, rows: Tensor) -> Tensor:
        assert self.pictures is not None
        return moving_pictures(self.pictures, self.settings.frames, shape.size, draw, rows)

    def _windows_of(self, shape: _Step, draw: Draw, rows: Tensor) -> Tensor:
        """uint8 (R, T, S, S, 3): frames of a window at a stride, mirrored past the borders of a small one."""
        assert self._pool is not None
        pool, frames = self._pool, self.settings.frames
        if shape.size == self.settings.large_size and len(self._large):
            index = self._large[draw.whole(0, len(self._large))[rows]]
        else:
            index = draw.whole(0, len(pool))[rows]
        length, height, width = pool.extents[index].T
        longest = ((length - 1) // max(1, frames - 1)).clamp_min(1)
        stride = self._on(draw.device, _STRIDES)[draw.whole(0, len(_STRIDES))[rows]].minimum(longest)
        first = (draw.uniform()[rows] * (length - (frames - 1) * stride).clamp_min(1)).long()
        axis = torch.arange(frames, device=draw.device)
        along = torch.where((draw.uniform()[rows] < 0.3)[:, None], axis.flip(0), axis)
        frame = (first[:, None] + along * stride[:, None]).minimum(length[:, None] - 1)
        side = torch.arange(shape.size, device=draw.device)
        across = torch.where((draw.uniform()[rows] < 0.5)[:, None], side.flip(0), side)
        top = (draw.uniform()[rows] * ((height - shape.size).clamp_min(0) + 1)).long()
        left = (draw.uniform()[rows] * ((width - shape.size).clamp_min(0) + 1)).long()
        return pool.cut(index, frame, top[:, None] + side, left[:, None] + across)

    def _pool_of(self, index: int) -> int:
        """The index of the pool that is in memory now: this one."""
        everything = len(self.paths) <= self.settings.pool_windows
        index = 0 if everything else index
        if index == self._pool_index:
            return index
        self._pool = None  # its memory is the next one's
        draw = random.Random(f"{self.seed}/{index}")
        chosen = list(self.paths) if everything else draw.sample(self.paths, self.settings.pool_windows)
        windows: list[np.ndarray] = []
        for number, path in enumerate(chosen):
            windows += self._windows(path, max(1, self.settings.pool_windows // len(chosen)))
            if self.on_read is not None:
                self.on_read(number + 1, len(chosen))
        if not windows:
            reasons = "; ".join(f"{p}: {r}" for p, r in list(self.unreadable.items())[:3])
            raise InputError(
                f"none of {len(chosen)} training videos has {self.settings.frames} readable frames ({reasons})"
            )
        self._keep(Packed(windows), index)
        return index

    def _keep(self, pool: Packed, index: int) -> None:
        pictures = self.pictures
        place = place_of(pool.nbytes + (pictures.nbytes if pictures else 0), self.device, self.where)
        self._pool, self._pool_index = pool.to(place), index
        self.pictures = pictures.to(place) if pictures else None
        if self._generator.device != place:
            self._generator = torch.Generator(place)
        large = self.settings.large_size
        if large is not None:
            self._large = (self._pool.extents[:, 1:].amin(1) >= large).nonzero()[:, 0]

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
        video = np.concatenate(frames)
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
