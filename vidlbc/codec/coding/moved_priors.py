"""The exact networks of a temporal stage that predicts from moved pictures, as functions of tensors
(vidlbc.codec.traced)."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from vidlbc.codec.coding.priors import Priors, dequantised
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.frame_pool import FramePool
from vidlbc.codec.models import ImageModel
from vidlbc.codec.motion.copies import ASKING as COPY_ASKING
from vidlbc.codec.motion.copies import STEPS as COPY_STEPS
from vidlbc.codec.motion.copies import with_copies
from vidlbc.codec.motion.prior import ASKING, STEPS, Code, Wanted
from vidlbc.codec.motion.stage import Prediction
from vidlbc.codec.motion.warp import shown
from vidlbc.codec.prior.topdown import Gains
from vidlbc.codec.temporal_stage import Memory
from vidlbc.codec.temporal_stage.moved import MovedStage
from vidlbc.codec.traced import Traced, uncompiled
from vidlbc.run.stage_clock import in_stage


class Seen(NamedTuple):
    """What a frame is predicted from: the moved picture, and its latents and features, fine to coarse."""

    picture: Tensor
    prediction: Prediction


class Alone(NamedTuple):
    """What a frame's own symbols show: features and the picture, as ReferenceSynthesis.alone gives them, and that
    picture as a reference, uint8 (B, H, W, 3)."""

    features: Tensor
    folded: Tensor
    shown: Tensor


class MovedPriors(Priors):
    """As `Priors`; a frame is predicted from `Seen`.

    `temporal` is a MovedStage on the grid. Fields int32 (B, H/8, W/8, 2), reference pictures uint8 (B, H, W, 3) of the
    padded size.
    """

    temporal: MovedStage

    def __init__(self, image: ImageModel, temporal: MovedStage, pool: FramePool):
        super().__init__(image, temporal, pool)
        self._mix, self._show, self._see = (Traced(f) for f in (self._mix_step, self._show_step, self._see_step))
        self._synthesise = {i: Traced(partial(self._synthesise_step, i)) for i in range(len(self.levels))}
        self._remember = {s: Traced(partial(self._remember_step, s)) for s in self.strides}
        self._vectors = {name: Traced(partial(self._vectors_step, name)) for name in STEPS}
        self._begin = {s: Traced(partial(self._begin_step, s)) for s in self.strides}
        self._copies = {name: Traced(partial(self._copies_step, name)) for name in COPY_STEPS}
        self.copies = temporal.motion.copies is not None

    # -- pictures ----------------------------------------------------------------------------------------------------

    @in_stage("temporal stage")
    def alone(self, symbols: Sequence[Tensor], gains: Sequence[Gains], qp: Tensor) -> Alone:
        """What a coded frame's own symbols show."""
        own: Sequence[Tensor] = ()
        for index in reversed(range(len(self.levels))):
            own = self._synthesise[index](qp, symbols[index], gains[index].step, *own[1:])
        features, folded = own
        return Alone(features, folded, self._show(folded))

    @in_stage("temporal stage")
    def synthesise(
        self, index: int, symbols: Tensor, gains: Gains, qp: Tensor, coarser: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Level `index` of `alone`, (features, up) as ReferenceSynthesis.level gives them; `coarser`: what this gave of
        the next coarser level, () at the coarsest."""
        out: Sequence[Tensor] = self._synthesise[index](qp, symbols, gains.step, *coarser[1:])
        return out

    @in_stage("temporal stage")
    def reference(
        self,
        features: Tensor,
        folded: Tensor,
        qp: Tensor,
        moved_picture: Tensor | None,
        copied: Tensor | None = None,
    ) -> Tensor:
        """The reference picture of a frame; `moved_picture`: what it was predicted from, if it has a past; `copied`:
        flags of its blocks, bool (B, H/16, W/16)."""
        if moved_picture is None:
            out: Tensor = self._show(folded)
            return out
        flags = () if copied is None else (copied,)
        mixed: Tensor = self._mix(features, folded, qp, moved_picture, *flags)
        return mixed

    @in_stage("temporal stage")
    def see(self, reference: Tensor, field: Tensor) -> Seen:
        """A reference picture moved by a field, and what it predicts."""
        picture, *rest = self._see(reference, field)
        count = len(self.levels)
        return Seen(picture, Prediction(rest[:count], rest[count:]))

    @in_stage("temporal stage")
    @uncompiled
    def vectors(self, qp: Tensor, before: Tensor, code: Code, field: Tensor | Wanted | None = None) -> Tensor:
        """VectorPrior.walk; what is asked is quantised, int32 (table, centre, flip; B, n, kinds)."""
        return self.temporal.motion.vectors.walk(qp, before, code, field, lambda step, *x: self._vectors[step](*x))

    @in_stage("temporal stage")
    @uncompiled
    def flags(self, qp: Tensor, before: Tensor, field: Tensor, code: Code, copied: Tensor | None = None) -> Tensor:
        """CopyPrior.walk; what is asked is quantised, as of `vectors`."""
        prior = self.temporal.motion.copies
        assert prior is not None
        return prior.walk(qp, before, field, code, copied, lambda step, *x: self._copies[step](*x))

    # -- the past ----------------------------------------------------------------------------------------------------

    @in_stage("temporal stage")
    def remember(
        self, stride: int, state: Sequence[Tensor], vectors: Tensor, prediction: Prediction
    ) -> tuple[tuple[Tensor, ...], Memory]:
        """One stride's state moved to where the frame to come needs it, by the vectors of its cells, and what that
        frame may read of it."""
        here = self.temporal.levels_at(stride)
        latents = [prediction.latents[i] for i in here]
        flags = (cast(Tensor, prediction.copied),) if self.copies else ()
        out = self._remember[stride](vectors, *latents, prediction.features[max(here)], *state, *flags)
        return tuple(out[: len(state)]), self._memory_of(here, out[len(state) :])

    @in_stage("temporal stage")
    def after_at(
        self,
        stride: int,
        symbols: Sequence[Tensor],
        gains: Sequence[Gains],
        coarser: Tensor | None,
        state: Sequence[Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One stride after a coded frame: the frame's map there, and the state; None: the frame has no past.

        `coarser`: the frame's map at the next coarser stride, None at the coarsest.
        """
        here = self.temporal.levels_at(stride)
        maps = () if coarser is None else (coarser,)
        run = self._begin[stride] if state is None else self._update[stride]
        observed, *after = run(*[symbols[i] for i in here], *[gains[i].step for i in here], *maps, *(state or ()))
        return observed, tuple(after)

    # -- what is traced ----------------------------------------------------------------------------------------------

    def _synthesise_step(
        self, index: int, qp: Tensor, symbols: Tensor, step: Tensor, coarser: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.temporal.motion.synthesis.level(index, dequantised(symbols, step), qp, coarser)

    def _show_step(self, folded: Tensor) -> Tensor:
        return shown(self.temporal.motion.synthesis.picture(folded))

    def _mix_step(
        self, features: Tensor, folded: Tensor, qp: Tensor, moved_picture: Tensor, copied: Tensor | None = None
    ) -> Tensor:
        synthesis = self.temporal.motion.synthesis
        picture = synthesis.picture(synthesis.mixed(features, folded, qp, moved_picture))
        return shown(picture if copied is None else with_copies(picture, moved_picture, copied))

    def _see_step(self, reference: Tensor, field: Tensor) -> tuple[Tensor, ...]:
        picture = self.temporal.motion.moved(reference, field)
        prediction = self.temporal.motion.predict(picture)
        return (picture, *prediction.latents, *prediction.features)

    def _vectors_step(self, name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        out = self.temporal.motion.vectors.step(name, *tensors)
        if name not in ASKING:
            return out
        return (*out, self._quantised(*out[-2:]))

    def _copies_step(self, name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        prior = self.temporal.motion.copies
        assert prior is not None
        out = prior.step(name, *tensors)
        return out if name not in COPY_ASKING else (*out, self._quantised(*out))

    @staticmethod
    def _quantised(mean: Tensor, log2_scale: Tensor) -> Tensor:
        return torch.stack([x.int() for x in coder.quantise_tensors(Distribution(mean, log2_scale))])

    def _remember_step(self, stride: int, vectors: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        here = self.temporal.levels_at(stride)
        seen, state = tensors[: len(here) + 1], tensors[len(here) + 1 :]
        copied: Tensor | None = None
        if self.copies:
            state, copied = state[:-1], state[-1]
        nothing = torch.empty(0)
        latents, features = [nothing] * len(self.levels), [nothing] * len(self.levels)
        for index, latent in zip(here, seen[:-1], strict=True):
            latents[index] = latent
        features[max(here)] = seen[-1]
        after, memory = self.temporal.look_at(stride, state, vectors, Prediction(latents, features, copied))
        return (*after, *(x for index in here for x in memory[index]))

    def _update_step(self, stride: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        observed, state = self._observed(stride, tensors)
        return (observed, *self.temporal.advance_at(stride, state, observed))

    def _begin_step(self, stride: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        observed, _ = self._observed(stride, tensors)
        return (observed, *self.temporal.begin_at(stride, observed))

    def _observed(self, stride: int, tensors: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """The map of a coded frame at a stride from symbols, steps and the coarser map; and the tensors after them."""
        count = len(self.temporal.levels_at(stride))
        symbols, steps, rest = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        coarser, rest = (None, rest) if stride == self.strides[-1] else (rest[0], rest[1:])
        latents = [dequantised(*pair) for pair in zip(symbols, steps, strict=True)]
        return self.temporal.observe_at(stride, latents, coarser), rest

    def _distribution(self, by_intra: bool, index: int, hidden: Tensor, *rest: Tensor) -> tuple[Tensor, Distribution]:
        rows, past = rest[:3], rest[3:]
        expected = None
        if past:
            memory = {index: past}
            reader = self.temporal.reader(memory)
            assert reader is not None
            hidden = reader(index, hidden)
            expected = self.temporal.expectation(memory)
        distribution, hidden = self.trunk(by_intra).distribution(index, hidden, Gains(*rows), expected)
        return hidden, distribution
