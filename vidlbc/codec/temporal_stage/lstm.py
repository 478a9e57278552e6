"""Kind `lstm`: a convolutional LSTM a working stride carries the past (Shi et al., arXiv 1506.04214; depth-wise gates).

The gates are piecewise linear (clamped ramps in place of sigmoid and tanh) and the state is snapped to the grid after
every frame, so it never drifts between machines, however long the video.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidlbc.codec.prior.grid import Block, DepthwiseConv, Linear, snap
from vidlbc.codec.prior.topdown import Context, Level
from vidlbc.codec.temporal_stage.base import Features, Memory, State, TemporalStage


def ramp(x: Tensor) -> Tensor:
    """Piecewise-linear sigmoid: 1/2 + x/4 clamped to [0, 1]."""
    return (0.5 + 0.25 * x).clamp(0, 1)


class ConvLSTMCell(nn.Module):
    """State (hidden, cell), each (B, H, W, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.spread = DepthwiseConv(2 * channels, 5)
        self.gates = Linear(2 * channels, 4 * channels)
        with torch.no_grad():
            # Remember by default: forget gate wide open at the start.
            self.gates.bias[channels : 2 * channels] = 1.0

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([x, hidden], -1)
        into, keep, show, candidate = self.gates(snap(joined + self.spread(joined))).chunk(4, -1)
        cell = snap(ramp(keep) * cell + ramp(into) * candidate.clamp(-4, 4))
        return snap(ramp(show) * cell.clamp(-8, 8)), cell


class LSTMPrior(TemporalStage):
    """The state is (hidden, cell) a working stride; before the first frame, learned vectors."""

    kind = "lstm"

    def __init__(self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2):
        super().__init__(levels, widths, blocks)
        self.features = Features(self.trunk)
        strides, sizes = self.trunk.work_strides, self.trunk.widths
        self.null = nn.ParameterDict({str(s): nn.Parameter(torch.zeros(2 * sizes[s])) for s in strides})
        self.cells = nn.ModuleDict({str(s): ConvLSTMCell(sizes[s]) for s in strides})
        self.refine = nn.ModuleDict({str(s): Block(sizes[s], expand=2, kernel=5) for s in strides})
        readers = [Linear(sizes[level.work_stride], sizes[level.work_stride]) for level in self.levels]
        for reader in readers:
            nn.init.zeros_(reader.weight)
            nn.init.zeros_(reader.bias)
        self.readers = nn.ModuleList(readers)

    def start(self, batch: int, height: int, width: int) -> State:
        state: State = {}
        for stride in self.strides:
            vector = snap(self.null[str(stride)].clone())[None, None, None]
            state[stride] = vector.expand(batch, height // stride, width // stride, -1).chunk(2, -1)
        return state

    def advance_at(self, stride: int, state: Sequence[Tensor], observed: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.cells[str(stride)](observed, *state)
        return out

    def memory_at(self, stride: int, state: Sequence[Tensor]) -> Memory:
        past = self.refine[str(stride)](state[0])
        return {index: (self.readers[index](past),) for index in self.levels_at(stride)}

    def reader(self, memory: Memory) -> Context:
        return lambda index, hidden: snap(hidden + memory[index][0])
