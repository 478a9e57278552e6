"""The clip that the contestants code: a user's video, or a generated scene with texture, motion and sensor noise."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidlbc.errors import InputError


def generated_clip(frames: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """A 1/f-textured background that pans slowly, a textured square that crosses it, noise; uint8 (size, size, 3) each.

    Frames are made one at a time, so that a long clip costs no memory.
    """
    rng = np.random.default_rng(seed)
    background = _texture(rng, 2 * size)
    patch = _texture(rng, size // 3)
    for t in range(frames):
        # Triangle waves: the clip may be of any length.
        x, y = _bounce(t, size - 1), _bounce(t // 3, size - 1)
        picture = background[y : y + size, x : x + size].copy()
        row, column = _bounce(2 * t, size - len(patch)), _bounce(3 * t + 40, size - len(patch))
        picture[row : row + len(patch), column : column + len(patch)] = patch
        noise = np.random.default_rng([seed, t]).normal(0, 2.0, picture.shape).astype(np.float32)
        yield np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def read_clip(path: Path, frames: int, size: int) -> np.ndarray:
    """The first `frames` frames of a video, centre-cropped to `size`; uint8 (frames, size, size, 3)."""
    from vidlbc.video import read_blocks

    blocks = []
    for block in read_blocks(str(path), stop=frames):
        blocks.append(block)
    clip = np.concatenate(blocks) if blocks else np.empty((0, 0, 0, 3), np.uint8)
    if len(clip) < frames or min(clip.shape[1:3]) < size:
        shape = f"{len(clip)} frames of {clip.shape[1]}x{clip.shape[2]}"
        raise InputError(f"{path}: has {shape}; the benchmark needs {frames} of at least {size}x{size}")
    top, left = (clip.shape[1] - size) // 2, (clip.shape[2] - size) // 2
    return np.ascontiguousarray(clip[:, top : top + size, left : left + size])


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Amplitude falling as 1/frequency, as in natural pictures; float32 (size, size, 3), about 0-255."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / size) ** 1.2
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * falloff, (size, size)) for _ in range(4)]
    luma, chroma = planes[0] / planes[0].std(), [p / p.std() for p in planes[1:]]
    picture = np.stack([128 + 45 * luma + 12 * c for c in chroma], -1)
    return np.clip(picture, 0, 255).astype(np.float32)


def _bounce(t: int, span: int) -> int:
    phase = t % (2 * span)
    return phase if phase <= span else 2 * span - phase
