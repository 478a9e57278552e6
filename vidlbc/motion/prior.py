"""Distributions of a frame's vectors: a coarse-to-fine prior as that of latents, given the field of the frame before.

    field of t-1 --> what each level of t would be if nothing changed --> hidden state, and times a gate: the mean
    coarser levels of t --> what the finer ones would be if they followed the frame before

So a vector that goes on costs next to nothing, and so does one that all blocks around it have.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidlbc.motion.field import LEVELS, enlarged, pyramid
from vidlbc.prior.grid import Linear, snap
from vidlbc.prior.topdown import SCALE_OFFSET, Distribution, Gains, TopDownPrior


class VectorPrior(nn.Module):
    """Levels as `vidlbc.motion.field.to_levels` makes them, as float32, fine to coarse."""

    def __init__(self, widths: Sequence[int] = (24, 32, 32)):
        super().__init__()
        self.trunk = TopDownPrior(LEVELS, widths, blocks=1)
        sizes = self.trunk.widths
        self.enter = nn.ModuleList([Linear(2, sizes[level.stride]) for level in LEVELS])
        self.gates = nn.ModuleList([Linear(sizes[level.stride], 2) for level in LEVELS])
        for gate in self.gates:
            nn.init.zeros_(gate.weight)
            nn.init.ones_(gate.bias)
        with torch.no_grad():
            # Begin with scales of what fields are like: the coarsest vectors a pixel or two from those before.
            for head, log2_scale in zip(self.trunk.heads, (-1.0, 0.0, 2.5), strict=True):
                head.bias[2:] = log2_scale - SCALE_OFFSET

    def gains(self, batch: int, device: torch.device) -> Gains:
        """Vectors are coded as they are."""
        one = torch.ones(1, 2, device=device).expand(batch, -1)
        return Gains(one, one, torch.zeros_like(one))

    def start(self, qp: Tensor, height: int, width: int) -> Tensor:
        """Hidden state of the coarsest level, for padded frames of height x width pixels."""
        stride = LEVELS[-1].stride
        return self.trunk.start(qp, height // stride, width // stride)

    def follows(self, index: int, before: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """What level `index` would be if its vectors were those of the frame before.

        `before`: `pyramid` of its field; `coarser`: the vectors of the next coarser blocks, None at the coarsest.
        """
        return before[index] if coarser is None else before[index] - enlarged(coarser)

    def predict(self, index: int, hidden: Tensor, follows: Tensor) -> tuple[Distribution, Tensor]:
        """Distribution of level `index`, and the hidden state it was read from."""
        follows = follows.float()
        hidden = snap(hidden + self.enter[index](LEVELS[index].view(follows)))

        def expected(_: int, h: Tensor) -> Tensor:
            return snap(self.gates[index](h)) * follows

        return self.trunk.distribution(index, hidden, self.gains(len(hidden), hidden.device), expected)

    def absorb(self, index: int, hidden: Tensor, level: Tensor, qp: Tensor) -> Tensor:
        return self.trunk.absorb(index, hidden, level.float(), qp)

    def forward(self, levels: Sequence[Tensor], qp: Tensor, before: Tensor) -> list[Distribution]:
        """All levels at once, the vectors being known; `before`: fields of the frames before, (B, H/8, W/8, 2)."""
        past = pyramid(before)
        out: list[Distribution] = []
        coarser: Tensor | None = None
        _, height, width, _ = levels[-1].shape
        hidden = self.trunk.start(qp, height, width)
        for index in reversed(range(len(levels))):
            distribution, hidden = self.predict(index, hidden, self.follows(index, past, coarser))
            out.insert(0, distribution)
            coarser = levels[index] if coarser is None else enlarged(coarser) + levels[index]
            if index:
                hidden = self.absorb(index, hidden, levels[index], qp)
        return out
