"""The pixel baseline's input: frames as levels of the same strides and channels as the codec's latents.

The baseline reads pixels through the same head, so it needs pixels on the same grids. A level of stride s and C
channels is made of 8 x 8 patches of the frames averaged by s / 8 (s x s patches of the frames themselves below 8),
rotated by the orthonormal DCT of JPEG, of which the C lowest coefficients are kept: two thirds luma, the rest chroma.

The DCT is a fixed rotation of pixels, nothing is learned or quantised. It is there for fairness: the stem's energies
of *raw* sub-pixels say how bright a place is and nothing of edges, and such a baseline is easy to beat (17 gestures,
ridge, best validation top-1: raw sub-pixels of half-size frames 24%, quantised DCT levels 53%).
`transform="none"` gives the raw sub-pixels.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidlbc.errors import InputError

_PATCH = 8


def pixel_levels(levels: Sequence[tuple[int, int]], transform: str = "dct") -> list[tuple[int, int]]:
    """(channels, stride) that `patchify` gives for the codec's `levels`: the same, but no more than a patch holds."""
    out = []
    for channels, stride in levels:
        size = _patch_size(stride)
        most = 3 * size * size
        out.append((min(channels, most) if transform == "dct" else 3 * _largest_square(channels, size) ** 2, stride))
    return out


def patchify(frames: Tensor | np.ndarray, levels: Sequence[tuple[int, int]], transform: str = "dct") -> list[Tensor]:
    """uint8 (T, H, W, 3) -> one float32 (T, C_l, ceil(H / s_l), ceil(W / s_l)) a level, in the order of `levels`."""
    if transform not in ("dct", "none"):
        raise InputError(f"unknown patch transform '{transform}', expected dct or none")
    pixels = torch.as_tensor(frames)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != torch.uint8:
        raise InputError(f"frames must be uint8 (T, H, W, 3), got {pixels.dtype} {tuple(pixels.shape)}")
    x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return [_level(x, c, s, transform) for c, s in pixel_levels(levels, transform)]


def _level(x_T3HW: Tensor, channels: int, stride: int, transform: str) -> Tensor:
    size = _patch_size(stride)
    height, width = x_T3HW.shape[-2:]
    x = F.pad(x_T3HW, (0, -width % stride, 0, -height % stride), mode="replicate")
    if stride > size:
        x = F.avg_pool2d(x, stride // size)
    if transform == "none":
        side = _largest_square(channels, size)
        return F.pixel_unshuffle(F.interpolate(x, scale_factor=side / size, mode="area"), side)
    filters, colours = _dct_filters(channels, size)
    planes = torch.einsum("ck,tkhw->tchw", _YCC, x)
    kept = [F.conv2d(planes[:, i : i + 1], f, stride=size) for i, f in zip(colours, filters, strict=True)]
    return torch.cat(kept, dim=1)


def _patch_size(stride: int) -> int:
    if stride < 1 or stride & (stride - 1):
        raise InputError(f"the stride of a level must be a power of two, got {stride}")
    return min(stride, _PATCH)


def _largest_square(channels: int, size: int) -> int:
    """Side of the largest raw patch whose 3 * side^2 values fit in `channels` and that divides `size`."""
    side = 1
    while 2 * side <= size and 3 * (2 * side) ** 2 <= channels:
        side *= 2
    return side


@lru_cache(maxsize=32)
def _dct_filters(channels: int, size: int) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Filters (n, 1, size, size) for Y, Cb and Cr, lowest frequencies first, and the planes that they read."""
    most = size * size
    chroma = min(channels // 6, most)
    luma = min(channels - 2 * chroma, most)
    rest = channels - luma - 2 * chroma  # only where the luma patch is full
    counts = (luma, chroma + (rest + 1) // 2, chroma + rest // 2)
    k, i = torch.arange(size)[:, None], torch.arange(size)[None]
    rows = torch.cos(math.pi * (2 * i + 1) * k / (2 * size)) * math.sqrt(2.0 / size)
    rows[0] /= math.sqrt(2.0)
    order = sorted(((u, v) for u in range(size) for v in range(size)), key=lambda uv: (sum(uv), uv))
    basis = torch.stack([torch.outer(rows[u], rows[v]) for u, v in order])[:, None]
    planes = tuple(i for i, n in enumerate(counts) if n)
    return tuple(basis[: counts[i]] for i in planes), planes


# BT.601, the colour transform of JPEG.
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
