"""What every temporal kind is: the distributions of frame t's symbols given the frames before it.

    frames t-1, t-2, ...  --features--> per working stride --state--> memory --reader--> TopDownPrior of frame t
                                                                                (coarse to fine within the frame)

Lossless on symbols: a kind changes bits, never pixels. A frame with no past is coded by the same network from a learned
null state. A kind is one class here plus one line in `vidlbc.temporal_stage.KINDS`; it sits on any image stage, since
it sees only that stage's levels.

Shapes: latents are lists, fine to coarse, of dequantised symbols (B, H_l, W_l, C_l), channels last. A *state* is a list
of tensors whose first axis is the batch; a *memory* maps each working stride to one map (B, H, W, C).
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidlbc.prior.grid import Block, Linear, depth_to_space, snap
from vidlbc.prior.topdown import Context, Distribution, Gains, Level, TopDownPrior

State = list[Tensor]
Memory = dict[int, Tensor]


class Features(nn.Module):
    """Maps of a coded frame at every working stride, coarse to fine, each seeing all coarser levels."""

    def __init__(self, trunk: TopDownPrior):
        super().__init__()
        self.levels, self.work_strides = trunk.levels, trunk.work_strides
        widths = trunk.widths
        self.embed = nn.ModuleList(
            [Linear(level.channels * level.fold**2, widths[level.work_stride]) for level in self.levels]
        )
        self.up = nn.ModuleDict()
        for fine, coarse in zip(self.work_strides[:-1], self.work_strides[1:], strict=True):
            self.up[str(fine)] = Linear(widths[coarse], widths[fine] * (coarse // fine) ** 2)
        self.blocks = nn.ModuleDict({str(s): Block(widths[s], expand=2) for s in self.work_strides})

    def forward(self, latents: Sequence[Tensor]) -> Memory:
        maps: Memory = {}
        for stride in reversed(self.work_strides):
            x: Tensor | None = None
            for level, embed, latent in zip(self.levels, self.embed, latents, strict=True):
                if level.work_stride == stride:
                    y = embed(level.view(latent))
                    x = y if x is None else x + y
            assert x is not None
            if str(stride) in self.up:
                coarse = self.work_strides[self.work_strides.index(stride) + 1]
                x = x + depth_to_space(self.up[str(stride)](maps[coarse]), coarse // stride)
            maps[stride] = self.blocks[str(stride)](snap(x))
        return maps


class TemporalStage(nn.Module):
    """Base of the kinds. `trunk` is a TopDownPrior; a kind adds the state of the past and how it is read."""

    kind = ""

    def __init__(self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2):
        super().__init__()
        self.trunk = TopDownPrior(levels, widths, blocks)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.trunk.levels

    @abstractmethod
    def start(self, batch: int, height: int, width: int) -> State:
        """The null state, for padded frames of height x width pixels."""

    @abstractmethod
    def memory(self, state: State) -> Memory:
        """What the next frame may read."""

    @abstractmethod
    def observe(self, latents: Sequence[Tensor]) -> Memory:
        """Feature maps of coded frames, each frame on its own: the costly half of `update`, parallel over frames."""

    @abstractmethod
    def advance(self, state: State, maps: Memory) -> State:
        """The state after one more frame, whose feature maps these are."""

    def update(self, state: State, latents: Sequence[Tensor]) -> State:
        """The state after one more frame was coded."""
        return self.advance(state, self.observe(latents))

    @abstractmethod
    def reader(self, memory: Memory) -> Context | None:
        """Gives the trunk access to a memory."""

    def sequence(self, latents: Sequence[Tensor], frames: int, state: State) -> tuple[Memory, State]:
        """Memories of `frames` successive frames at once; latents are (B*T, H_l, W_l, C_l), frame index fastest."""
        maps = {s: m.unflatten(0, (-1, frames)) for s, m in self.observe(latents).items()}
        states: list[State] = []
        for t in range(frames):
            states.append(state)
            state = self.advance(state, {s: m[:, t] for s, m in maps.items()})
        stacked = [torch.stack(list(tensors), 1).flatten(0, 1) for tensors in zip(*states, strict=True)]
        return self.memory(stacked), state

    def forward(
        self, latents: Sequence[Tensor], qp: Tensor, gains: Sequence[Gains], frames: int, state: State
    ) -> tuple[list[Distribution], State]:
        """Distributions of T successive frames of each of B clips, the symbols being known (training, encoder).

        latents (B*T, H_l, W_l, C_l), qp (B*T,), gains rows (B*T, C_l).
        """
        memory, state = self.sequence(latents, frames, state)
        return self.trunk(latents, qp, gains, self.reader(memory)), state


class NoContext(TemporalStage):
    """Kind `none`: each frame by its intra prior. The baseline beside every other figure."""

    kind = "none"

    def start(self, batch: int, height: int, width: int) -> State:
        return []

    def memory(self, state: State) -> Memory:
        return {}

    def observe(self, latents: Sequence[Tensor]) -> Memory:
        return {}

    def advance(self, state: State, maps: Memory) -> State:
        return []

    def reader(self, memory: Memory) -> Context | None:
        return None
