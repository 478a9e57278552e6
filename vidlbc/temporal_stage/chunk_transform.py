"""Latents of a chunk of frames to one chunk latent and back: what kind `chunk` codes.

    u_1..u_T --axes--> rotated ----------------------> (+) --> c      axes: orthonormal, space-time KLT of a cell
        \\--embed--> blocks (space, across frames) --squeeze--/

    c --axes^T--> u ---------------------------------> (+) --> u'_1..u'_T
      \\--expand--> blocks (space, across frames) --restore--/         every frame of its own features, all at once

Both are a linear transform, set before training to the Karhunen-Loeve transform of real chunks, plus what a network
adds, which starts at zero. The scheme of one latent for 8 frames without motion search is that of DCVC-UF (arXiv
2606.04410); there, it is learned end to end from pixels, here on top of frozen per-frame latents.

Shapes: B chunks of T frames. *Maps* are lists, one a working stride, fine to coarse, of (B, T, C_s, H_s, W_s); the
levels that are worked on at one stride are folded there and joined. Chunk latents are (B, M_s, H_s, W_s).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.image_stage.blocks import DepthwiseBlock
from vidlbc.prior.topdown import Level, QPTable, levels_at

_WINDOW = 4
_HEAD = 32


class AcrossFrames(nn.Module):
    """Residual attention among all frames of a chunk, in 4x4 windows of space; its last layer starts at zero."""

    index: Tensor

    def __init__(self, channels: int, frames: int, shift: int = 0):
        """`shift`: cells by which windows are moved, so that successive layers join different ones."""
        super().__init__()
        self.heads, self.frames, self.shift = max(1, channels // _HEAD), frames, shift
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # A bias for each offset in time and space.
        times, places = 2 * frames - 1, 2 * _WINDOW - 1
        self.bias = nn.Parameter(torch.zeros(self.heads, times * places * places))
        axes = torch.meshgrid(torch.arange(frames), torch.arange(_WINDOW), torch.arange(_WINDOW), indexing="ij")
        token = torch.stack([axis.flatten() for axis in axes])
        offset = token[:, :, None] - token[:, None, :]
        offset += torch.tensor([frames - 1, _WINDOW - 1, _WINDOW - 1])[:, None, None]
        self.register_buffer("index", (offset[0] * places + offset[1]) * places + offset[2], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> the same."""
        batch, frames, channels, height, width = x.shape
        top = self.shift
        bottom, right = (-(side + top) % _WINDOW for side in (height, width))
        padded = F.pad(self.norm(x.flatten(0, 1)), (top, right, top, bottom))
        rows, columns = padded.shape[-2] // _WINDOW, padded.shape[-1] // _WINDOW
        windows = padded.view(batch, frames, channels, rows, _WINDOW, columns, _WINDOW)
        tokens = windows.permute(0, 3, 5, 1, 4, 6, 2).reshape(batch * rows * columns, -1, channels)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, self.bias[:, self.index].to(query.dtype))
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        mixed = mixed.view(batch, rows, columns, frames, _WINDOW, _WINDOW, channels).permute(0, 3, 6, 1, 4, 2, 5)
        mixed = mixed.reshape(batch, frames, channels, rows * _WINDOW, columns * _WINDOW)
        return x + mixed[..., top : top + height, top : top + width]


class Stack(nn.Module):
    """Blocks of a depth-wise convolution in space and attention across frames, in turn."""

    def __init__(self, channels: int, frames: int, count: int):
        super().__init__()
        self.space = nn.ModuleList([DepthwiseBlock(channels, expand=2, kernel=5) for _ in range(count)])
        shifts = [index % 2 * (_WINDOW // 2) for index in range(count)]
        self.time = nn.ModuleList([AcrossFrames(channels, frames, shift) for shift in shifts])

    def forward(self, x: Tensor) -> Tensor:
        for space, time in zip(self.space, self.time, strict=True):
            x = time(space(x.flatten(0, 1)).view_as(x))
        return x


class ChunkTransform(nn.Module):
    """See the module."""

    scales: list[Tensor]

    def __init__(
        self, levels: Sequence[Level], frames: int, channels: Sequence[int], widths: Sequence[int], blocks: int = 2
    ):
        """`levels`: of the image stage. One entry of `channels` (of the chunk latent) and `widths` a working stride.

        Raises ValueError where the chunk latent would have more channels than the frames it stands for.
        """
        super().__init__()
        self.image_levels, self.frames = tuple(levels), frames
        self.strides = sorted({level.work_stride for level in levels})
        folded = [level.channels * level.fold**2 for level in levels]
        self.inputs = [sum(folded[i] for i in levels_at(levels, s)) for s in self.strides]
        for wanted, given in zip(channels, self.inputs, strict=True):
            if not 0 < wanted <= given * frames:
                raise ValueError(f"chunk channels {wanted}: expected 1 to {given * frames}, those of {frames} frames")
        self.axes, self.back = nn.ParameterList(), nn.ParameterList()
        self.embed, self.expand = nn.ModuleList(), nn.ModuleList()
        self.squeeze, self.restore = nn.ModuleList(), nn.ModuleList()
        self.analysis_blocks, self.synthesis_blocks = nn.ModuleList(), nn.ModuleList()
        self.down, self.up, self.modulate = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, (inputs, out, width) in enumerate(zip(self.inputs, channels, widths, strict=True)):
            axes = torch.eye(out, frames * inputs)
            self.axes.append(nn.Parameter(axes))
            self.back.append(nn.Parameter(axes.T.clone()))
            self.register_buffer(f"scale_{index}", torch.ones(inputs))
            self.embed.append(nn.Conv2d(inputs, width, 1))
            self.expand.append(nn.Conv2d(out, frames * width, 1))
            self.squeeze.append(_zero(nn.Conv2d(frames * width, out, 1)))
            self.restore.append(_zero(nn.Conv2d(width, inputs, 1)))
            self.analysis_blocks.append(Stack(width, frames, blocks))
            self.synthesis_blocks.append(Stack(width, frames, blocks))
            self.modulate.append(QPTable(width))
            if index:
                self.down.append(nn.Conv2d(4 * widths[index - 1], width, 1))
                self.up.append(nn.Conv2d(width, 4 * widths[index - 1], 1))

    # -- latents of frames and maps ------------------------------------------------------------------------------------

    def maps(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Latents of frames, (B * T, C_l, H_l, W_l) a level, frame index fastest -> maps, scaled."""
        out = []
        for index, stride in enumerate(self.strides):
            parts = [F.pixel_unshuffle(latents[i], self.image_levels[i].fold) for i in self._levels_at(stride)]
            out.append(torch.cat(parts, 1).unflatten(0, (-1, self.frames)) * self._scale(index))
        return out

    def latents(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The inverse of `maps`."""
        out: list[Tensor] = [torch.empty(0)] * len(self.image_levels)
        for index, stride in enumerate(self.strides):
            joined = (maps[index] / self._scale(index)).flatten(0, 1)
            here = self._levels_at(stride)
            sizes = [self.image_levels[i].channels * self.image_levels[i].fold ** 2 for i in here]
            for i, part in zip(here, joined.split(sizes, 1), strict=True):
                out[i] = F.pixel_shuffle(part, self.image_levels[i].fold)
        return out

    # -- the transform -------------------------------------------------------------------------------------------------

    def analysis(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps -> chunk latents."""
        out = []
        finer: Tensor | None = None
        for index, u in enumerate(maps):
            x = _each(self.embed[index], u)
            if finer is not None:
                x = x + _each(self.down[index - 1], F.pixel_unshuffle(finer, 2))
            finer = self.analysis_blocks[index](x)
            linear = torch.einsum("mk,bkhw->bmhw", self.axes[index].to(u.dtype), u.flatten(1, 2))
            out.append(linear + self.squeeze[index](finer.flatten(1, 2)))
        return out

    def synthesis(self, chunk: Sequence[Tensor], qp: Tensor) -> list[Tensor]:
        """Dequantised chunk latents, qp (B,) -> maps."""
        out: list[Tensor] = [torch.empty(0)] * len(chunk)
        coarser: Tensor | None = None
        for index in reversed(range(len(chunk))):
            c = chunk[index]
            x = self.expand[index](c).unflatten(1, (self.frames, -1))
            if coarser is not None:
                x = x + F.pixel_shuffle(_each(self.up[index], coarser), 2)
            # How far to trust a coefficient depends on how coarsely it was quantised.
            x = x * (1 + self.modulate[index](qp)[:, None, :, None, None])
            coarser = self.synthesis_blocks[index](x)
            linear = torch.einsum("km,bmhw->bkhw", self.back[index].to(c.dtype), c).unflatten(1, (self.frames, -1))
            out[index] = linear + _each(self.restore[index], coarser)
        return out

    @torch.no_grad()
    def set_to(self, latents: Sequence[Tensor], units: Sequence[Tensor]) -> list[Tensor]:
        """Start of training: the linear part becomes the KLT of these latents (as `maps` takes them).

        `units`: (C_l,) a level, what its latents are multiplied by so that one step of quantisation is the same
        throughout. Returns the standard deviations of all axes of each stride, by falling variance.
        """
        for index, stride in enumerate(self.strides):
            here = self._levels_at(stride)
            parts = [units[i].repeat_interleave(self.image_levels[i].fold ** 2) for i in here]
            self._scale(index).copy_(torch.cat(parts)[:, None, None])
        deviations = []
        for index, u in enumerate(self.maps(latents)):
            samples = u.flatten(1, 2).permute(0, 2, 3, 1).flatten(0, 2).double()
            values, vectors = torch.linalg.eigh(samples.T @ samples / len(samples))
            axes = vectors.flip(1).T.float()[: len(self.axes[index])]
            self.axes[index].copy_(axes)
            self.back[index].copy_(axes.T)
            deviations.append(values.flip(0).clamp_min(0).sqrt().float())
        return deviations

    def _levels_at(self, stride: int) -> list[int]:
        return levels_at(self.image_levels, stride)

    def _scale(self, index: int) -> Tensor:
        scale: Tensor = getattr(self, f"scale_{index}")
        return scale[:, None, None]


def _each(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer on every frame: (B, T, C, H, W)."""
    out: Tensor = layer(x.flatten(0, 1))
    return out.unflatten(0, x.shape[:2])


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
