"""The exact networks of a codec as functions of tensors (vidlbc.traced): one call a step of coding."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from vidlbc.bitstream import Header
from vidlbc.entropy import coder
from vidlbc.frame_pool import FramePool
from vidlbc.models import ImageModel
from vidlbc.prior.grid import to_grid
from vidlbc.prior.topdown import Distribution, Gains, TopDownPrior
from vidlbc.temporal_stage import Memory, NoContext, State, TemporalStage
from vidlbc.traced import Traced

# Table, centre and flip of every symbol of a level (vidlbc.entropy.coder), (B, H_l, W_l, C_l).
Quantised = tuple[Tensor, Tensor, Tensor]


class Priors:
    """Distributions of symbols under an image stage's gains and an exact temporal stage (`to_grid`).

    Wherever a method takes `by_intra`, True stands for the image stage's own prior: for frames that the past says
    nothing about (the first, scene cuts). Lists over levels are fine to coarse; symbols int32 (B, H_l, W_l, C_l).
    """

    def __init__(self, image: ImageModel, temporal: TemporalStage, pool: FramePool):
        self.image, self.temporal, self.pool = image, temporal, pool
        self.context = temporal.kind != NoContext.kind
        self.intra = to_grid(copy.deepcopy(image.stage.prior)).to(pool.device) if self.context else temporal.trunk
        self.intra_frames = True  # False: the encoder never chooses it; the decoder reads either
        self.levels = temporal.levels
        self._strides = temporal.trunk.work_strides
        indices, paths = range(len(self.levels)), (False, True)
        self._predict = {(p, i): Traced(partial(self._predict_step, p, i)) for p in paths for i in indices}
        self._absorb = {(p, i): Traced(partial(self._absorb_step, p, i)) for p in paths for i in indices}
        self._frames = {p: Traced(partial(self._frames_step, p)) for p in paths}
        self._memory, self._observe = Traced(self._memory_step), Traced(self._observe_step)
        self._advance = Traced(self._advance_step)

    def trunk(self, by_intra: bool) -> TopDownPrior:
        return self.intra if by_intra else self.temporal.trunk

    def padded(self, header: Header) -> tuple[int, int]:
        """Height and width of the padded frame."""
        multiple = self.image.stage.multiple
        return header.height + -header.height % multiple, header.width + -header.width % multiple

    def start(self, batch: int, header: Header) -> State:
        """The null state."""
        return self.temporal.start(batch, *self.padded(header))

    # -- the past ----------------------------------------------------------------------------------------------------

    def memory(self, state: State) -> Memory:
        """What the next frame may read."""
        return dict(zip(self._strides, self._memory(*state), strict=True)) if self.context else {}

    def observe(self, symbols: Sequence[Tensor], gains: Sequence[Gains]) -> Memory:
        """Maps of coded frames, each frame on its own."""
        maps = self._observe(*symbols, *[g.step for g in gains]) if self.context else ()
        return dict(zip(self._strides, maps, strict=False))

    def advance(self, state: State, maps: Memory) -> State:
        """The state after one more frame, whose maps these are."""
        return list(self._advance(*state, *[maps[s] for s in self._strides])) if self.context else state

    # -- one level, for the decoder ----------------------------------------------------------------------------------

    def hidden(self, by_intra: bool, qp: Tensor, header: Header) -> Tensor:
        """The hidden state that the coarsest level starts from."""
        (height, width), trunk = self.padded(header), self.trunk(by_intra)
        coarsest = trunk.work_strides[-1]
        return trunk.start(qp, height // coarsest, width // coarsest)

    def predict(
        self, by_intra: bool, index: int, hidden: Tensor, gains: Gains, memory: Memory
    ) -> tuple[Tensor, Quantised]:
        """Distributions of level `index`, and the hidden state that they were read from."""
        past = [] if by_intra or not self.context else [memory[self.levels[index].work_stride]]
        hidden, *quantised = self._predict[by_intra, index](hidden, *_rows(gains), *past)
        return hidden, tuple(quantised)

    def absorb(
        self, by_intra: bool, index: int, hidden: Tensor, symbols: Tensor, gains: Gains, qp: Tensor
    ) -> Tensor:
        """The hidden state of the next finer level, once the symbols of level `index` are known."""
        out: Tensor = self._absorb[by_intra, index](hidden, symbols, gains.step, qp)
        return out

    # -- all levels, for the encoder ---------------------------------------------------------------------------------

    def frames(
        self, by_intra: bool, symbols: Sequence[Tensor], qp: Tensor, gains: Sequence[Gains], memory: Memory
    ) -> list[Distribution]:
        """Distributions of all levels of frames whose symbols are known."""
        past = [] if by_intra or not self.context else [memory[s] for s in self._strides]
        out = self._frames[by_intra](qp, *symbols, *[row for g in gains for row in _rows(g)], *past)
        return [Distribution(*pair) for pair in zip(out[::2], out[1::2], strict=True)]

    # -- what is traced: tensors in, tensors out ---------------------------------------------------------------------

    def _memory_step(self, *state: Tensor) -> tuple[Tensor, ...]:
        memory = self.temporal.memory(list(state))
        return tuple(memory[s] for s in self._strides)

    def _observe_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.levels)
        maps = self.temporal.observe(
            [_dequantised(q, step) for q, step in zip(tensors[:count], tensors[count:], strict=True)]
        )
        return tuple(maps[s] for s in self._strides)

    def _advance_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self._strides)
        maps = dict(zip(self._strides, tensors[-count:], strict=True))
        return tuple(self.temporal.advance(list(tensors[:-count]), maps))

    def _predict_step(self, by_intra: bool, index: int, hidden: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        rows, past = rest[:3], rest[3:]
        context = self.temporal.reader({self.levels[index].work_stride: past[0]}) if past else None
        if context is not None:
            hidden = context(index, hidden)
        distribution, hidden = self.trunk(by_intra).distribution(index, hidden, Gains(*rows))
        return (hidden, *coder.quantise_tensors(distribution))

    def _absorb_step(
        self, by_intra: bool, index: int, hidden: Tensor, symbols: Tensor, step: Tensor, qp: Tensor
    ) -> Tensor:
        return self.trunk(by_intra).absorb(index, hidden, _dequantised(symbols, step), qp)

    def _frames_step(self, by_intra: bool, qp: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.levels)
        symbols, rows, past = tensors[:count], tensors[count : 4 * count], tensors[4 * count :]
        gains = [Gains(*rows[3 * i : 3 * i + 3]) for i in range(count)]
        latents = [_dequantised(q, g.step) for q, g in zip(symbols, gains, strict=True)]
        reader = self.temporal.reader(dict(zip(self._strides, past, strict=True))) if past else None
        return tuple(x for d in self.trunk(by_intra)(latents, qp, gains, reader) for x in (d.mean, d.log2_scale))


def _rows(gains: Gains) -> tuple[Tensor, Tensor, Tensor]:
    return gains.gain, gains.step, gains.log2_gain


def _dequantised(symbols: Tensor, step: Tensor) -> Tensor:
    """symbols (B, H, W, C), step (B or 1, C)."""
    return symbols.to(step.device, torch.float32) * step[:, None, None]
