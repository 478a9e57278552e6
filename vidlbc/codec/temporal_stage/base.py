"""What every temporal kind is: the distributions of frame t's symbols given the frames before it.

    frames t-1, t-2, ...  --features--> per working stride --state--> memory --reader--> TopDownPrior of frame t
                                                                                (coarse to fine within the frame)

Every working stride has a state of its own: a decoder needs the coarse ones first, and makes the finest beside them.

Lossless on symbols: a kind changes bits, never pixels. A frame with no past is coded by the same network from a learned
null state. A kind is one class here plus one line in `vidlbc.codec.temporal_stage.KINDS`; it sits on any image stage,
since it sees only that stage's levels.

Shapes: latents are lists, fine to coarse, of dequantised symbols (B, H_l, W_l, C_l), channels last. *Maps* hold one
(B, H, W, C) a working stride; a *state* some tensors a working stride, whose first axis is the batch; a *memory* what
the reader of each level takes, as tensors whose first axis is a multiple of the batch.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.prior.grid import Block, Linear, depth_to_space, snap
from vidlbc.codec.prior.topdown import Context, Gains, Level, TopDownPrior, levels_at

Maps = dict[int, Tensor]
State = dict[int, tuple[Tensor, ...]]
Memory = dict[int, tuple[Tensor, ...]]


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

    def forward(self, stride: int, latents: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """The map of one working stride, from its levels and the map of the next coarser stride."""
        x: Tensor | None = None
        for index, latent in zip(levels_at(self.levels, stride), latents, strict=True):
            y = self.embed[index](self.levels[index].view(latent))
            x = y if x is None else x + y
        assert x is not None
        if coarser is not None:
            ratio = self.work_strides[self.work_strides.index(stride) + 1] // stride
            x = x + depth_to_space(self.up[str(stride)](coarser), ratio)
        out: Tensor = self.blocks[str(stride)](snap(x))
        return out


class TemporalStage(nn.Module):
    """Base of the kinds. `trunk` is a TopDownPrior; a kind adds the state of the past and how it is read."""

    kind = ""
    features: Features  # of every kind that has a past

    def __init__(self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2):
        super().__init__()
        self.trunk = TopDownPrior(levels, widths, blocks)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.trunk.levels

    @property
    def strides(self) -> list[int]:
        """Working strides that have a state, fine to coarse."""
        return self.trunk.work_strides

    @abstractmethod
    def start(self, batch: int, height: int, width: int) -> State:
        """The null state, for padded frames of height x width pixels."""

    def observe_at(self, stride: int, latents: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """The map of coded frames at one stride, each frame on its own: the costly half of `update`.

        `latents`: of the levels worked on there; `coarser`: the map of the next coarser stride, None at the coarsest.
        """
        out: Tensor = self.features(stride, latents, coarser)
        return out

    @abstractmethod
    def advance_at(self, stride: int, state: Sequence[Tensor], observed: Tensor) -> tuple[Tensor, ...]:
        """One stride's state after one more frame, whose map there this is."""

    @abstractmethod
    def memory_at(self, stride: int, state: Sequence[Tensor]) -> Memory:
        """What the next frame may read from one stride's state, for each level worked on there."""

    def tensors_read(self, index: int) -> int:
        """How many tensors the memory holds for a level."""
        return 1

    @abstractmethod
    def reader(self, memory: Memory) -> Context | None:
        """Gives the trunk access to a memory."""

    def levels_at(self, stride: int) -> list[int]:
        """Indices of the levels worked on at a stride, fine to coarse."""
        return levels_at(self.levels, stride)

    def observe(self, latents: Sequence[Tensor]) -> Maps:
        maps: Maps = {}
        coarser: Tensor | None = None
        for stride in reversed(self.strides):
            coarser = maps[stride] = self.observe_at(stride, [latents[i] for i in self.levels_at(stride)], coarser)
        return maps

    def advance(self, state: State, maps: Maps) -> State:
        return {s: self.advance_at(s, state[s], maps[s]) for s in self.strides}

    def memory(self, state: State) -> Memory:
        return {level: read for s in self.strides for level, read in self.memory_at(s, state[s]).items()}

    def update(self, state: State, latents: Sequence[Tensor]) -> State:
        """The state after one more frame was coded."""
        return self.advance(state, self.observe(latents))

    def sequence(self, latents: Sequence[Tensor], frames: int, state: State) -> tuple[Memory, State]:
        """Memories of `frames` successive frames at once; latents are (B*T, H_l, W_l, C_l), frame index fastest."""
        maps = {s: m.unflatten(0, (-1, frames)) for s, m in self.observe(latents).items()}
        states: list[State] = []
        for t in range(frames):
            states.append(state)
            state = self.advance(state, {s: m[:, t] for s, m in maps.items()})
        stacked = {
            s: tuple(torch.stack(one, 1).flatten(0, 1) for one in zip(*[past[s] for past in states], strict=True))
            for s in self.strides
        }
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

    @property
    def strides(self) -> list[int]:
        return []

    def start(self, batch: int, height: int, width: int) -> State:
        return {}

    def advance_at(self, stride: int, state: Sequence[Tensor], observed: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("kind none has no past")

    def memory_at(self, stride: int, state: Sequence[Tensor]) -> Memory:
        return {}

    def reader(self, memory: Memory) -> Context | None:
        return None
