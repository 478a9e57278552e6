"""Temporal kinds that predict from moved pictures (vidlbc.codec.motion): what they have in common, and kind
`transformer`.

    moved picture --PredictionAnalysis--> predicted latents, features --token--> a map a working stride
    state of the frames before, moved by the same vectors, cell by cell ----+
                                                                            v
    hidden state of the frame --query--> attention along time at its own place --> distributions, coarse to fine
    gate times predicted latent ----------------------------------------------> added to their mean

Where a window reader (vidlbc.codec.temporal_stage.transformer) looks for motion among 144 keys around a place, here the
past lies where the frame needs it: a key a frame, and that of the moved picture.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.motion.copies import copied_at
from vidlbc.codec.motion.field import moved_cells, pyramid
from vidlbc.codec.motion.stage import MotionStage, Prediction
from vidlbc.codec.prior.grid import Block, Linear, RMSNorm, snap, space_to_depth
from vidlbc.codec.prior.topdown import Context, Expected, Gains, Level
from vidlbc.codec.temporal_stage.base import Features, Memory, State, TemporalStage
from vidlbc.codec.temporal_stage.lstm import ConvLSTMCell
from vidlbc.codec.temporal_stage.transformer import attention_weights
from vidlbc.errors import InputError

_OPERAND_BITS, _LOGIT_LIMIT, _VALUE_LIMIT = 6, 8.0, 4.0
_SIXTEENTH = 0.125 / 16
_BIAS_BITS = 2 * _OPERAND_BITS + 7


class MovedStage(TemporalStage):
    """Base: `motion`, tokens of a moved picture, and gates. The first frame of a clip has no past: its prior is that of
    the image stage."""

    def __init__(
        self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2, motion: Mapping[str, Any] | None = None
    ):
        """`motion`: options of MotionStage."""
        super().__init__(levels, widths, blocks)
        self.motion = MotionStage(levels, **(motion or {}))
        self.features = Features(self.trunk)
        sizes, seen = self.trunk.widths, self.motion.feature_widths
        self.enter, self.block = nn.ModuleDict(), nn.ModuleDict()
        for stride, size in sizes.items():
            inputs = sum(self.levels[i].channels * self.levels[i].fold ** 2 for i in self.levels_at(stride))
            inputs += seen[max(self.levels_at(stride))] + (self.motion.copies is not None)
            self.enter[str(stride)] = Linear(inputs, size)
            self.block[str(stride)] = Block(size, expand=2)
        works = [sizes[level.work_stride] for level in levels]
        self.leave = nn.ModuleList([_zero(Linear(width, width)) for width in works])
        gates = zip(works, levels, strict=True)
        self.gates = nn.ModuleList([_zero(Linear(w, level.channels * level.fold**2)) for w, level in gates])

    def token(self, stride: int, prediction: Prediction) -> Tensor:
        """The map of the moved picture at one working stride."""
        here = self.levels_at(stride)
        parts = [self.levels[i].view(prediction.latents[i]) for i in here]
        parts.append(prediction.features[max(here)])
        if self.motion.copies is not None:
            no_block = torch.zeros_like(parts[-1][..., 0])
            told = no_block if prediction.copied is None else copied_at(prediction.copied, stride)
            parts.append(told[..., None])
        joined = torch.cat(parts, -1)
        out: Tensor = self.block[str(stride)](snap(self.enter[str(stride)](joined)))
        return out

    def moved_at(self, stride: int, state: Sequence[Tensor], vectors: Tensor) -> tuple[Tensor, ...]:
        """One stride's state where the frame to come needs it."""
        return tuple(moved_cells(x, vectors, stride) for x in state)

    @abstractmethod
    def begin_at(self, stride: int, observed: Tensor) -> tuple[Tensor, ...]:
        """One stride's state after a frame without a past."""

    @abstractmethod
    def memory_from(self, stride: int, state: Sequence[Tensor], prediction: Prediction) -> Memory:
        """What the frame to come may read, for each level worked on at a stride; `state` is moved already."""

    def start(self, batch: int, height: int, width: int) -> State:
        raise NotImplementedError("a frame without a past has the image stage's own prior")

    def memory_at(self, stride: int, state: Sequence[Tensor]) -> Memory:
        raise NotImplementedError("what a frame reads of the past depends on its vectors: see memory_from")

    def expectation(self, memory: Memory) -> Expected:
        """`memory`: its last tensor of a level holds the predicted latents, folded."""

        def expected(index: int, hidden: Tensor) -> Tensor:
            return snap(self.gates[index](hidden)) * memory[index][-1]

        return expected

    def look(self, state: State, vectors: Tensor, seen: Prediction) -> tuple[State, Memory]:
        """The state moved by a field (B, H/8, W/8, 2), and the memory of a frame with these vectors."""
        of_strides = pyramid(vectors, tuple(self.strides))
        moved: State = {}
        memory: Memory = {}
        for stride in self.strides:
            moved[stride], read = self.look_at(stride, state[stride], of_strides[stride], seen)
            memory |= read
        return moved, memory

    def look_at(
        self, stride: int, state: Sequence[Tensor], vectors: Tensor, seen: Prediction
    ) -> tuple[tuple[Tensor, ...], Memory]:
        """One stride of `look`; vectors of its cells."""
        moved = self.moved_at(stride, state, vectors)
        return moved, self.memory_from(stride, moved, seen)

    def given_past(
        self,
        latents: Sequence[Tensor],
        qp: Tensor,
        gains: Sequence[Gains],
        frames: int,
        fields: Tensor,
        seen: Prediction,
    ) -> list[Distribution]:
        """Distributions of all frames but the first of each of B clips, the symbols being known (training).

        latents (B*T, H_l, W_l, C_l), frame index fastest; qp and gains of the B*(T-1) frames, likewise `seen`; fields
        (B, T-1, H/8, W/8, 2).
        """
        maps = {s: m.unflatten(0, (-1, frames)) for s, m in self.observe(latents).items()}
        memory: Memory = {}
        of_strides = pyramid(fields.flatten(0, 1), tuple(self.strides))
        for stride in self.strides:
            vectors = of_strides[stride].unflatten(0, (-1, frames - 1))
            state, states = self.begin_at(stride, maps[stride][:, 0]), []
            for t in range(1, frames):
                state = self.moved_at(stride, state, vectors[:, t - 1])
                states.append(state)
                state = self.advance_at(stride, state, maps[stride][:, t])
            stacked = tuple(torch.stack(one, 1).flatten(0, 1) for one in zip(*states, strict=True))
            memory |= self.memory_from(stride, stacked, seen)
        later = [y.unflatten(0, (-1, frames))[:, 1:].flatten(0, 1) for y in latents]
        return self.trunk(later, qp, gains, self.reader(memory), self.expectation(memory))

    def predicted(self, index: int, prediction: Prediction) -> Tensor:
        """Predicted latents of a level, at its working stride."""
        latent, fold = prediction.latents[index], self.levels[index].fold
        return space_to_depth(latent, fold) if fold > 1 else latent


class MovedTransformer(MovedStage):
    """The state is the feature maps of the last `context` frames, moved with the picture, newest first."""

    kind = "transformer"

    def __init__(
        self,
        levels: Sequence[Level],
        widths: Sequence[int],
        blocks: int = 2,
        context: int = 2,
        motion: Mapping[str, Any] | None = None,
    ):
        super().__init__(levels, widths, blocks, motion)
        self.context = context
        self.readers = nn.ModuleList(
            [TimeReader(self.trunk.widths[level.work_stride], context + 1) for level in self.levels]
        )

    def begin_at(self, stride: int, observed: Tensor) -> tuple[Tensor, ...]:
        return (observed,) * self.context

    def advance_at(self, stride: int, state: Sequence[Tensor], observed: Tensor) -> tuple[Tensor, ...]:
        return (observed, *state[: self.context - 1])

    def memory_from(self, stride: int, state: Sequence[Tensor], prediction: Prediction) -> Memory:
        token = self.token(stride, prediction)
        past = torch.stack([token, *state], -2)
        memory: Memory = {}
        for index in self.levels_at(stride):
            reader = self.readers[index]
            assert isinstance(reader, TimeReader)
            keys, values = reader.prepare(past)
            memory[index] = (keys, values, self.leave[index](token), self.predicted(index, prediction))
        return memory

    def tensors_read(self, index: int) -> int:
        return 4

    def reader(self, memory: Memory) -> Context:
        def read(index: int, hidden: Tensor) -> Tensor:
            keys, values, direct, _ = memory[index]
            return self.readers[index](snap(hidden + direct), keys, values)

        return read


class TimeReader(nn.Module):
    """Adds to the hidden state what frames of the past have at the same place: attention along time."""

    def __init__(self, channels: int, frames: int, head_channels: int = 16):
        super().__init__()
        self.heads = channels // head_channels
        if not self.heads or channels % self.heads:
            raise InputError(f"prior width {channels}: attention needs {head_channels} or more, in equal heads")
        self.norm_hidden, self.norm_past = RMSNorm(channels), RMSNorm(channels)
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels, bias=False)
        self.value = Linear(channels, channels, bias=False)
        self.out = _zero(Linear(channels, channels))
        self.age = nn.Parameter(torch.zeros(frames, self.heads))

    def prepare(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """past (B, H, W, K, C) -> keys and values, (B, H, W, K, heads, C / heads)."""
        normed = self.norm_past(past)
        key = snap(self.key(normed), _OPERAND_BITS, _LOGIT_LIMIT)
        value = snap(self.value(normed), _OPERAND_BITS, _VALUE_LIMIT)
        return key.unflatten(-1, (self.heads, -1)), value.unflatten(-1, (self.heads, -1))

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query = snap(self.query(self.norm_hidden(hidden)), _OPERAND_BITS, _LOGIT_LIMIT) * _SIXTEENTH
        logits = (query.unflatten(-1, (self.heads, -1))[..., None, :, :] * keys).sum(-1)
        logits = logits + snap(self.age * 0.0625, _BIAS_BITS, 1.0)
        weights = attention_weights(logits.transpose(-1, -2)).transpose(-1, -2)[..., None]
        mixed = snap((weights * values).sum(-3) / weights.sum(-3))
        return snap(hidden + self.out(mixed.flatten(-2)))


class MovedLSTM(MovedStage):
    """The state is (hidden, cell) a working stride, moved by each frame's vectors before it is read and updated."""

    kind = "lstm"

    def __init__(
        self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2, motion: Mapping[str, Any] | None = None
    ):
        super().__init__(levels, widths, blocks, motion)
        sizes = self.trunk.widths
        self.cells = nn.ModuleDict({str(s): ConvLSTMCell(w) for s, w in sizes.items()})
        self.refine = nn.ModuleDict({str(s): Block(w, expand=2) for s, w in sizes.items()})
        self.readers = nn.ModuleList(
            [_zero(Linear(sizes[level.work_stride], sizes[level.work_stride])) for level in self.levels]
        )

    def begin_at(self, stride: int, observed: Tensor) -> tuple[Tensor, ...]:
        zero = torch.zeros_like(observed)
        return self.advance_at(stride, (zero, zero), observed)

    def advance_at(self, stride: int, state: Sequence[Tensor], observed: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.cells[str(stride)](observed, *state)
        return out

    def memory_from(self, stride: int, state: Sequence[Tensor], prediction: Prediction) -> Memory:
        token, past = self.token(stride, prediction), self.refine[str(stride)](state[0])
        return {
            index: (snap(self.readers[index](past) + self.leave[index](token)), self.predicted(index, prediction))
            for index in self.levels_at(stride)
        }

    def tensors_read(self, index: int) -> int:
        return 2

    def reader(self, memory: Memory) -> Context:
        return lambda index, hidden: snap(hidden + memory[index][0])


def _zero(layer: Linear) -> Linear:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
