"""Refines a decoded frame from the frames decoded before it: the same symbols, no bits, a better picture.

    frame t: synthesis --> stride-8 features, picture x'_t
             match(features t) . match(features t-1) in 12x12 windows --> what the past held there, where it was
             --> flow --> refined picture t-1 moved to t --+
    refined picture t = x'_t + gate * (moved - x'_t) + correction    gate and correction: zero before training

The noise of quantisation differs from frame to frame, the content stays: a running mean along the motion has less of
it. Moved pictures folded into channels are those of Sajjadi et al., Frame-Recurrent Video Super-Resolution (arXiv
1801.04590); the motion comes from decoded features on both sides, so none is sent. Plain floating point, unlike the
priors: a rounding that differs here moves a grey level, never a symbol.

Shapes: B clips; features (B, F, H/8, W/8) and pictures (B, 3, H, W) of padded frames.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.image_stage.blocks import DepthwiseBlock
from vidlbc.prior.topdown import QPTable

STRIDE = 8
_FOLD = 4
_FOLDED = 3 * _FOLD**2
_BLOCK = 4
# Where the moved past and the present differ by more than the noise of quantisation, they show different things. Fitted
# on decoded clips: the best weight of the past falls from 0.8 to 0.1 over this slope, around this log mean square.
_CENTRE, _SLOPE, _LEAST_ENERGY = -8.0, 0.8, 1e-6
# Match features, hidden map and refined picture of the frame before; () where there is none.
State = tuple[Tensor, ...]


class WindowMatch(nn.Module):
    """For each place of the present, what it looks like in the past: values read there, and how far away that is."""

    keys: Tensor
    queries: Tensor
    index: Tensor

    def __init__(self, channels: int, heads: int = 2, margin: int = 4):
        super().__init__()
        self.heads, self.margin = heads, margin
        self.match = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        reach = _BLOCK + margin - 1
        self.bias = nn.Parameter(torch.zeros(heads, (2 * reach + 1) ** 2))
        query, key = torch.arange(_BLOCK), torch.arange(_BLOCK + 2 * margin) - margin
        offset = key[None] - query[:, None]
        place = (offset + reach)[:, None, :, None] * (2 * reach + 1) + (offset + reach)[None, :, None, :]
        self.register_buffer("index", place.reshape(_BLOCK**2, -1), persistent=False)
        self.register_buffer("keys", _places(key), persistent=False)
        self.register_buffer("queries", _places(query), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """What is compared, unit length a head."""
        return F.normalize(self.match(x).unflatten(1, (self.heads, -1)), dim=2).flatten(1, 2)

    def forward(self, present: Tensor, past: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """`present`, `past`: of `features`; -> values (B, C, H, W), displacements in cells (B, 2 * heads, H, W)."""
        batch, channels, height, width = present.shape
        rows, columns = height // _BLOCK, width // _BLOCK
        query = self._windows(present, _BLOCK) * self.log_scale.exp()
        around = (self.margin,) * 4
        key, value = (self._windows(F.pad(x, around), _BLOCK + 2 * self.margin) for x in (past, self.value(hidden)))
        places = self.keys.expand(*value.shape[:2], -1, -1)
        value = torch.cat([value, places], -1)
        read = F.scaled_dot_product_attention(query, key, value, self.bias[:, self.index], scale=1.0)
        # (B * rows * columns, heads, 16, C / heads + 2) -> (B, heads, C / heads + 2, H, W)
        read = torch.cat([read[..., :-2], read[..., -2:] - self.queries], -1)
        read = read.view(batch, rows, columns, self.heads, _BLOCK, _BLOCK, -1)
        read = read.permute(0, 3, 6, 1, 4, 2, 5).reshape(batch, self.heads, -1, height, width)
        return read[:, :, :-2].flatten(1, 2), read[:, :, -2:].flatten(1, 2)

    def _windows(self, x: Tensor, size: int) -> Tensor:
        """(B, C, H, W) -> (B * rows * columns, heads, size * size, C / heads), a window every 4 cells."""
        windows = x.permute(0, 2, 3, 1).unfold(1, size, _BLOCK).unfold(2, size, _BLOCK)
        windows = windows.unflatten(3, (self.heads, -1)).permute(0, 1, 2, 3, 5, 6, 4)
        return windows.reshape(-1, self.heads, size * size, x.shape[1] // self.heads)


def _places(axis: Tensor) -> Tensor:
    """(n,) -> (n * n, 2): x, y."""
    y, x = torch.meshgrid(axis.float(), axis.float(), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


class Refined(NamedTuple):
    """`moved`: the refined picture before, moved to this frame's time; None where there is none."""

    picture: Tensor
    state: State
    moved: Tensor | None


class VideoDecoder(nn.Module):
    """`features`: channels of the image stage's stride-8 decoder features; the other options are its size."""

    def __init__(self, features: int, width: int = 64, fine: int = 64, blocks: int = 2, fine_blocks: int = 2, mode: str = "warp"):
        super().__init__()
        self.mode = mode
        self.reduce = nn.Conv2d(features, width, 1)
        self.modulate, self.modulate_fine = QPTable(width), QPTable(fine)
        self.matcher = WindowMatch(width)
        self.null = nn.Parameter(torch.zeros(2 * width + 2 * self.matcher.heads))
        self.null_fine = nn.Parameter(torch.zeros(_FOLDED))
        self.fuse = nn.Conv2d(3 * width + 2 * self.matcher.heads, width, 1)
        self.blocks = nn.Sequential(*[DepthwiseBlock(width, kernel=5) for _ in range(blocks)])
        self.flow = nn.Conv2d(width, 2 * 4, 1)
        self.up = nn.Conv2d(width, fine * 4, 1)
        self.fuse_fine = nn.Conv2d(2 * _FOLDED + 1, fine, 1)
        self.fine_blocks = nn.Sequential(*[DepthwiseBlock(fine) for _ in range(fine_blocks)])
        self.trust = QPTable(2)
        self.gate, self.correct = nn.Conv2d(fine, _FOLDED, 1), nn.Conv2d(fine, _FOLDED, 1)
        for layer in (self.flow, self.gate, self.correct):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, picture: Tensor, qp: Tensor, state: State) -> Refined:
        """One frame; `qp` (B,), `state` () before the first."""
        x = self.reduce(features)
        matched = self.matcher.features(x)
        x = x * (1 + self.modulate(qp)[:, :, None, None])
        if state:
            before, hidden, refined = state
            if self.mode == "same":
                read, away = torch.zeros_like(x), x.new_zeros(x.shape[0], 4, *x.shape[2:])
            else:
                read, away = self.matcher(matched, before, hidden)
            past = torch.cat([read, hidden, away], 1)
        else:
            past = self.null[None, :, None, None].expand(len(x), -1, *x.shape[2:])
        x = self.blocks(self.fuse(torch.cat([x, past], 1)))
        folded = F.pixel_unshuffle(picture - 0.5, _FOLD)
        moved = None
        if state:
            moved = refined if self.mode != "warp" else warp(refined, F.pixel_shuffle(self.flow(x), 2))
            of_past = F.pixel_unshuffle(moved - 0.5, _FOLD)
            difference = of_past - folded
        else:
            difference = self.null_fine[None, :, None, None].expand_as(folded)
        energy = F.avg_pool2d(difference.square().mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        energy = (energy + _LEAST_ENERGY).log()
        y = self.fuse_fine(torch.cat([folded, difference, energy], 1)) + F.pixel_shuffle(self.up(x), 2)
        y = self.fine_blocks(F.leaky_relu(y * (1 + self.modulate_fine(qp)[:, :, None, None]), 0.1))
        refined = picture + F.pixel_shuffle(self.correct(y), _FOLD)
        if moved is not None:
            strength, centre = (10 * self.trust(qp))[:, :, None, None].chunk(2, 1)
            fading = F.interpolate(_SLOPE * (_CENTRE + centre - energy), scale_factor=_FOLD, mode="bilinear")
            gate = strength * torch.sigmoid(fading + F.pixel_shuffle(self.gate(y), _FOLD))
            refined = refined + gate * (moved - picture)
        return Refined(refined, (matched, x, refined), moved)


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture (B, 3, H, W) seen where `flow` (B, 2, H/4, W/4) points: x, y in cells of stride 8."""
    height, width = picture.shape[-2:]
    flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    y = (torch.arange(height, device=picture.device, dtype=picture.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=picture.device, dtype=picture.dtype) * 2 + 1) / width - 1
    grid = torch.stack([x + flow[:, 0] * (2 * STRIDE / width), y[:, None] + flow[:, 1] * (2 * STRIDE / height)], -1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
