"""Pictures of the dense tasks: with their boundary maps, or degraded to a lower resolution."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vidlbc.errors import InputError
from vidlbc.train.data.image_data import CropSampler
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures

_KLT_CROPS, _KLT_MULTIPLE = 128, 32
_PREFIX = "bsds500_"


def read_all(sources: Sequence[PictureSource], least: int, count: int | None = None) -> list[NDArray[np.uint8]]:
    """uint8 (H, W, 3) of the pictures of at least `least` pixels a side; of them at most `count`, evenly spread.

    Raises InputError where a source is missing, a file cannot be read or none is left.
    """
    files = _spread(find_files(sources), count)
    pictures = [p for file in files for p in read_pictures(file, 1) if min(p.shape[:2]) >= least]
    if not pictures:
        raise InputError(f"{sources[0].path}: no picture of at least {least} pixels a side")
    return pictures


def read_with_boundaries(
    sources: Sequence[PictureSource], segmentation: Path, count: int | None = None
) -> list[NDArray[np.uint8]]:
    """uint8 (H, W, 4): RGB, and the mean of the annotators' boundaries of SEGMENTATION/NAME_boundaries.png.

    NAME is the picture's, without the prefix bsds500_ if need be. Raises InputError naming what is missing.
    """
    from PIL import Image

    out = []
    for file in _spread(find_files(sources), count):
        picture = read_pictures(file, 1)[0]
        names = [f"{stem}_boundaries.png" for stem in (file.stem, file.stem.removeprefix(_PREFIX))]
        places = [segmentation / name for name in names if (segmentation / name).is_file()]
        if not places:
            raise InputError(f"{file.name}: {segmentation} holds no {names[-1]}, expected one for every picture")
        with Image.open(places[0]) as image:
            truth = np.array(image.convert("L"))
        if truth.shape != picture.shape[:2]:
            raise InputError(f"{places[0]}: {truth.shape[::-1]} pixels, expected {picture.shape[1::-1]} as {file.name}")
        out.append(np.dstack([picture, truth]))
    return out


def crops_of(pictures: Sequence[NDArray[np.uint8]], size: int, batch: int, seed: int) -> CropSampler:
    """`crops_of(...)(step)[0]` -> (B, C, S, S) in [0, 1], flipped and transposed at random."""
    fitting = [p for p in pictures if min(p.shape[:2]) >= size]
    if not fitting:
        raise InputError(f"size={size}: no training picture has sides of that many pixels")
    return CropSampler(fitting, size, batch, seed, [0])


def klt_pictures(pictures: Sequence[NDArray[np.uint8]], size: int, seed: int) -> Tensor:
    """(128, 3, S, S) for the start from a transform of pictures, S the largest multiple of 32 within `size`."""
    side = max(_KLT_MULTIPLE, size - size % _KLT_MULTIPLE)
    return crops_of(pictures, side, _KLT_CROPS, seed + 1)(0)[0][:, :3]


def degrade(frames: Tensor, scale: int) -> Tensor:
    """Bicubic down by `scale` (antialiased), rounded to 8 bits, and bicubic up to the same size, within [0, 1]."""
    height, width = frames.shape[-2:]
    small = F.interpolate(
        frames, (height // scale, width // scale), mode="bicubic", antialias=True, align_corners=False
    )
    small = (small.clamp(0, 1) * 255).round() / 255
    return F.interpolate(small, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def _spread(files: list[Path], count: int | None) -> list[Path]:
    if count is None or count >= len(files):
        return files
    return [files[round(index)] for index in np.linspace(0, len(files) - 1, count)]
