"""Training clips made from still pictures: a camera that pans, zooms and turns, an object that moves on its own.

Corpora of people rarely show fast pans, sharp large pictures or scenes seen through a moving camera; pictures give all
of them, with motion that is known to be explicable.
"""

import math
import random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Pixels a frame, log-uniform: from standing still to what leaves the view of a stride-8 attention window.
_SLOWEST, _FASTEST = 0.1, 32.0


def moving_picture(picture: np.ndarray, frames: int, size: int, draw: random.Random) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (frames, size, size, 3), everything random taken from `draw`."""
    source = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    clip = _view(source, _path(picture.shape[:2], frames, size, draw), size)
    if draw.random() < 0.5:
        inside = _ellipse(frames, size, draw)
        clip = torch.where(inside, _view(source, _path(picture.shape[:2], frames, size, draw), size), clip)
    if draw.random() < 0.2:  # exposure drifts
        clip = clip * (1 + draw.uniform(-0.03, 0.03) * torch.arange(frames).view(-1, 1, 1, 1))
    if draw.random() < 0.3:  # sensor noise, new in every frame
        generator = torch.Generator().manual_seed(draw.getrandbits(62))
        clip = clip + draw.uniform(0.5, 6.0) * torch.randn(clip.shape, generator=generator)
    return clip.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _speed(draw: random.Random) -> float:
    if draw.random() < 0.15:
        return 0.0
    return _SLOWEST * (_FASTEST / _SLOWEST) ** draw.random()


def _path(shape: tuple[int, ...], frames: int, size: int, draw: random.Random) -> Tensor:
    """Affine maps (frames, 2, 3) from output pixels, centred, to picture pixels."""
    height, width = shape
    # Magnified up to twice: as smooth as large video is; reduced where the picture is large enough.
    scale = math.exp(draw.uniform(math.log(0.5), min(0.0, math.log(min(height, width) / size) - 0.1)))
    zoom = 1 + draw.gauss(0, 0.01) * (draw.random() < 0.4)
    angle, turn = draw.uniform(-0.3, 0.3), draw.gauss(0, 0.01) * (draw.random() < 0.3)
    speed, heading = _speed(draw), draw.uniform(0, 2 * math.pi)
    x, y = draw.uniform(0.3, 0.7) * width, draw.uniform(0.3, 0.7) * height
    maps = []
    for t in range(frames):
        s, a = scale * zoom**t, angle + turn * t
        c, d = s * math.cos(a), s * math.sin(a)
        centre_x, centre_y = x + scale * speed * t * math.cos(heading), y + scale * speed * t * math.sin(heading)
        maps.append([[c, -d, centre_x], [d, c, centre_y]])
    return torch.tensor(maps)


def _view(source: Tensor, maps: Tensor, size: int) -> Tensor:
    """(1, 3, H, W) seen through maps (T, 2, 3): (T, 3, size, size); mirrored past the borders."""
    height, width = source.shape[-2:]
    axis = torch.arange(size) - (size - 1) / 2
    place = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.ones(size, size)], -1)
    grid = torch.einsum("tij,yxj->tyxi", maps, place)
    grid = (2 * grid + 1) / torch.tensor([width, height]) - 1
    return F.grid_sample(
        source.expand(len(maps), -1, -1, -1), grid, "bicubic", padding_mode="reflection", align_corners=False
    )


def _ellipse(frames: int, size: int, draw: random.Random) -> Tensor:
    """bool (T, 1, S, S): where the object is; it moves across the view."""
    speed, heading = _speed(draw) / 2, draw.uniform(0, 2 * math.pi)
    x, y = draw.uniform(0.2, 0.8) * size, draw.uniform(0.2, 0.8) * size
    across, along = draw.uniform(0.1, 0.35) * size, draw.uniform(0.1, 0.35) * size
    t = torch.arange(frames).view(-1, 1, 1, 1)
    axis = torch.arange(size)
    dx = (axis.view(1, 1, 1, -1) - x - speed * t * math.cos(heading)) / across
    dy = (axis.view(1, 1, -1, 1) - y - speed * t * math.sin(heading)) / along
    return dx.square() + dy.square() < 1
