"""Batches for the study of compression for machines: task clips, and crops to train the codec on.

Both are pure functions of the step, so that a resumed training sees the data of an undisturbed one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet, moved
from vidlbc.experiments.machine_perception.joint import TaskBatch
from vidlbc.run.progress import progress_bar
from vidlbc.train.data.image_data import CropSampler
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures


@dataclass(frozen=True)
class TaskSettings:
    """A step's task batch: `clips` clips of `frames` frames. Few persons are soon known by heart, hence the changes:
    each clip is moved by up to `shift` pixels and its channels' gain and offset by up to `colour`. No flips: left and
    right are part of a gesture. `head_steps`: so many steps train the head alone before the encoder is informed."""

    clips: int = 8
    frames: int = 5
    head_steps: int = 800
    shift: int = 12
    colour: float = 0.15

    def __post_init__(self) -> None:
        if self.clips < 1 or self.frames < 1 or min(self.shift, self.head_steps) < 0 or not 0 <= self.colour < 1:
            wanted = "at least 1 clip and frame, shift and head_steps >= 0, colour in [0, 1)"
            raise InputError(f"task.{self}: expected {wanted}")


class TaskClips:
    """`sampler(step) -> TaskBatch`; one random frame of each of T equal parts of a clip, one QP a clip.

    Classes are drawn alike, then a clip of the class.
    """

    def __init__(self, clips: ClipSet, settings: TaskSettings, seed: int, classes: Sequence[int]) -> None:
        """`classes`: labels to draw from; a batch's labels are their places in it. Raises InputError where one has no
        clip."""
        self.clips, self.settings, self.seed = clips, settings, seed
        self.of_class = [np.flatnonzero(clips.labels == label) for label in classes]
        for label, members in zip(classes, self.of_class, strict=True):
            if not len(members):
                raise InputError(f"class {clips.classes[label]} has no clip in the train split")

    def __call__(self, step: int) -> TaskBatch:
        draw = random.Random(self.seed * 1_000_003 + step)
        labels = [draw.randrange(len(self.of_class)) for _ in range(self.settings.clips)]
        clips = [self._clip(int(draw.choice(self.of_class[label])), draw) for label in labels]
        qp = torch.tensor([draw.randrange(NUM_QP) for _ in labels])
        return TaskBatch(torch.stack(clips), torch.tensor(labels), qp)

    def _clip(self, index: int, draw: random.Random) -> Tensor:
        clip, s = self.clips.clips[index], self.settings
        frames = clip[segment_frames(len(clip), s.frames, draw)]
        down, right = (draw.randint(-s.shift, s.shift) for _ in range(2))
        x = torch.from_numpy(moved(frames, down, right)).permute(0, 3, 1, 2).float() / 255
        gain = torch.tensor([1 + draw.uniform(-s.colour, s.colour) for _ in range(3)])[:, None, None]
        offset = torch.tensor([draw.uniform(-s.colour, s.colour) / 2 for _ in range(3)])[:, None, None]
        return ((x - 0.5) * gain + 0.5 + offset).clamp(0, 1)


def segment_frames(length: int, count: int, draw: random.Random) -> list[int]:
    """A random frame of each of `count` equal parts of `length` frames (Wang et al., arXiv 1608.00859)."""
    edges = [part * length / count for part in range(count + 1)]
    return [min(int(draw.uniform(a, b)), length - 1) for a, b in zip(edges, edges[1:], strict=False)]


def even_frames(length: int, count: int) -> list[int]:
    """`count` evenly spread frames of `length`: the middle of each part."""
    return [min(int((part + 0.5) * length / count), length - 1) for part in range(count)]


def compression_crops(
    sources: Sequence[PictureSource],
    clips: ClipSet,
    per_clip: int,
    size: int,
    batch: int,
    seed: int,
    per_video: int = 3,
) -> CropSampler:
    """Crops of pictures, videos, and `per_clip` frames of each task clip (whose labels are not used here).

    Raises InputError where nothing is as large as a crop.
    """
    pictures: list[np.ndarray] = []
    for file in progress_bar(find_files(sources), desc="read pictures", unit="file"):
        pictures += _readable(file, per_video)
    for clip in clips.clips:
        pictures += [clip[i] for i in even_frames(len(clip), min(per_clip, len(clip)))]
    pictures = [picture for picture in pictures if min(picture.shape[:2]) >= size]
    if not pictures:
        raise InputError(f"nothing to train the codec on is as large as train.size={size}")
    return CropSampler(pictures, size, batch, seed, range(NUM_QP))


def _readable(file: Path, per_video: int) -> list[np.ndarray]:
    try:
        return read_pictures(file, per_video)
    except InputError as error:
        print(f"not used: {error}")
        return []
