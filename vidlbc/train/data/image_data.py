"""Training crops for the image stage, drawn from pictures kept in memory as uint8.

    files --read (pool)--> Packed pictures --draw--> crops (B, 3, S, S) in [0, 1], a QP each

A corpus larger than the memory given to it is visited pool after pool. What a step sees is a pure function of
(seed, step); of several ranks, each takes its rows of the batch. Where the pool fits, it lies on the training device,
and crops are drawn there.
"""

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vidlbc.data.corpus import is_video
from vidlbc.errors import InputError
from vidlbc.train.data.packed import Draw, Packed, seeded
from vidlbc.train.data.pictures import read_pictures
from vidlbc.train.residence import place_of

# Of the pictures' own size, with `pyramid`: what is far away or small is then seen as well.
_SCALES = (0.71, 0.5)
# Of a crop's side: smaller pictures would be mostly mirror images.
_LEAST = 0.5
_GAMMA = 0.25

Crops = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CropSettings:
    """Crops of `size` pixels a side, `batch` a step and process; `pool_mb` of pictures in memory, the same in each.

    `qps`: those that are drawn from, all alike; None: all. `pyramid`: pictures are also taken at 0.71 and 0.5 of their
    size. `colour`: share of the crops whose channels are permuted and whose gamma is changed. A small corpus that is
    seen hundreds of times needs both.
    """

    size: int = 128
    batch: int = 8
    frames_per_video: int = 3
    max_side: int | None = None
    pool_mb: int = 4096
    steps_per_pool: int = 10_000
    qps: tuple[int, ...] | None = None
    pyramid: bool = False
    colour: float = 0.0


class CropSampler:
    """`sampler(step)` -> (frames (B, C, S, S) float in [0, 1], qp (B,)), in one of eight orientations.

    Rank r of w has rows [r B, (r + 1) B) of the batch that one process with a batch of w B has.
    """

    def __init__(
        self,
        pictures: Packed | Sequence[np.ndarray],
        size: int,
        batch: int,
        seed: int,
        qps: Sequence[int],
        rank: int = 0,
        world: int = 1,
        colour: float = 0.0,
    ):
        """`pictures`: crops are drawn on the device where they lie."""
        self.pictures = pictures if isinstance(pictures, Packed) else Packed(pictures)
        self.size, self.batch, self.seed = size, batch, seed
        self.rank, self.world, self.colour = rank, world, colour
        place = self.pictures.device
        self.qps = torch.tensor(list(qps), device=place)
        # Large pictures are drawn more often, by the root of their area: a crop of them shows a smaller share.
        weights = self.pictures.extents[:, 1:].prod(1).double().sqrt().cumsum(0)
        self._bounds = (weights / weights[-1]).float()
        self._generator = torch.Generator(place)

    def __call__(self, step: int) -> Crops:
        return self.draw(seeded(self._generator, self.seed, step))

    def draw(self, generator: torch.Generator | None = None) -> Crops:
        """A batch by the numbers of `generator`; None: the device's own."""
        draw = Draw(self.batch, self.pictures.device, self.rank, self.world, generator)
        # 1, not 0, is the last bound: a number of exactly that would lie past the last picture.
        index = torch.searchsorted(self._bounds, draw.uniform(), right=True).clamp_max_(len(self.pictures) - 1)
        axis = torch.arange(self.size, device=draw.device)
        sides = []
        for extent in (self.pictures.extents[index, 1], self.pictures.extents[index, 2]):
            room = extent - self.size
            corner = draw.whole(room.clamp_max(0), room.abs() + 1)
            sides.append(corner[:, None] + torch.where((draw.uniform() < 0.5)[:, None], axis.flip(0), axis))
        first, (y, x) = torch.zeros_like(index)[:, None], sides
        crops = self.pictures.cut(index, first, y, x, swap=draw.uniform() < 0.5)[:, 0]
        qp = self.qps[draw.whole(0, len(self.qps))]
        frames = crops.permute(0, 3, 1, 2).float() / 255
        if self.colour:
            frames = _recoloured(frames, draw, self.colour)
        return frames, qp


def _recoloured(frames: Tensor, draw: Draw, share: float) -> Tensor:
    """8-bit pictures again: the gamma of a crop is log-normal, its channels in any order."""
    gamma = torch.exp(_GAMMA * draw.normal()).view(-1, 1, 1, 1)
    order = draw.uniform(frames.shape[1]).argsort(1)[:, :, None, None].expand(frames.shape)
    changed = (frames.gather(1, order) ** gamma * 255).round() / 255
    return torch.where((draw.uniform() < share).view(-1, 1, 1, 1), changed, frames)


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
        resident: str = "auto",
    ):
        """`device`: that of the training; `resident`: see vidlbc.train.residence; `on_read(done, total)` is called
        after each file."""
        self.files, self.settings, self.num_qp, self.device = list(files), settings, num_qp, device
        self.seed, self.rank, self.world, self.on_read, self.where = seed, rank, world, on_read, resident
        self.skipped: dict[Path, str] = {}
        self._whole = False
        self._index = -1
        self._sampler: CropSampler | None = None

    def __call__(self, step: int) -> Crops:
        return self.sampler(step)(step)

    @property
    def resident(self) -> bool:
        """Do the pictures of the last step lie on the training device?"""
        return self._sampler is not None and self._sampler.pictures.device.type == self.device.type

    def shape(self, step: int) -> Hashable:
        """Steps that have it in common draw from the same memory, in tensors of the same shapes."""
        self.sampler(step)
        return self._index

    def draw(self, step: int) -> Crops:
        """By the device's own generator."""
        return self.sampler(step).draw()

    def sampler(self, step: int) -> CropSampler:
        """The sampler over the pool of this step; reads the pool where it is not in memory."""
        index = 0 if self._whole else step // self.settings.steps_per_pool
        if self._sampler is None or index != self._index:
            s = self.settings
            self._sampler = None  # its memory is the next one's
            pictures = self._read(index)
            qps = range(self.num_qp) if s.qps is None else s.qps
            ranks = self.rank, self.world
            self._sampler = CropSampler(pictures, s.size, s.batch, self.seed, qps, *ranks, s.colour)
            self._index = 0 if self._whole else index
        return self._sampler

    def _read(self, index: int) -> Packed:
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
        self._videos_were_read(read)
        pictures = [picture for place in sorted(read) for picture in read[place]]
        if not pictures:
            raise InputError(
                f"none of {len(order)} files gives a picture of at least {self._least()} pixels a side"
                + "".join(f"; {reason}" for reason in list(self.skipped.values())[:2])
            )
        packed = Packed(pictures)
        return packed.to(place_of(packed.nbytes, self.device, self.where))

    def _videos_were_read(self, read: dict[int, list[np.ndarray]]) -> None:
        """Raises InputError where videos were to be read and none could: pictures alone are another training."""
        videos = [self.files[place] for place in read if is_video(self.files[place].name)]
        if self.settings.frames_per_video and videos and all(path in self.skipped for path in videos):
            raise InputError(
                f"none of {len(videos)} training videos can be read, such as {self.skipped[videos[0]]}; "
                "to train on pictures alone set data.frames_per_video=0"
            )

    def _least(self) -> int:
        return max(1, round(_LEAST * self.settings.size))

    def _usable(self, path: Path) -> list[np.ndarray]:
        try:
            pictures = read_pictures(path, self.settings.frames_per_video, self.settings.max_side)
        except InputError as error:
            self.skipped[path] = str(error)
            return []
        usable = [picture for picture in pictures if min(picture.shape[:2]) >= self._least()]
        if len(usable) < len(pictures):
            self.skipped[path] = f"{path}: smaller than {self._least()} pixels a side"
        return usable + (self._reduced(usable) if self.settings.pyramid else [])

    def _reduced(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        out = []
        for picture in pictures:
            for scale in _SCALES:
                height, width = (round(side * scale) for side in picture.shape[:2])
                if min(height, width) >= self._least():
                    out.append(np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)))
        return out
