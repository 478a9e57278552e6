"""Packets of frames that are predicted from moved pictures: vectors and symbols are chosen in a closed loop.

    symbols of t, rounded --alone--> picture, or the frame --against t-1--> displacements   some frames ahead
    picture, displacements --search in past of t--> field --look--> memory              frame by frame
    memory --choose--> symbols of t --after--> past of t+1

A frame is coded after the one before it, as its decoder will: the reference picture is the decoder's own. What vectors
are searched for is the frame itself where it is known, for copied blocks show it, and else the picture that the frame's
own symbols give: symbols are what is predicted. The first frame is a key frame, and so is every `keyint`-th after a key
frame, and one whose past says so little that the image stage's own prior codes it shorter (a scene cut). A packet holds
at most one, at its start, so that a decoder may begin there; without context every frame is one, and nothing begins
anywhere.

Where symbols are chosen for rate and distortion and the stage can, blocks are copied (vidlbc.codec.coding.copying),
frames that show what is shown already are repeated, and key frames have a higher QP than those that will copy them.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.bitstream import Header
from vidlbc.codec.bitstream.container import MAX_QP
from vidlbc.codec.coding.copying import FRESH, SHARE, lasting, lasting_weight, worth_copying
from vidlbc.codec.coding.encoding import (
    NEAR_INTRA,
    CodedFrame,
    LeftOut,
)
from vidlbc.codec.coding.moved_priors import Alone, MovedPriors, Seen
from vidlbc.codec.coding.moved_writing import CodedRuns, MovedFrame, Walk
from vidlbc.codec.coding.moving import FrameKind, Look, Past, after, left_out, look, no_copies, no_motion
from vidlbc.codec.coding.rdo import Rule, choose_level
from vidlbc.codec.coding.refining import LARGEST, Aim, refined_inter, refined_key
from vidlbc.codec.coding.visible import Visible
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.image_stage.base import QPS_A_FOLD
from vidlbc.codec.motion.brightness import Brightness, brightened, brightness_between
from vidlbc.codec.motion.choosing import Cheapest
from vidlbc.codec.motion.field import LIMIT
from vidlbc.codec.motion.prior import Wanted
from vidlbc.codec.motion.search import DEFAULT, Effort, blocks_of, displacements, search
from vidlbc.codec.motion.warp import shown
from vidlbc.codec.prior.grid import require_exact_products
from vidlbc.codec.prior.topdown import Gains

LIFT = 24
PRICE = 30.0  # of a symbol's error (vidlbc.codec.coding.rdo): more than in frames of which nothing is copied on
_FULL = 48  # frames from one key frame to the next that are worth all of an effort's steps on it
# Of a key frame's lift: frames that may still show what it shows, and how much a frame's error counts that does.
_LASTING, _SHOWN_AGAIN = 24, 0.5
_TRIED = 16  # QPs more: what the frame after it is tried on
_BITS_A_QP = 1.07  # about: what one QP more makes of a key frame's bits
_LATELY = 4  # frames
_LOOKED_AHEAD = 4  # frames: what is known of them before they are coded takes memory


@dataclass(frozen=True)
class MovedSettings:
    """`price`: of errors, in bits (vidlbc.codec.coding.rdo); None: symbols are rounded. `keyint`: frames from one key
    frame to the next, 0: only where the past is of no use. `lift`: QPs that a key frame has more than those after it at
    most, where blocks may be copied from it; `weights`: of copied blocks' errors, None: as
    many are copied (vidlbc.codec.coding.copying)."""

    price: float | None = None
    effort: Effort = DEFAULT
    keyint: int = 0
    lift: int = LIFT
    weights: tuple[float, float] | None = None


class SourceFrames(NamedTuple):
    """Frames to be coded: y, float (n, H_l, W_l, C_l) a level, or symbols as such numbers where none are chosen; and
    what is shown, uint8 (n, H, W, 3), padded, where blocks may be copied."""

    levels: Sequence[Tensor]
    pictures: Tensor | None = None

    def frame(self, t: int) -> "SourceFrames":
        pictures = None if self.pictures is None else self.pictures[t : t + 1]
        return SourceFrames([y[t : t + 1] for y in self.levels], pictures)


class _Known(NamedTuple):
    """What is known of a frame before any frame is coded: what its rounded symbols show, the picture to search for, and
    where that was in the one before, None where there is none; whether the picture is the one before, and how much
    brighter than that."""

    alone: Alone
    picture: Tensor
    displaced: Tensor | None
    repeats: bool
    brightness: Brightness | None = None


class _Next(NamedTuple):
    """A frame, and what is known of it."""

    frame: SourceFrames
    known: _Known


class _Motion(NamedTuple):
    """What of its past a frame is predicted from: vectors, coded where there are any, what they show, and which blocks
    are copied."""

    field: Tensor
    vectors: CodedRuns | None
    seen: Seen
    copied: Tensor


@dataclass(frozen=True)
class _Choice:
    frame: MovedFrame
    given: Look | None
    cost: float  # bits with the price of errors


class _At(NamedTuple):
    """A QP, as an int and as a tensor, and its gains."""

    number: int
    qp: Tensor
    gains: Sequence[Gains]


class MovedChooser:
    """Vectors and symbols of one clip, frame by frame."""

    def __init__(self, priors: MovedPriors, header: Header, settings: MovedSettings):
        self._priors, self._header, self._settings = priors, header, settings
        self._base, keyint = self._at(header.qp), settings.keyint
        self._lift = settings.lift if header.copies else 0
        self._rule = None if settings.price is None else Rule.of(settings.price, priors.pool.device)
        self._still = no_motion(priors, header)
        self._visible = Visible.of(priors, header)
        effort, whole = settings.effort, header.coded == tuple(level.channels for level in priors.levels)
        by_gradient = header.copies and header.context and whole
        key_steps = effort.key_steps * min(keyint, _FULL) // _FULL if keyint else effort.key_steps
        self._key_steps, self._frame_steps = (key_steps, effort.frame_steps) if by_gradient else (0, 0)
        self._past: Past | None = None
        self._last: Future[_Known] | None = None  # of the last frame that was looked ahead to
        self._since_key = 0
        self._share = SHARE  # of blocks that were copied lately
        self._intra_bits = 0.0  # of the last frame that the intra prior was tried on, at the header's QP
        self._before: MovedFrame | None = None

    def packets(self, packets: Iterable[SourceFrames]) -> Iterator[list[MovedFrame]]:
        """Packets of frames, one packet ahead of the caller."""
        return self._priors.pool.one_ahead(self._choose, packets)

    @torch.inference_mode()
    def _choose(self, source: SourceFrames) -> list[MovedFrame]:
        require_exact_products()
        frames = [source.frame(t) for t in range(len(source.levels[0]))]
        if not self._header.context:
            return [self._frame(frame, None) for frame in frames]
        chosen, ahead = [], self._look_ahead(frames)
        known = next(ahead)
        for t, frame in enumerate(frames):
            coming = next(ahead, None)
            following = None if coming is None else _Next(frames[t + 1], coming)
            chosen.append(self._frame(frame, known, following, len(frames) == 1))
            if coming is not None:
                known = coming
        return chosen

    def _at(self, qp: int) -> _At:
        row = torch.tensor([qp], device=self._priors.pool.device)
        return _At(qp, row, self._priors.image.gains(row))

    def _scaled(self, frame: SourceFrames, at: _At) -> Sequence[Tensor]:
        """gain * y, which is rounded to symbols, or the symbols that were given."""
        if self._rule is None:
            return frame.levels
        limit = coder.SYMBOL_LIMIT
        pairs = zip(frame.levels, at.gains, strict=True)
        return [(y.to(g.gain.device) * g.gain).clamp_(-limit, limit) for y, g in pairs]

    def _look_ahead(self, frames: Sequence[SourceFrames]) -> Iterator[_Known]:
        """What is known of each frame, found while those before are coded."""
        coming: deque[Future[_Known]] = deque()
        for frame in frames:
            # Each waits for the one before it, which the same threads were given earlier.
            self._last = self._priors.pool.among(partial(self._know, frame, self._last))
            coming.append(self._last)
            if len(coming) > _LOOKED_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()

    def _know(self, frame: SourceFrames, last: "Future[_Known] | None") -> _Known:
        before = None if last is None else last.result()
        given = None if frame.pictures is None else frame.pictures.to(self._still.device)
        if before is not None and given is not None and torch.equal(given, before.picture):
            return before._replace(repeats=True)
        symbols = [y.round().to(torch.int32) for y in self._scaled(frame, self._base)]
        alone = self._priors.alone(symbols, self._base.gains, self._base.qp)
        picture = alone.shown if given is None else given
        if before is None:
            return _Known(alone, picture, None, False)
        with self._priors.clock.stage("motion search"):
            then, light = before.picture, None
            if given is not None and self._header.copies:
                light = brightness_between(given, then)
                then = then if light is None else brightened(then, light)
            found = displacements(picture, then, self._base.qp, self._settings.effort)
        return _Known(alone, picture, found, False, light)

    def _frame(
        self, frame: SourceFrames, known: _Known | None, following: _Next | None = None, single: bool = True
    ) -> MovedFrame:
        """`following`: the next one, None where it is not known yet; `single`: whether there is none."""
        keyint = self._settings.keyint
        if self._past is None or known is None or (keyint and self._since_key >= keyint):
            chosen = self._final_key(frame, following, single)
        elif known.repeats and self._header.copies:
            return self._repeated()
        else:
            inter = self._inter(frame, known, self._past)
            if inter is None:
                return self._repeated()
            chosen = inter
            if self._priors.intra_frames and chosen.frame.bits >= NEAR_INTRA * self._intra_bits:
                other = self._key(frame, 0)
                if other.cost < chosen.cost:
                    chosen = self._final_key(frame, following, single) if self._lift or self._key_steps else other
        self._since_key += 1
        if chosen.given is None:
            self._since_key, self._share = 1, SHARE
        self._before = chosen.frame
        if known is not None:
            at = self._at(chosen.frame.qp)
            alone = known.alone if self._rule is None else None
            self._past = after(self._priors, chosen.frame.symbols, at.gains, at.qp, chosen.given, self._still, alone)
        return chosen.frame

    def _repeated(self) -> MovedFrame:
        assert self._before is not None
        self._since_key += 1
        return MovedFrame(FrameKind.REPEATED, self._before.qp, self._before.symbols, None, copied=1.0)

    def _final_key(self, frame: SourceFrames, following: _Next | None, single: bool) -> _Choice:
        """A key frame that will be coded so: it is worth some time."""
        return self._key(frame, 0 if single or not self._lift else self.lift(frame, following), final=True)

    def lift(self, frame: SourceFrames, following: _Next | None) -> int:
        """QPs that a key frame has more than those after it: any decode.

        A block that is copied on has its error in each frame that shows it. Were that n times the error of a frame, the
        key frame's lambda would be n times that of the others; the next frame tells which share of blocks is copied.
        """
        frames = min(self._settings.keyint or _LASTING, _LASTING)
        if frames == 1:
            return 0
        if following is None:
            return self._lift // 2
        share = self._copied_of(self._key(frame, _TRIED), following)
        shown_again = sum(share**t for t in range(1, frames))
        return min(round(QPS_A_FOLD * math.log(1 + _SHOWN_AGAIN * shown_again)), self._lift)

    def _copied_of(self, key: _Choice, following: _Next) -> float:
        """The share of its blocks, of those that are shown, that a frame would copy from a key frame."""
        at, self._share = self._at(key.frame.qp), SHARE
        past = after(self._priors, key.frame.symbols, at.gains, at.qp, None, self._still)
        copied = self._motion(*following, past.brightened(following.known.brightness), True).copied
        shown_there = self._visible.blocks
        return float((copied if shown_there is None else copied[shown_there]).float().mean())

    def _key(self, frame: SourceFrames, lift: int, final: bool = False) -> _Choice:
        """`final`: symbols are worth some time."""
        at = self._at(min(self._base.number + lift, MAX_QP)) if lift else self._base
        symbols, coded, cost = self._under(frame, at, None, self._refined(frame, at, None) if final else None)
        self._intra_bits = coded.bits * _BITS_A_QP ** (self._base.number - at.number)
        return _Choice(MovedFrame(FrameKind.KEY, at.number, symbols, coded), None, cost)

    def _refined(self, frame: SourceFrames, at: _At, given: Look | None) -> list[Tensor] | None:
        """Symbols by gradient; None: as they are. `given`: as of `_under`."""
        steps = self._key_steps if given is None else self._frame_steps
        if not steps or frame.pictures is None:
            return None
        priors, picture = self._priors, frame.pictures.to(self._still.device)
        aim = Aim(self._scaled(frame, at), at.gains, at.qp, picture, self._visible.pixels)
        if given is None:
            with priors.clock.stage("gradients"):
                return refined_key(priors.trunk(True), priors.temporal.motion.synthesis, aim, steps)
        if bool(given.copied.all()) or picture.shape[1] * picture.shape[2] > LARGEST:
            return None
        memory = {index: given.read(index) for index in range(len(priors.levels))}
        prediction = given.seen.prediction._replace(copied=given.copied)
        with priors.clock.stage("gradients"):
            return refined_inter(priors.temporal, memory, given.seen.picture, prediction, aim, steps)

    def _motion(self, frame: SourceFrames, known: _Known, past: Past, after_key: bool) -> _Motion:
        """`past`: as bright as the frame."""
        priors = self._priors
        with priors.clock.stage("motion search"):
            wanted = self.search(known.picture, past, known.displaced)
        walk: Walk = partial(priors.vectors, self._base.qp, past.field)
        vectors = CodedRuns.of(walk, wanted.clamp(-LIMIT, LIMIT) if isinstance(wanted, Tensor) else wanted)
        field = vectors.values
        seen, copied = priors.see(past.reference, field), no_copies(field)
        if self._header.copies:
            copied = self.copies(frame, known, seen, lasting(past.copied, after_key, field))
        return _Motion(field, vectors if bool(field.any()) else None, seen, copied)

    def _inter(self, frame: SourceFrames, known: _Known, past: Past) -> _Choice | None:
        """None: the frame shows what the one before shows."""
        priors, at, light = self._priors, self._base, known.brightness
        past = past.brightened(light)
        field, vectors, seen, copied = self._motion(frame, known, past, self._since_key == 1)
        kind = FrameKind.STILL if vectors is None else FrameKind.MOVED
        coming: Future[CodedRuns] | None = None
        if self._header.copies:
            self._share += (float(copied.float().mean()) - self._share) / _LATELY
            if kind is FrameKind.STILL and light is None and bool(copied.all()):
                return None
            walk: Walk = partial(priors.flags, at.qp, past.copied, field)
            coming = priors.pool.beside(partial(CodedRuns.of, walk, copied))
        given = look(priors, past, field, copied, seen)
        symbols, coded, cost = self._under(frame, at, given, self._refined(frame, at, given))
        flags = None if coming is None else coming.result()
        cost += sum(runs.bits for runs in (vectors, flags) if runs is not None)
        share = float(copied.float().mean())
        frame_coded = MovedFrame(kind, at.number, symbols, coded, vectors, flags, share, light)
        return _Choice(frame_coded, given, cost)

    def search(self, picture: Tensor, past: Past, displaced: Tensor | None) -> Tensor | Wanted:
        """Vectors of a frame that looks like `picture`, uint8 (1, H, W, 3), or by what they are chosen: any decode."""
        qp, reference = self._base.qp, past.reference
        found = search(picture, reference, qp, past.field, self._settings.effort, displaced)
        return Cheapest(qp, found.clamp(-LIMIT, LIMIT), blocks_of(picture, reference))

    def copies(self, frame: SourceFrames, known: _Known, seen: Seen, lasts: Tensor) -> Tensor:
        """Flags of a frame's copied blocks: any decode; `lasts`: as worth_copying takes it."""
        at, latents = self._base, seen.prediction.latents
        scaled = self._scaled(frame, at)
        return worth_copying(
            known.picture,
            shown(seen.picture),
            known.alone.shown,
            scaled,
            latents,
            at.gains,
            at.qp,
            lasts,
            self._settings.weights or (FRESH, lasting_weight(self._share)),
            self._visible.pixels,
        )

    def _under(
        self, frame: SourceFrames, at: _At, given: Look | None, scaled: Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], CodedFrame, float]:
        """Symbols under the prior that is given the past, or under the image stage's own; their bits; their cost, where
        that of copied blocks is as if they were coded. `scaled`: gain * y, where it is not the frame's own."""
        priors, gains, coded = self._priors, at.gains, self._header.coded
        scaled = self._scaled(frame, at) if scaled is None else scaled
        by_intra = given is None
        hidden = priors.hidden(by_intra, at.qp, self._header)
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
        left: list[LeftOut | None] = [None] * len(scaled)
        distributions: list[Distribution] = []
        cost = 0.0
        for index in reversed(range(len(scaled))):
            read = () if given is None else given.read(index)
            hidden, distribution = priors.expect(by_intra, index, hidden, gains[index], read)
            distributions.insert(0, distribution)
            wanted = scaled[index].to(hidden.device)
            if self._rule is None:
                q = wanted[..., : coded[index]].round().to(torch.int32)
                symbols[index] = F.pad(q, (0, wanted.shape[-1] - coded[index]))
            else:
                chosen = choose_level(wanted, distribution, self._rule, coded[index], self._visible.cells[index])
                symbols[index], cost = chosen.symbols, cost + float(chosen.cost)
            left[index] = others = left_out(priors, index, gains[index], given, coded[index])
            if others is not None:
                symbols[index] = torch.where(others.cells[..., None], others.symbols, symbols[index])
            if index:
                hidden = priors.absorb(by_intra, index, hidden, symbols[index], gains[index], at.qp)
        frame_coded = CodedFrame.of([q[0] for q in symbols], distributions, 0, coded, 0, left)
        return symbols, frame_coded, frame_coded.bits if self._rule is None else cost
