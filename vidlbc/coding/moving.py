"""Frames that are predicted from moved pictures: what encoder and decoder do alike, frame by frame.

    past of t (reference picture, field, state) --field of t--> what t may read --symbols of t--> past of t+1

A frame is of one of three kinds. A *key* frame has no past: the image stage's own prior codes it, and a decoder may
begin there. A *moved* frame has vectors of its own; a *still* one has none, and is predicted from the reference as it
is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from vidlbc.bitstream import Header
from vidlbc.coding.moved_priors import Alone, MovedPriors, Seen
from vidlbc.motion.field import BLOCK, pyramid
from vidlbc.prior.topdown import Gains
from vidlbc.temporal_stage import Memory, State


class FrameKind(IntEnum):
    KEY = 0
    STILL = 1
    MOVED = 2


@dataclass(frozen=True)
class Past:
    """What frames before leave: a reference picture, uint8 (B, H, W, 3); the last field; a state a working stride."""

    reference: Tensor
    field: Tensor
    state: State


@dataclass(frozen=True)
class Look:
    """What a frame is given: its field, what the moved picture shows, the state moved, and the memory of each level."""

    field: Tensor
    seen: Seen
    state: State
    memory: Memory


def no_motion(priors: MovedPriors, header: Header, batch: int = 1) -> Tensor:
    """The field of a frame that stands still."""
    height, width = priors.padded(header)
    size = (batch, height // BLOCK, width // BLOCK, 2)
    return torch.zeros(size, dtype=torch.int32, device=priors.pool.device)


def look(priors: MovedPriors, past: Past, field: Tensor) -> Look:
    """The past as a frame with these vectors sees it."""
    seen = priors.see(past.reference, field)
    state: State = {}
    memory: Memory = {}
    vectors = pyramid(field, tuple(priors.strides))
    for stride in priors.strides:
        state[stride], read = priors.remember(stride, past.state[stride], vectors[stride], seen.prediction)
        memory |= read
    return Look(field, seen, state, memory)


def after(
    priors: MovedPriors,
    symbols: Sequence[Tensor],
    gains: Sequence[Gains],
    qp: Tensor,
    given: Look | None,
    still: Tensor,
    alone: Alone | None = None,
) -> Past:
    """The past of the next frame; `given`: what this one was coded from, None for a key frame; `still`: `no_motion`;
    `alone`: what the symbols show, where that is known.

    The reference picture takes longest, and is made beside the rest.
    """
    picture = None if given is None else given.seen.picture

    def make() -> Tensor:
        return priors.reference(priors.alone(symbols, gains, qp) if alone is None else alone, qp, picture)

    reference = priors.pool.beside(make)
    state: State = {}
    coarser: Tensor | None = None
    for stride in reversed(priors.strides):
        before = None if given is None else given.state[stride]
        coarser, state[stride] = priors.after_at(stride, symbols, gains, coarser, before)
    return Past(reference.result(), still if given is None else given.field, state)
