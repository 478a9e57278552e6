"""Pictures to predict from, and what they predict: exact networks for prediction alone.

    latents of t-1 --ReferenceSynthesis (with the moved picture that t-1 was predicted from)--> reference picture
    reference picture, moved --PredictionAnalysis--> predicted latents of every level, features of every working stride

Both begin as the layers of an `lbc` image stage (Xie et al., arXiv 2105.13978, Figure 2), put on the priors' grid, and
go on learning from there: the synthesis also sees the moved picture, whose errors are other ones than those of the
frame's own symbols, so that a reference picture is better than the picture that is shown. Symbols and shown pictures
stay those of the image stage. A frame's sides are multiples of its coarsest stride.

Shapes: pictures (B, H, W, 3) as vidlbc.codec.motion.warp makes them; latents (B, H_l, W_l, C_l); channels last.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vidlbc.codec.image_stage.blocks import DepthwiseBlock
from vidlbc.codec.image_stage.lbc import LBC, STRIDES
from vidlbc.codec.motion.warp import CONTRAST
from vidlbc.codec.prior.grid import Block, Linear, depth_to_space, snap, space_to_depth
from vidlbc.codec.prior.topdown import Level, QPTable

_RATIOS = (STRIDES[0], *(coarse // fine for fine, coarse in zip(STRIDES[:-1], STRIDES[1:], strict=True)))
_PIXELS = 3 * STRIDES[0] ** 2


class ReferenceSynthesis(nn.Module):
    """`forward(latents, qp, moved)` -> the reference picture of a frame; `moved` is None where it has no past."""

    def __init__(
        self,
        levels: Sequence[Level],
        widths: Sequence[int],
        blocks: Sequence[int],
        fusion: int = 64,
        fusion_blocks: int = 2,
    ):
        """`widths` and `blocks` of the strides, fine to coarse; `fusion`: width of what mixes in the moved picture."""
        super().__init__()
        self.lift = nn.ModuleList([Linear(level.channels, w) for level, w in zip(levels, widths, strict=True)])
        self.decode = nn.ModuleList([_stack(w, n) for w, n in zip(widths, blocks, strict=True)])
        outputs = [_PIXELS, *[r * r * w for r, w in zip(_RATIOS[1:], widths[:-1], strict=True)]]
        self.up = nn.ModuleList([Linear(w, o) for w, o in zip(widths, outputs, strict=True)])
        self.modulate = nn.ModuleList([QPTable(w) for w in widths])
        self.enter = Linear(widths[0] + 2 * _PIXELS, fusion)
        self.trust = QPTable(fusion)
        self.fuse = _stack(fusion, fusion_blocks)
        self.leave = Linear(fusion, _PIXELS)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, latents: Sequence[Tensor], qp: Tensor, moved: Tensor | None = None) -> Tensor:
        features, picture = self.alone(latents, qp)
        return self.picture(picture if moved is None else self.mixed(features, picture, qp, moved))

    def alone(self, latents: Sequence[Tensor], qp: Tensor) -> tuple[Tensor, Tensor]:
        """From a frame's own latents: features and the picture, folded, (B, H/4, W/4, C) each."""
        features, up = self.level(len(latents) - 1, latents[-1], qp, None)
        for index in reversed(range(len(latents) - 1)):
            features, up = self.level(index, latents[index], qp, up)
        return features, up

    def level(self, index: int, latent: Tensor, qp: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """One level of `alone`: features, and what the next finer level has of them as its `coarser`; of the finest,
        the picture, folded."""
        lifted = self.lift[index](snap(latent.clone()))
        x = snap(lifted if coarser is None else lifted + coarser)
        x = self.decode[index](snap(x * (1 + self._rows(self.modulate[index], qp))))
        up = self.up[index](x)
        return x, depth_to_space(up, _RATIOS[index]) if index else snap(up)

    def mixed(self, features: Tensor, picture: Tensor, qp: Tensor, moved: Tensor) -> Tensor:
        """What `alone` gave, and the moved picture -> the reference, folded."""
        before = space_to_depth(moved, STRIDES[0])
        # The difference of two values of the grid reaches to 24, where sums would not be exact.
        y = snap(self.enter(torch.cat([features, picture, snap(before - picture)], -1)))
        y = snap(y * (1 + self._rows(self.trust, qp)))
        return snap(picture + self.leave(self.fuse(y)))

    @staticmethod
    def picture(folded: Tensor) -> Tensor:
        """(B, H/4, W/4, 48) -> (B, H, W, 3)."""
        return depth_to_space(folded, STRIDES[0])

    @property
    def own(self) -> tuple[nn.Module, ...]:
        """What turns a frame's own latents into a picture."""
        return self.lift, self.decode, self.up, self.modulate

    @property
    def fusion(self) -> tuple[nn.Module, ...]:
        """What mixes in the moved picture."""
        return self.enter, self.trust, self.fuse, self.leave

    @staticmethod
    def _rows(table: nn.Module, qp: Tensor) -> Tensor:
        row: Tensor = table(qp)
        return snap(row)[:, None, None]


class PredictionAnalysis(nn.Module):
    """`forward(moved)` -> predicted latents and features x_l of every level, fine to coarse."""

    def __init__(self, levels: Sequence[Level], widths: Sequence[int], blocks: Sequence[int]):
        super().__init__()
        inputs = [_PIXELS, *[r * r * w for r, w in zip(_RATIOS[1:], widths[:-1], strict=True)]]
        self.down = nn.ModuleList([Linear(i, w) for i, w in zip(inputs, widths, strict=True)])
        self.encode = nn.ModuleList([_stack(w, n) for w, n in zip(widths, blocks, strict=True)])
        self.project = nn.ModuleList([Linear(w, level.channels) for level, w in zip(levels, widths, strict=True)])

    def forward(self, moved: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x, latents, features = moved, [], []
        for index, ratio in enumerate(_RATIOS):
            x = self.encode[index](snap(self.down[index](space_to_depth(x, ratio))))
            features.append(x)
            latents.append(snap(self.project[index](x)))
        return latents, features


def _stack(width: int, count: int) -> nn.Sequential:
    """The image stage's depth-wise blocks (vidlbc.codec.image_stage.blocks.DepthwiseBlock) on the grid."""
    return nn.Sequential(*[Block(width, slope=0.1) for _ in range(count)])


def take_over(synthesis: ReferenceSynthesis, analysis: PredictionAnalysis, stage: LBC) -> None:
    """Set both to the image stage's own transforms, as far as they have its layers: of more blocks than there are here
    the first ones, of blocks of another kind than the depth-wise none."""
    theirs = {n: x[..., 0, 0] if x.shape[2:] == (1, 1) else x for n, x in stage.state_dict().items()}
    for index, ratio in enumerate(_RATIOS):
        scale = CONTRAST if index == 0 else 1.0
        down, up, bias = (theirs[name] for name in (f"down.{index}.weight", f"up.{index}.weight", f"up.{index}.bias"))
        _set(analysis, f"down.{index}.weight", _folded(down, ratio, 1) / scale)
        _set(analysis, f"down.{index}.bias", theirs[f"down.{index}.bias"])
        _set(synthesis, f"up.{index}.weight", _folded(up, ratio, 0) * scale)
        _set(synthesis, f"up.{index}.bias", _folded(bias[:, None], ratio, 0)[:, 0] * scale)
        _set(synthesis, f"modulate.{index}.anchors", theirs[f"modulate.{index}.anchors"])
        for kind in ("weight", "bias"):
            _set(analysis, f"project.{index}.{kind}", theirs[f"project.{index}.{kind}"])
            _set(synthesis, f"lift.{index}.{kind}", theirs[f"lift.{index}.{kind}"])
        _take_blocks(analysis, "encode", index, stage.encode[index], theirs)
        _take_blocks(synthesis, "decode", index, stage.decode[index], theirs)


def _take_blocks(target: nn.Module, name: str, index: int, stack: nn.Module, theirs: Mapping[str, Tensor]) -> None:
    known = [place for place, block in stack.named_children() if isinstance(block, DepthwiseBlock)]
    mine = {key for key, _ in target.named_parameters()}
    for number, place in enumerate(known):
        for part in ("depthwise", "expand", "reduce"):
            for kind in ("weight", "bias"):
                if (key := f"{name}.{index}.{number}.{part}.{kind}") in mine:
                    _set(target, key, theirs[f"{name}.{index}.{place}.{part}.{kind}"])


@torch.no_grad()
def _set(module: nn.Module, name: str, value: Tensor) -> None:
    module.get_parameter(name).copy_(value)


def _folded(weight: Tensor, ratio: int, dim: int) -> Tensor:
    """Channels along `dim` in the order of pixel (un)shuffling, (C, r, r), to that of space to depth, (r, r, C)."""
    return weight.unflatten(dim, (-1, ratio * ratio)).transpose(dim, dim + 1).flatten(dim, dim + 1)
