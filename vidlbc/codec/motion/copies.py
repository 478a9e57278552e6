"""Blocks that are not coded: they show what the moved picture shows.

Of each block of 16x16 pixels a flag says whether it is *copied*: its reference picture is the moved picture, and its
symbols are what that picture predicts, rounded (as skipped blocks of HEVC and VP9, which have no residual). Of a level
whose cells are larger nothing is coded where all the blocks of a cell are copied. Where a moved picture is as good as
what symbols could make of it, they would say nothing but noise.

Flags are coded after a frame's vectors, pass by pass as these are (vidlbc.codec.motion.prior), from what is known
around each block and from the flags of the frame before, moved.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.motion.field import LIMIT, commonest, enlarged, moved_cells, neighbours
from vidlbc.codec.motion.prior import Asked, Code, Network, Run, passes_of
from vidlbc.codec.prior.grid import snap

BLOCK = 16  # pixels
# Of a block: its flag of the frame before and those around, whether its vectors differ, which of its neighbours' differ
# from its own, whether that is of whole pixels down and right, how long it is; and its neighbours' flags.
_SEEN = 1 + 4 + 1 + 4 + 2 + 1
_FEATURES = _SEEN + 4
_LONG = 256  # quarters of a pixel
ASKING = tuple(f"copies{number}" for number in range(5))
STEPS = ("seen", *ASKING)


class CopyPrior(nn.Module):
    """`walk` codes the flags of frames; `bits` is what they take (training)."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.passes = nn.ModuleList([Network(1, width, _FEATURES) for _ in ASKING])

    def walk(
        self,
        qp: Tensor,
        before: Tensor,
        field: Tensor,
        code: Code,
        copied: Tensor | None = None,
        run: Run | None = None,
    ) -> Tensor:
        """Code flags, or decode them where they are None; bool (B, H/16, W/16).

        `before`: flags of the frames before; `field`: vectors of these frames, int32 (B, H/8, W/8, 2). `code`, `run`:
        as of VectorPrior.walk.
        """
        run = run or self.step
        (seen,) = run("seen", before, field)
        flags = torch.zeros(seen.shape[:3], device=seen.device)  # 1: copied, -1: not, 0: not known
        for number, (here, _, _) in enumerate(passes_of(*seen.shape[1:3])):
            here = here.to(seen.device)
            asked = Asked(*run(f"copies{number}", qp, seen, flags))
            truth = None if copied is None else copied.flatten(1)[:, here].int()
            found = code(asked, 0, truth, None) != 0
            flags = flags.flatten(1).index_copy(1, here, found.float() * 2 - 1).view_as(flags)
        return flags > 0

    def step(self, name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What is computed between symbols, one of `STEPS`, as a function of tensors."""
        return self._seen_step(*tensors) if name == "seen" else self._pass_step(int(name[-1]), *tensors)

    def _seen_step(self, before: Tensor, field: Tensor) -> tuple[Tensor, ...]:
        """What is known of each block before any flag is, (B, h, w, _SEEN)."""
        own = commonest(field)
        was = moved_cells(before.float()[..., None], own, BLOCK)
        around = neighbours(was)[..., 0]
        mixed = F.max_pool2d((field != enlarged(own)).any(-1).float()[:, None], 2)[:, 0]
        apart = (neighbours(own) != own[..., None, :]).any(-1).float()
        between = (own & 3 != 0).float()
        length = own.abs().sum(-1).clamp_max(_LONG).float() / 64
        return (torch.cat([was, around, mixed[..., None], apart, between, length[..., None]], -1),)

    def _pass_step(self, number: int, qp: Tensor, seen: Tensor, flags: Tensor) -> tuple[Tensor, ...]:
        """Distributions of the flags of one pass, (B, n, 1)."""
        here, around, valid = (x.to(seen.device) for x in passes_of(*seen.shape[1:3])[number])
        near = torch.where(valid, flags.flatten(1)[:, around], 0.0)
        out: tuple[Tensor, Tensor] = self.passes[number](snap(torch.cat([seen.flatten(1, 2)[:, here], near], -1)), qp)
        return out

    def bits(
        self, qp: Tensor, before: Tensor, field: Tensor, copied: Tensor, cost: Callable[[Tensor, Distribution], Tensor]
    ) -> Tensor:
        """Bits of the flags of each of B frames; `cost`: as of VectorPrior.bits."""
        total = torch.zeros(len(field), device=field.device)

        def code(asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
            nonlocal total
            assert truth is not None
            total = total + cost(truth.float(), Distribution(asked.mean[..., 0], asked.log2_scale[..., 0])).sum(-1)
            return truth

        self.walk(qp, before, field, code, copied)
        return total


def copied_at(copied: Tensor, stride: int) -> Tensor:
    """Flags (B, H/16, W/16) -> what of each cell of a stride is copied, float32 (B, H/stride, W/stride)."""
    x = copied.float()
    if stride < BLOCK:
        return x.repeat_interleave(BLOCK // stride, 1).repeat_interleave(BLOCK // stride, 2)
    return x if stride == BLOCK else F.avg_pool2d(x[:, None], stride // BLOCK)[:, 0]


def copied_symbols(latent: Tensor, gain: Tensor) -> Tensor:
    """What the symbols of copied blocks are: predicted latents (B, H, W, C), gains (B, C) -> whole numbers, float32."""
    return (latent.detach() * gain[:, None, None]).round_().clamp_(-LIMIT, LIMIT)


def with_copies(picture: Tensor, moved_picture: Tensor, copied: Tensor) -> Tensor:
    """Reference pictures (B, H, W, 3) with their copied blocks, both of one type."""
    return torch.where(copied_at(copied, 1)[..., None] > 0, moved_picture, picture)
