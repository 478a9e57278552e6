"""Refines a decoded frame from the frames decoded before it: the same symbols, no bits, a better picture.

    frame t: synthesis --> stride-8 features, picture x'_t
             x'_t matched with refined picture t-1, 8 pixels around each block --> motion
             refined picture t-1, moved to t --+
    refined picture t = x'_t + trust * (moved - x'_t) + correction      trust and correction: zero before training

The noise of quantisation differs from frame to frame, the content stays: a running mean along the motion has less of
it. How far the past is trusted falls with how much it differs, which rules out what has changed: scene cuts, and places
whose motion was not found. Moved pictures folded into channels are those of Sajjadi et al., Frame-Recurrent Video
Super-Resolution (arXiv 1801.04590); the motion comes from what both sides have decoded, so none is sent. Plain floating
point, unlike the priors: a rounding that differs here moves a grey level, never a symbol.

Shapes: B clips; features (B, F, H/8, W/8) and pictures (B, 3, H, W) of padded frames; inside, channels last.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.prior.grid import depth_to_space, space_to_depth
from vidlbc.codec.prior.topdown import QPTable

_STRIDE, _FOLD = 8, 4
_FOLDED = 3 * _FOLD**2
# Blocks are matched at half resolution.
_HALF, _REACH = 2, 4
_SHARPEST, _STILL = 2000.0, 0.3
# Where the moved past and the present differ by more than the noise of quantisation, they show different things. The
# best weight of the past, fitted on decoded validation clips, falls from 0.8 to 0.1 along this slope, around this
# logarithm of the mean square of the difference.
_CENTRE, _SLOPE, _LEAST = -8.0, 0.8, 1e-6

# Hidden map and refined picture of the frame before; () where there is none.
State = tuple[Tensor, ...]


class Refined(NamedTuple):
    """`moved`: the refined picture before, moved to this frame's time, (B, 3, H, W); None where there is none."""

    picture: Tensor
    state: State
    moved: Tensor | None


class Block(nn.Module):
    """Residual, (B, H, W, C): depth-wise k x k, then a two-layer network. Its last layer starts at zero."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.expand, self.reduce = nn.Linear(channels, channels), _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.reduce(F.leaky_relu(self.expand(y), 0.1))


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MotionSearch(nn.Module):
    """Block matching with a soft minimum: of the squared difference of 24x24 pixels around each 8x8, 8 pixels each way.

    No network: on decoded pictures this finds motion before anything is trained, which cosines of features do not
    (docs/log.md). Learned are, for each QP, how sharp the minimum is and how much standing still is preferred.
    """

    offsets: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = QPTable(2)
        axis = torch.arange(-_REACH, _REACH + 1) * (_HALF / _STRIDE)
        offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)  # rows of x, y
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, present: Tensor, past: Tensor, qp: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) -> where each cell of the present was, (B, H/8, W/8, 2): x, y in cells of stride 8."""
        present, past = (F.avg_pool2d(x.detach().mean(1, keepdim=True), _HALF) for x in (present, past))
        height, width = present.shape[-2:]
        around = F.pad(past, (_REACH,) * 4, mode="replicate")[:, 0]
        side, steps, costs = _STRIDE // _HALF, range(2 * _REACH + 1), []
        for y in steps:
            shifted = torch.stack([around[:, y : y + height, x : x + width] for x in steps], 1)
            # Sums along rows, then columns: a third of the time of avg_pool2d.
            rows = (shifted - present).square_().unflatten(2, (-1, side)).sum(3)
            costs.append(rows.unflatten(3, (-1, side)).sum(4) / side**2)
        cost = F.avg_pool2d(torch.cat(costs, 1), 3, 1, 1, count_include_pad=False).permute(0, 2, 3, 1)
        sharp, still = self.sharpness(qp)[:, None, None].exp().chunk(2, -1)
        likely = -_SHARPEST * sharp * (cost - cost.amin(-1, keepdim=True)) - _STILL * still * self.offsets.norm(dim=-1)
        return likely.softmax(-1) @ self.offsets


class VideoDecoder(nn.Module):
    """`features`: channels of the image stage's features. `width`, `blocks`: at stride 8; `fine...`: at stride 4."""

    def __init__(self, features: int, width: int = 64, blocks: int = 2, fine: int = 48, fine_blocks: int = 2):
        super().__init__()
        self.reduce = nn.Linear(features, width)
        self.modulate, self.modulate_fine = QPTable(width), QPTable(fine)
        self.search = MotionSearch()
        self.null = nn.Parameter(torch.zeros(width + 2))
        self.fuse = nn.Linear(2 * width + 2, width)
        self.blocks = nn.Sequential(*[Block(width, 5) for _ in range(blocks)])
        self.motion = _zero(nn.Linear(width, 2 * (_STRIDE // _FOLD) ** 2))
        self.up = nn.Linear(width, fine * (_STRIDE // _FOLD) ** 2)
        self.null_fine = nn.Parameter(torch.zeros(_FOLDED + 1))
        self.fuse_fine = nn.Linear(2 * _FOLDED + 1, fine)
        self.fine_blocks = nn.Sequential(*[Block(fine, 3) for _ in range(fine_blocks)])
        self.trust = QPTable(2)
        self.gate, self.correct = _zero(nn.Linear(fine, _FOLDED)), _zero(nn.Linear(fine, _FOLDED))

    def forward(self, features: Tensor, picture: Tensor, qp: Tensor, state: State) -> Refined:
        """One frame; `qp` (B,), `state` () before the first."""
        x = self.reduce(features.permute(0, 2, 3, 1))
        x = x * (1 + self.modulate(qp))[:, None, None]
        past = self.null.expand(*x.shape[:3], -1)
        if state:
            hidden, refined = state
            found = self.search(picture, refined, qp)
            past = torch.cat([hidden, found], -1)
        x = self.blocks(self.fuse(torch.cat([x, past], -1)))
        folded, moved = space_to_depth(picture.permute(0, 2, 3, 1), _FOLD), None
        past = self.null_fine.expand(*folded.shape[:3], -1)
        if state:
            motion = found.repeat(1, 1, 1, (_STRIDE // _FOLD) ** 2) + self.motion(x)
            moved = warp(refined, depth_to_space(motion, _STRIDE // _FOLD).permute(0, 3, 1, 2))
            difference = space_to_depth(moved.permute(0, 2, 3, 1), _FOLD) - folded
            energy = difference.square().mean(-1)[:, None]
            energy = (F.avg_pool2d(energy, 3, 1, 1, count_include_pad=False) + _LEAST).log().permute(0, 2, 3, 1)
            past = torch.cat([difference, energy], -1)
        y = self.fuse_fine(torch.cat([folded - 0.5, past], -1)) + depth_to_space(self.up(x), _STRIDE // _FOLD)
        y = self.fine_blocks(F.leaky_relu(y * (1 + self.modulate_fine(qp))[:, None, None], 0.1))
        change = self.correct(y)
        if state:
            # Ten times the parameters: they reach their values in tens of steps.
            strength, centre = (10 * self.trust(qp))[:, None, None].chunk(2, -1)
            change = change + strength * torch.sigmoid(_SLOPE * (_CENTRE + centre - energy) + self.gate(y)) * difference
        refined = picture + depth_to_space(change, _FOLD).permute(0, 3, 1, 2)
        return Refined(refined, (x, refined), moved)


def warp(picture: Tensor, motion: Tensor) -> Tensor:
    """The picture (B, 3, H, W) seen where `motion` (B, 2, H/4, W/4) points: x, y in cells of stride 8."""
    height, width = picture.shape[-2:]
    motion = F.interpolate(motion, size=(height, width), mode="bilinear", align_corners=False)
    y = (torch.arange(height, device=picture.device, dtype=picture.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=picture.device, dtype=picture.dtype) * 2 + 1) / width - 1
    across, down = motion[:, 0] * (2 * _STRIDE / width), motion[:, 1] * (2 * _STRIDE / height)
    grid = torch.stack([x + across, y[:, None] + down], -1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
