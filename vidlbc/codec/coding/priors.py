"""The exact networks of a codec as functions of tensors (vidlbc.codec.traced): one call a step of coding."""

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.frame_pool import FramePool
from vidlbc.codec.models import ImageModel
from vidlbc.codec.prior.grid import to_grid
from vidlbc.codec.prior.topdown import Gains, TopDownPrior
from vidlbc.codec.temporal_stage import Maps, Memory, State, TemporalStage
from vidlbc.codec.traced import Traced, uncompiled
from vidlbc.errors import InputError
from vidlbc.run.stage_clock import in_stage

# Table, centre and flip of every symbol of a level (vidlbc.codec.entropy.coder), (B, H_l, W_l, C_l).
Quantised = tuple[Tensor, Tensor, Tensor]


class Priors:
    """Distributions of symbols under an image stage's gains and an exact temporal stage (`to_grid`).

    Wherever a method takes `by_intra`, True stands for the image stage's own prior: for frames that the past says
    nothing about (the first, scene cuts). Lists over levels are fine to coarse; symbols int32 (B, H_l, W_l, C_l).
    """

    def __init__(self, image: ImageModel, temporal: TemporalStage, pool: FramePool):
        self.image, self.temporal, self.pool, self.clock = image, temporal, pool, pool.clock
        self.context = bool(temporal.strides)
        self.intra = to_grid(copy.deepcopy(image.stage.prior).cpu()).to(pool.device) if self.context else temporal.trunk
        self.copies = False  # whether blocks may be copied
        self.intra_frames = True  # False: the encoder never chooses it; the decoder reads either
        self.levels = temporal.levels
        self.strides = temporal.strides
        indices, paths = range(len(self.levels)), (False, True)
        self._predict = {(p, i): Traced(partial(self._predict_step, p, i)) for p in paths for i in indices}
        self._expect = {(p, i): Traced(partial(self._expect_step, p, i)) for p in paths for i in indices}
        self._absorb = {(p, i): Traced(partial(self._absorb_step, p, i)) for p in paths for i in indices}
        self._frames = {p: Traced(partial(self._frames_step, p)) for p in paths}
        self._memory = {s: Traced(partial(self._memory_step, s)) for s in self.strides}
        self._update = {s: Traced(partial(self._update_step, s)) for s in self.strides}
        self._observe, self._advance = Traced(self._observe_step), Traced(self._advance_step)

    def trunk(self, by_intra: bool) -> TopDownPrior:
        return self.intra if by_intra else self.temporal.trunk

    def padded(self, header: Header) -> tuple[int, int]:
        """Height and width of the padded frame."""
        multiple = self.image.stage.multiple
        return header.height + -header.height % multiple, header.width + -header.width % multiple

    def check_layers(self, header: Header) -> None:
        """Raises InputError where what the past says about the base depends on the enhancement."""
        cut = len(self.levels) - header.base
        if header.base and self.context and self.levels[cut].work_stride == self.levels[cut - 1].work_stride:
            raise InputError(
                f"a base of {header.base} levels cannot stand alone: level {cut - 1} is worked on at its stride, "
                f"{self.levels[cut].work_stride}; use temporal=none"
            )

    def start(self, batch: int, header: Header) -> State:
        """The null state."""
        return self.temporal.start(batch, *self.padded(header))

    # -- the past ----------------------------------------------------------------------------------------------------

    @in_stage("temporal stage")
    def memory_at(self, stride: int, state: Sequence[Tensor]) -> Memory:
        """What the next frame may read from one stride's state, for each level worked on there."""
        return self._memory_of(self.temporal.levels_at(stride), self._memory[stride](*state))

    def memory(self, state: State) -> Memory:
        """The same, of all strides."""
        return {level: read for s in self.strides for level, read in self.memory_at(s, state[s]).items()}

    @in_stage("temporal stage")
    def observe(self, symbols: Sequence[Tensor], gains: Sequence[Gains]) -> Maps:
        """Maps of coded frames, each frame on its own."""
        maps = self._observe(*symbols, *[g.step for g in gains]) if self.strides else ()
        return dict(zip(self.strides, maps, strict=True))

    @in_stage("temporal stage")
    def advance(self, state: State, maps: Maps) -> State:
        """The state after one more frame, whose maps these are."""
        if not self.strides:
            return state
        past = [x for s in self.strides for x in state[s]]
        rest = iter(self._advance(*past, *[maps[s] for s in self.strides]))
        return {s: tuple(islice(rest, len(state[s]))) for s in self.strides}

    @in_stage("temporal stage")
    def update_at(
        self,
        stride: int,
        state: Sequence[Tensor],
        symbols: Sequence[Tensor],
        gains: Sequence[Gains],
        coarser: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...], Memory]:
        """One stride after one more frame: the frame's map there, the state, and what the next frame may read.

        `coarser`: the frame's map at the next coarser stride, None at the coarsest.
        """
        here = self.temporal.levels_at(stride)
        maps = [] if coarser is None else [coarser]
        observed, *rest = self._update[stride](
            *[symbols[i] for i in here], *[gains[i].step for i in here], *maps, *state
        )
        return observed, tuple(rest[: len(state)]), self._memory_of(here, rest[len(state) :])

    def _memory_of(self, levels: Iterable[int], tensors: Sequence[Tensor]) -> Memory:
        rest = iter(tensors)
        return {i: tuple(islice(rest, self.temporal.tensors_read(i))) for i in levels}

    # -- one level, for the decoder ----------------------------------------------------------------------------------

    @in_stage("temporal stage")
    @uncompiled
    def hidden(self, by_intra: bool, qp: Tensor, header: Header) -> Tensor:
        """The hidden state that the coarsest level starts from."""
        (height, width), trunk = self.padded(header), self.trunk(by_intra)
        coarsest = trunk.work_strides[-1]
        return trunk.start(qp, height // coarsest, width // coarsest)

    @in_stage("temporal stage")
    def predict(
        self, by_intra: bool, index: int, hidden: Tensor, gains: Gains, past: Sequence[Tensor]
    ) -> tuple[Tensor, Quantised]:
        """Distributions of level `index`, and the hidden state that they were read from.

        `past`: what the memory holds for the level; nothing for the intra prior.
        """
        hidden, table, centre, flip = self._predict[by_intra, index](hidden, *_rows(gains), *past)
        return hidden, (table, centre, flip)

    @in_stage("temporal stage")
    def expect(
        self, by_intra: bool, index: int, hidden: Tensor, gains: Gains, past: Sequence[Tensor]
    ) -> tuple[Tensor, Distribution]:
        """As `predict`, before the distributions are quantised: for an encoder that chooses its symbols."""
        hidden, mean, log2_scale = self._expect[by_intra, index](hidden, *_rows(gains), *past)
        return hidden, Distribution(mean, log2_scale)

    @in_stage("temporal stage")
    def absorb(self, by_intra: bool, index: int, hidden: Tensor, symbols: Tensor, gains: Gains, qp: Tensor) -> Tensor:
        """The hidden state of the next finer level, once the symbols of level `index` are known."""
        out: Tensor = self._absorb[by_intra, index](hidden, symbols, gains.step, qp)
        return out

    # -- all levels, for the encoder ---------------------------------------------------------------------------------

    @in_stage("temporal stage")
    def frames(
        self, by_intra: bool, symbols: Sequence[Tensor], qp: Tensor, gains: Sequence[Gains], memory: Memory
    ) -> list[Distribution]:
        """Distributions of all levels of frames whose symbols are known."""
        past = [] if by_intra else [x for index in sorted(memory) for x in memory[index]]
        out = self._frames[by_intra](qp, *symbols, *[row for g in gains for row in _rows(g)], *past)
        return [Distribution(*pair) for pair in zip(out[::2], out[1::2], strict=True)]

    # -- what is traced: tensors in, tensors out ---------------------------------------------------------------------

    def _memory_step(self, stride: int, *state: Tensor) -> tuple[Tensor, ...]:
        memory = self.temporal.memory_at(stride, state)
        return tuple(x for index in self.temporal.levels_at(stride) for x in memory[index])

    def _observe_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.levels)
        latents = [dequantised(*pair) for pair in zip(tensors[:count], tensors[count:], strict=True)]
        maps = self.temporal.observe(latents)
        return tuple(maps[s] for s in self.strides)

    def _advance_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        out: list[Tensor] = []
        count = len(self.strides)
        past, maps = tensors[:-count], tensors[-count:]
        size = len(past) // count
        for i, stride in enumerate(self.strides):
            out += self.temporal.advance_at(stride, past[i * size : (i + 1) * size], maps[i])
        return tuple(out)

    def _update_step(self, stride: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.temporal.levels_at(stride))
        symbols, steps, rest = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        coarser, state = (None, rest) if stride == self.strides[-1] else (rest[0], rest[1:])
        latents = [dequantised(*pair) for pair in zip(symbols, steps, strict=True)]
        observed = self.temporal.observe_at(stride, latents, coarser)
        after = self.temporal.advance_at(stride, state, observed)
        return (observed, *after, *self._memory_step(stride, *after))

    def _predict_step(self, by_intra: bool, index: int, hidden: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        hidden, distribution = self._distribution(by_intra, index, hidden, *rest)
        return (hidden, *coder.quantise_tensors(distribution))

    def _expect_step(self, by_intra: bool, index: int, hidden: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        hidden, distribution = self._distribution(by_intra, index, hidden, *rest)
        return hidden, distribution.mean, distribution.log2_scale

    def _distribution(self, by_intra: bool, index: int, hidden: Tensor, *rest: Tensor) -> tuple[Tensor, Distribution]:
        rows, past = rest[:3], rest[3:]
        context = self.temporal.reader({index: past}) if past else None
        if context is not None:
            hidden = context(index, hidden)
        distribution, hidden = self.trunk(by_intra).distribution(index, hidden, Gains(*rows))
        return hidden, distribution

    def _absorb_step(
        self, by_intra: bool, index: int, hidden: Tensor, symbols: Tensor, step: Tensor, qp: Tensor
    ) -> Tensor:
        return self.trunk(by_intra).absorb(index, hidden, dequantised(symbols, step), qp)

    def _frames_step(self, by_intra: bool, qp: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.levels)
        symbols, rows, past = tensors[:count], tensors[count : 4 * count], tensors[4 * count :]
        gains = [Gains(*rows[3 * i : 3 * i + 3]) for i in range(count)]
        latents = [dequantised(q, g.step) for q, g in zip(symbols, gains, strict=True)]
        reader = self.temporal.reader(self._memory_of(range(len(self.levels)), past)) if past else None
        return tuple(x for d in self.trunk(by_intra)(latents, qp, gains, reader) for x in (d.mean, d.log2_scale))


def _rows(gains: Gains) -> tuple[Tensor, Tensor, Tensor]:
    return gains.gain, gains.step, gains.log2_gain


def dequantised(symbols: Tensor, step: Tensor) -> Tensor:
    """symbols (B, H, W, C), step (B or 1, C)."""
    return symbols.to(step.device, torch.float32) * step[:, None, None]
