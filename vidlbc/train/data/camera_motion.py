"""Training clips made from still pictures: a camera that pans, zooms and turns, an object that moves on its own.

Corpora of people rarely show fast pans, sharp large pictures or scenes seen through a moving camera; pictures give all
of them, with motion that is known to be explicable. A batch is made where the pictures lie, on a GPU as on a CPU.
"""

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from vidlbc.train.data.packed import Draw, Packed

# Pixels a frame, log-uniform: from standing still to what leaves the view of a stride-8 attention window.
_SLOWEST, _FASTEST = 0.1, 32.0
# Of the view's side: how much of a picture around the camera's start is looked at; past it, it is mirrored.
_AROUND = 2


def moving_pictures(pictures: Packed, frames: int, size: int, draw: Draw, rows: Tensor) -> Tensor:
    """uint8 (R, frames, size, size, 3): clips for those rows (R,) of the batch that is drawn, each of a picture."""
    area = _regions(pictures, size, draw, rows)
    clip = _view(area, _path(frames, size, draw, rows), size)
    moving = _view(area, _path(frames, size, draw, rows), size)
    inside = _ellipse(frames, size, draw, rows) & (draw.uniform()[rows] < 0.5).view(-1, 1, 1, 1, 1)
    clip = torch.where(inside, moving, clip)
    drift = _sometimes(draw, rows, 0.2, 0.06 * draw.uniform()[rows] - 0.03)  # of the exposure
    clip = clip * (1 + drift.view(-1, 1, 1, 1, 1) * torch.arange(frames, device=clip.device).view(-1, 1, 1, 1))
    noise = _sometimes(draw, rows, 0.3, 0.5 + 5.5 * draw.uniform()[rows])  # of a sensor, new in every frame
    clip = clip + noise.view(-1, 1, 1, 1, 1) * draw.normal(frames, 3, size, size)[rows]
    return clip.round_().clamp_(0, 255).to(torch.uint8).permute(0, 1, 3, 4, 2)


def _sometimes(draw: Draw, rows: Tensor, share: float, value: Tensor) -> Tensor:
    return torch.where(draw.uniform()[rows] < share, value, 0.0)


def _regions(pictures: Packed, size: int, draw: Draw, rows: Tensor) -> Tensor:
    """float (R, 3, A, A): the surroundings of a place in a picture."""
    index = draw.whole(0, len(pictures))[rows]
    side = _AROUND * size
    axis = torch.arange(side, device=rows.device) - side // 2
    places = []
    for extent in (pictures.extents[index, 1], pictures.extents[index, 2]):
        places.append((extent * (0.3 + 0.4 * draw.uniform()[rows])).long()[:, None] + axis)
    cut = pictures.cut(index, torch.zeros_like(index)[:, None], *places)
    return cut[:, 0, ..., :3].permute(0, 3, 1, 2).float()


def _speed(draw: Draw, rows: Tensor) -> Tensor:
    return _sometimes(draw, rows, 0.85, _SLOWEST * (_FASTEST / _SLOWEST) ** draw.uniform()[rows])


def _path(frames: int, size: int, draw: Draw, rows: Tensor) -> Tensor:
    """Affine maps (R, frames, 2, 3) from output pixels, centred, to pixels of the region."""
    # Magnified up to twice, as smooth as large video is, or reduced until the view fills the region.
    smallest, largest = math.log(0.5), min(0.0, math.log(_AROUND) - 0.1)
    scale = torch.exp(smallest + (largest - smallest) * draw.uniform()[rows])
    zoom = 1 + _sometimes(draw, rows, 0.4, 0.01 * draw.normal()[rows])
    angle = 0.6 * draw.uniform()[rows] - 0.3
    turn = _sometimes(draw, rows, 0.3, 0.01 * draw.normal()[rows])
    speed, heading = scale * _speed(draw, rows), 2 * math.pi * draw.uniform()[rows]
    t = torch.arange(frames, device=rows.device)
    s, a = scale[:, None] * zoom[:, None] ** t, angle[:, None] + turn[:, None] * t
    c, d = s * a.cos(), s * a.sin()
    centre = (_AROUND * size - 1) / 2
    x = centre + (speed * heading.cos())[:, None] * t
    y = centre + (speed * heading.sin())[:, None] * t
    return torch.stack([torch.stack([c, -d, x], -1), torch.stack([d, c, y], -1)], -2)


def _view(source: Tensor, maps: Tensor, size: int) -> Tensor:
    """(R, 3, H, W) seen through maps (R, T, 2, 3): (R, T, 3, size, size); mirrored past the borders."""
    height, width = source.shape[-2:]
    axis = torch.arange(size, device=source.device) - (size - 1) / 2
    place = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.ones_like(axis).expand(size, size)], -1)
    grid = torch.einsum("rtij,yxj->rtyxi", maps, place)
    x, y = (2 * grid[..., 0] + 1) / width - 1, (2 * grid[..., 1] + 1) / height - 1
    seen = torch.stack([x, y], -1).flatten(1, 2)  # the frames of a clip below one another: one picture to look at
    frames = F.grid_sample(source, seen, "bicubic", padding_mode="reflection", align_corners=False)
    return rearrange(frames, "b c (t y) x -> b t c y x", y=size)


def _ellipse(frames: int, size: int, draw: Draw, rows: Tensor) -> Tensor:
    """bool (R, T, 1, S, S): where the object is; it moves across the view."""
    speed, heading = _speed(draw, rows) / 2, 2 * math.pi * draw.uniform()[rows]
    t = torch.arange(frames, device=rows.device)
    axis = torch.arange(size, device=rows.device)
    distance = []
    for direction in (heading.cos(), heading.sin()):
        centre = (0.2 + 0.6 * draw.uniform()[rows]) * size
        radius = (0.1 + 0.25 * draw.uniform()[rows]) * size
        along = axis - centre[:, None, None] - (speed * direction)[:, None, None] * t[:, None]
        distance.append((along / radius[:, None, None]).square())
    across, down = distance
    return (across[:, :, None, None, :] + down[:, :, None, :, None]) < 1
