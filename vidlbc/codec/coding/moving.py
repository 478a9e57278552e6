"""Frames that are predicted from moved pictures: what encoder and decoder do alike, frame by frame.

    past of t (reference picture, field, state) --field of t--> what t may read --symbols of t--> past of t+1

A frame is of one of four kinds. A *key* frame has no past: the image stage's own prior codes it, and a decoder may
begin there. A *moved* frame has vectors of its own; a *still* one has none, and is predicted from the reference as it
is; some blocks of both may be copied (vidlbc.codec.motion.copies), and the reference may be as much brighter as the
frame is (vidlbc.codec.motion.brightness). A *repeated* frame is the one before: nothing is coded.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header
from vidlbc.codec.coding.encoding import LeftOut
from vidlbc.codec.coding.moved_priors import Alone, MovedPriors, Seen
from vidlbc.codec.image_stage.base import truncated
from vidlbc.codec.motion.brightness import Brightness, brightened
from vidlbc.codec.motion.copies import copied_at, copied_symbols
from vidlbc.codec.motion.field import BLOCK, pyramid
from vidlbc.codec.prior.topdown import Gains, Level
from vidlbc.codec.temporal_stage import Memory


class FrameKind(IntEnum):
    KEY = 0
    STILL = 1
    MOVED = 2
    REPEATED = 3


@dataclass(frozen=True)
class Past:
    """What frames before leave: a field and flags of copied blocks; beside them are made a reference picture, uint8
    (B, H, W, 3), and a state a working stride."""

    field: Tensor
    copied: Tensor
    picture: "Future[Tensor]"
    states: Mapping[int, "Future[tuple[Tensor, tuple[Tensor, ...]]]"]  # the frame's map there, and the state

    @property
    def reference(self) -> Tensor:
        return self.picture.result()

    def brightened(self, brightness: Brightness | None) -> "Past":
        """What a frame of that brightness is predicted from."""
        if brightness is None:
            return self
        picture: Future[Tensor] = Future()
        picture.set_result(brightened(self.reference, brightness))
        return replace(self, picture=picture)

    def state(self, stride: int) -> tuple[Tensor, ...]:
        return self.states[stride].result()[1]


@dataclass(frozen=True)
class Look:
    """What a frame is given: its field and flags, and what the moved picture shows; beside it are made the state moved
    and the memory of each level."""

    field: Tensor
    copied: Tensor
    copies: bool  # whether there are any
    seen: Seen
    levels: Sequence[Level]
    strides: Mapping[int, "Future[tuple[tuple[Tensor, ...], Memory]]"]

    def state(self, stride: int) -> tuple[Tensor, ...]:
        return self.strides[stride].result()[0]

    def read(self, index: int) -> tuple[Tensor, ...]:
        """The memory of level `index`."""
        return self.strides[self.levels[index].work_stride].result()[1][index]


def no_motion(priors: MovedPriors, header: Header) -> Tensor:
    """The field of a frame that stands still."""
    height, width = priors.padded(header)
    size = (1, height // BLOCK, width // BLOCK, 2)
    return torch.zeros(size, dtype=torch.int32, device=priors.pool.device)


def no_copies(field: Tensor) -> Tensor:
    """The flags of a frame of which no block is copied."""
    return torch.zeros_like(field[:, ::2, ::2, 0], dtype=torch.bool)


def look(
    priors: MovedPriors, past: Past, field: Tensor, copied: Tensor | None = None, seen: Seen | None = None
) -> Look:
    """The past as a frame with these vectors and flags, None: none set, sees it; `seen`: where it is known. Coarse
    strides are read first, and the finest takes longest: it is made beside them."""
    vectors = pyramid(field, tuple(priors.strides))
    copied = no_copies(field) if copied is None else copied
    seen = priors.see(past.reference, field) if seen is None else seen
    prediction = seen.prediction._replace(copied=copied)

    def remember(stride: int) -> tuple[tuple[Tensor, ...], Memory]:
        return priors.remember(stride, past.state(stride), vectors[stride], prediction)

    coming = {s: priors.pool.beside(partial(remember, s)) for s in reversed(priors.strides)}
    return Look(field, copied, bool(copied.any()), seen, priors.levels, coming)


def left_out(priors: MovedPriors, index: int, gains: Gains, given: Look | None, coded: int) -> LeftOut | None:
    """Of level `index`, of which so many channels are coded; None where all cells are."""
    if given is None or not given.copies:
        return None
    cells = copied_at(given.copied, priors.levels[index].stride) == 1
    symbols = copied_symbols(given.seen.prediction.latents[index], gains.gain).to(torch.int32)
    return LeftOut(cells, truncated(symbols, coded, -1))


class PastBuilder:
    """The past of the next frame, made beside the decoding of a frame as its levels become known, coarse to fine.

    A task waits for none but those begun before it, so that a few threads never wait for each other.
    """

    def __init__(
        self,
        priors: MovedPriors,
        gains: Sequence[Gains],
        qp: Tensor,
        given: Look | None,
        still: Tensor,
        alone: Alone | None = None,
    ):
        """`given`: what the frame is coded from, None for a key frame; `still`: `no_motion`; `alone`: what its symbols
        show, where that is known."""
        self._priors, self._gains, self._qp, self._given, self._still = priors, gains, qp, given, still
        self._alone = alone
        self._symbols: list[Tensor] = [torch.empty(0)] * len(priors.levels)
        self._own: Future[Sequence[Tensor]] | None = None
        self._picture: Future[Tensor] | None = None
        self._states: dict[int, Future[tuple[Tensor, tuple[Tensor, ...]]]] = {}

    def add(self, index: int, symbols: Tensor) -> None:
        """Symbols of level `index`, int32 (1, H_l, W_l, C_l), once those of all coarser ones are there."""
        self._symbols[index] = symbols
        beside, coarser = self._priors.pool.beside, self._own
        if self._alone is None:
            self._own = beside(lambda: self._synthesise(index, coarser))
        if index == 0:
            self._picture = beside(self._reference)
        stride = self._priors.levels[index].work_stride
        if index == self._priors.temporal.levels_at(stride)[0]:
            above = next(iter(reversed(self._states.values())), None)
            self._states[stride] = beside(lambda: self._after(stride, above))

    def past(self) -> Past:
        """Once all levels were added."""
        assert self._picture is not None
        given = self._given
        field, copied = (self._still, no_copies(self._still)) if given is None else (given.field, given.copied)
        return Past(field, copied, self._picture, self._states)

    def _synthesise(self, index: int, coarser: "Future[Sequence[Tensor]] | None") -> Sequence[Tensor]:
        known = () if coarser is None else coarser.result()
        return self._priors.synthesise(index, self._symbols[index], self._gains[index], self._qp, known)

    def _reference(self) -> Tensor:
        if self._alone is not None:
            features, folded, _ = self._alone
        else:
            assert self._own is not None
            features, folded = self._own.result()
        given = self._given
        if given is None:
            return self._priors.reference(features, folded, self._qp, None)
        return self._priors.reference(features, folded, self._qp, given.seen.picture, given.copied)

    def _after(
        self, stride: int, above: "Future[tuple[Tensor, tuple[Tensor, ...]]] | None"
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        coarser = None if above is None else above.result()[0]
        state = None if self._given is None else self._given.state(stride)
        return self._priors.after_at(stride, self._symbols, self._gains, coarser, state)


def after(
    priors: MovedPriors,
    symbols: Sequence[Tensor],
    gains: Sequence[Gains],
    qp: Tensor,
    given: Look | None,
    still: Tensor,
    alone: Alone | None = None,
) -> Past:
    """The past of the next frame, where all symbols of this one are known; see PastBuilder."""
    builder = PastBuilder(priors, gains, qp, given, still, alone)
    for index in reversed(range(len(symbols))):
        builder.add(index, symbols[index])
    return builder.past()
