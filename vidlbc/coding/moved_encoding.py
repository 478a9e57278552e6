"""Packets of frames that are predicted from moved pictures: vectors and symbols are chosen in a closed loop.

    symbols of t, rounded --alone--> picture --against that of t-1--> displacements         some frames ahead
    picture, displacements --search in past of t--> field --look--> memory              frame by frame
    memory --choose--> symbols of t --after--> past of t+1

A frame is coded after the one before it, as its decoder will: the reference picture is the decoder's own. What vectors
are searched for is the picture that the frame's own symbols give: symbols are what is predicted. The first
frame is a key frame, and so is every `keyint`-th after a key frame, and one whose past says so little that the image
stage's own prior codes it shorter (a scene cut). A packet holds at most one, at its start, so that a decoder may begin
there; without context every frame is one, and nothing begins anywhere.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.bitstream import Header, Packet, end_bytes, pack_kinds
from vidlbc.coding.encoding import NEAR_INTRA, PACKET_FRAMES, CodedFrame, EncodeReport, crc_bytes, ideal_bits
from vidlbc.coding.moved_priors import Alone, MovedPriors
from vidlbc.coding.moving import FrameKind, Look, Past, after, look, no_motion
from vidlbc.coding.rdo import Rule, choose_level
from vidlbc.entropy import coder
from vidlbc.motion.field import LIMIT
from vidlbc.motion.prior import Asked
from vidlbc.motion.search import DEFAULT, Effort, displacements, search
from vidlbc.prior.grid import require_exact_products
from vidlbc.prior.topdown import Distribution

_LOOKED_AHEAD = 4  # frames: what is known of them before they are coded takes memory


@dataclass(frozen=True)
class MovedSettings:
    """`price`: of errors, in bits (vidlbc.coding.rdo); None: symbols are rounded. `keyint`: frames from one key frame
    to the next, 0: only where the past is of no use."""

    price: float | None = None
    effort: Effort = DEFAULT
    keyint: int = 0


@dataclass(frozen=True)
class CodedField:
    """What the range coder needs of a frame's vectors: runs of symbols in their order; and their ideal code length."""

    runs: list[tuple[np.ndarray, coder.CodedParameters]]
    bits: float
    crc_bytes: bytes

    @classmethod
    def of(cls, priors: MovedPriors, qp: Tensor, before: Tensor, field: Tensor) -> "CodedField":
        """The vectors of one frame; `before`: the field of the frame before."""
        runs: list[tuple[np.ndarray, ...]] = []  # values, means, log2 scales, quantised

        def code(asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
            assert truth is not None and asked.quantised is not None
            of_kind = (truth[0], asked.mean[0, :, kind], asked.log2_scale[0, :, kind], asked.quantised[:, 0, :, kind])
            here = slice(None) if mask is None else np.flatnonzero(mask[0].cpu().numpy())
            runs.append(tuple(x.cpu().numpy()[..., here] for x in of_kind))
            return truth

        priors.vectors(qp, before, code, field)
        columns = zip(*[run[:3] for run in runs], strict=True)
        symbols, mean, log2_scale = (torch.from_numpy(np.concatenate(x)) for x in columns)
        bits = float(ideal_bits(symbols.float(), Distribution(mean, log2_scale)).sum(dtype=torch.float64))
        coded = [(values, coder.CodedParameters(*quantised)) for values, _, _, quantised in runs]
        return cls(coded, bits, crc_bytes(field))


@dataclass(frozen=True)
class MovedFrame:
    """One frame as it will be coded: symbols int32 (1, H_l, W_l, C_l), fine to coarse; `vectors` of a moved one."""

    kind: FrameKind
    symbols: list[Tensor]
    coded: CodedFrame
    vectors: CodedField | None
    field: Tensor

    @property
    def bits(self) -> float:
        return self.coded.bits + (0.0 if self.vectors is None else self.vectors.bits)


class _Known(NamedTuple):
    """What is known of a frame before any frame is coded: what its rounded symbols show, and where that was in what
    those of the frame before show, None where there is none."""

    alone: Alone
    displaced: Tensor | None


@dataclass(frozen=True)
class _Choice:
    frame: MovedFrame
    given: Look | None
    cost: float  # bits with the price of errors


class MovedChooser:
    """Vectors and symbols of one clip, frame by frame."""

    def __init__(self, priors: MovedPriors, header: Header, settings: MovedSettings):
        self._priors, self._header, self._settings = priors, header, settings
        self._qp = torch.tensor([header.qp], device=priors.pool.device)
        self._gains = priors.image.gains(self._qp)
        self._rule = None if settings.price is None else Rule.of(settings.price, priors.pool.device)
        self._still = no_motion(priors, header)
        self._past: Past | None = None
        self._last: Future[_Known] | None = None  # of the last frame that was looked ahead to
        self._since_key = 0
        self._intra_bits = 0.0  # of the last frame that the intra prior was tried on

    def packets(self, packets: Iterable[Sequence[Tensor]]) -> Iterator[list[MovedFrame]]:
        """Packets of gain * y, float (n, H_l, W_l, C_l) a level -> their frames, one packet ahead of the caller."""
        return self._priors.pool.one_ahead(self._choose, packets)

    @torch.inference_mode()
    def _choose(self, scaled: Sequence[Tensor]) -> list[MovedFrame]:
        require_exact_products()
        frames = [[y[t : t + 1] for y in scaled] for t in range(len(scaled[0]))]
        if not self._header.context:
            return [self._frame(frame, None) for frame in frames]
        return [self._frame(frame, known) for frame, known in zip(frames, self._look_ahead(frames), strict=True)]

    def _look_ahead(self, frames: Sequence[Sequence[Tensor]]) -> Iterator[_Known]:
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

    def _know(self, scaled: Sequence[Tensor], last: "Future[_Known] | None") -> _Known:
        alone = self._priors.alone([y.round().to(torch.int32) for y in scaled], self._gains, self._qp)
        if last is None:
            return _Known(alone, None)
        before = last.result().alone.shown
        with self._priors.clock.stage("motion search"):
            return _Known(alone, displacements(alone.shown, before, self._qp, self._settings.effort))

    def _frame(self, scaled: Sequence[Tensor], known: _Known | None) -> MovedFrame:
        keyint = self._settings.keyint
        if self._past is None or known is None or (keyint and self._since_key >= keyint):
            chosen = self._key(scaled)
        else:
            chosen = self._inter(scaled, known, self._past)
            if self._priors.intra_frames and chosen.frame.bits >= NEAR_INTRA * self._intra_bits:
                other = self._key(scaled)
                chosen = other if other.cost < chosen.cost else chosen
        self._since_key = 1 if chosen.given is None else self._since_key + 1
        symbols = chosen.frame.symbols
        if known is not None:
            alone = known.alone if self._rule is None else None
            self._past = after(self._priors, symbols, self._gains, self._qp, chosen.given, self._still, alone)
        return chosen.frame

    def _key(self, scaled: Sequence[Tensor]) -> _Choice:
        symbols, coded, cost = self._under(scaled, None)
        self._intra_bits = coded.bits
        return _Choice(MovedFrame(FrameKind.KEY, symbols, coded, None, self._still), None, cost)

    def _inter(self, scaled: Sequence[Tensor], known: _Known, past: Past) -> _Choice:
        with self._priors.clock.stage("motion search"):
            field = self.search(known.alone.shown, past, known.displaced).clamp(-LIMIT, LIMIT)
        kind = FrameKind.MOVED if bool(field.any()) else FrameKind.STILL
        coming: Future[CodedField] | None = None
        if kind is FrameKind.MOVED:
            coming = self._priors.pool.beside(partial(CodedField.of, self._priors, self._qp, past.field, field))
        given = look(self._priors, past, field)
        symbols, coded, cost = self._under(scaled, given)
        vectors = None if coming is None else coming.result()
        cost += 0.0 if vectors is None else vectors.bits
        return _Choice(MovedFrame(kind, symbols, coded, vectors, field), given, cost)

    def search(self, picture: Tensor, past: Past, displaced: Tensor | None) -> Tensor:
        """Vectors of a frame that looks like `picture`, uint8 (1, H, W, 3): any decode."""
        return search(picture, past.reference, self._qp, past.field, self._settings.effort, displaced)

    def _under(self, scaled: Sequence[Tensor], given: Look | None) -> tuple[list[Tensor], CodedFrame, float]:
        """Symbols under the prior that is given the past, or under the image stage's own; their bits; their cost."""
        priors, gains, coded = self._priors, self._gains, self._header.coded
        by_intra = given is None
        hidden = priors.hidden(by_intra, self._qp, self._header)
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
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
                chosen = choose_level(wanted, distribution, self._rule, coded[index])
                symbols[index], cost = chosen.symbols, cost + float(chosen.cost)
            if index:
                hidden = priors.absorb(by_intra, index, hidden, symbols[index], gains[index], self._qp)
        frame = CodedFrame.of([q[0] for q in symbols], distributions, 0, coded, 0)
        return symbols, frame, frame.bits if self._rule is None else cost


class MovedWriter:
    """Codes chosen frames into packets of a sink."""

    def __init__(self, sink: BinaryIO, header: Header, variant: str | None = None):
        """`variant`: the name of what `header.kept` keeps, for the report."""
        self._sink, self._header, self._variant = sink, header, variant
        self._waiting: list[MovedFrame] = []
        self._bytes = 0
        self._bits: list[float] = []
        self._vector_bits = 0.0
        self._write(header.to_bytes())

    def add(self, frames: Sequence[MovedFrame]) -> None:
        for frame in frames:
            begins = frame.kind is FrameKind.KEY and self._header.context
            if self._waiting and (begins or len(self._waiting) == PACKET_FRAMES):
                self._end_packet()
            self._waiting.append(frame)
            self._bits.append(frame.bits)
            self._vector_bits += 0.0 if frame.vectors is None else frame.vectors.bits

    def _end_packet(self) -> None:
        encoder, crc, checks = coder.Encoder(), 0, bytearray()
        for frame in self._waiting:
            if frame.vectors is not None:
                for run in frame.vectors.runs:
                    encoder.encode(*run)
                crc = zlib.crc32(frame.vectors.crc_bytes, crc)
            coded = frame.coded
            for index in reversed(range(len(coded.symbols))):
                encoder.encode(coded.symbols[index], coded.parameters[index])
                crc = zlib.crc32(coded.crc_bytes[index], crc)
            checks.append(crc & 0xFF)
        kinds = pack_kinds([frame.kind for frame in self._waiting])
        self._write(Packet(len(checks), crc, bytes(checks), kinds, encoder.finish()).to_bytes())
        self._waiting = []

    def finish(self) -> EncodeReport:
        """Write the end record."""
        if self._waiting:
            self._end_packet()
        h, bits = self._header, self._bits
        self._write(end_bytes(len(bits), h.version))
        return EncodeReport(
            len(bits), self._bytes, None, h.qp, self._variant, sum(bits), h.height, h.width, tuple(bits),
            self._vector_bits,
        )  # fmt: skip

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._bytes += len(data)
