"""Packets of frames that are predicted from moved pictures: vectors and symbols are chosen in a closed loop.

    symbols of t, rounded --reference--> picture --search in past of t--> field --look--> memory
    memory --choose--> symbols of t --after--> past of t+1

A frame is coded after the one before it, as its decoder will: the reference picture is the decoder's own. What vectors
are searched for is the picture that the frame's own symbols give: symbols are what is predicted. The first
frame is a key frame, and so is every `keyint`-th after a key frame, and one whose past says so little that the image
stage's own prior codes it shorter (a scene cut). A packet holds at most one, at its start, so that a decoder may begin
there; without context every frame is one, and nothing begins anywhere.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.bitstream import Header, Packet, end_bytes, pack_kinds
from vidlbc.coding.encoding import NEAR_INTRA, CodedFrame, EncodeReport, crc_bytes, ideal_bits
from vidlbc.coding.moved_priors import Alone, MovedPriors
from vidlbc.coding.moving import FrameKind, Look, Past, after, look, no_motion
from vidlbc.coding.rdo import choose_level
from vidlbc.entropy import coder
from vidlbc.motion.field import LIMIT
from vidlbc.motion.prior import Asked
from vidlbc.motion.search import DEFAULT, Effort, search
from vidlbc.prior.grid import require_exact_products
from vidlbc.prior.topdown import Distribution

PACKET_FRAMES = 16


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
        symbols, mean, log2_scale = (torch.from_numpy(np.concatenate(x)) for x in zip(*[r[:3] for r in runs], strict=True))
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
        self._still = no_motion(priors, header)
        self._past: Past | None = None
        self._since_key = 0
        self._intra_bits = 0.0  # of the last frame that the intra prior was tried on

    def packets(self, packets: Iterable[Sequence[Tensor]]) -> Iterator[list[MovedFrame]]:
        """Packets of gain * y, float (n, H_l, W_l, C_l) a level -> their frames, one packet ahead of the caller."""
        coming: Future[list[MovedFrame]] | None = None
        for scaled in packets:
            ready = None if coming is None else coming.result()
            coming = self._priors.pool.ahead(partial(self._choose, scaled))
            if ready is not None:
                yield ready
        if coming is not None:
            yield coming.result()

    @torch.inference_mode()
    def _choose(self, scaled: Sequence[Tensor]) -> list[MovedFrame]:
        require_exact_products()
        frames = [[y[t : t + 1] for y in scaled] for t in range(len(scaled[0]))]
        if not self._header.context:
            return [self._frame(frame, None) for frame in frames]
        # What frames show by themselves is known before any is coded: side by side, while those before are.
        seen = self._priors.pool.each(lambda t: self._alone(frames[t]), len(frames))
        return [self._frame(frame, alone.result()) for frame, alone in zip(frames, seen, strict=True)]

    def _alone(self, scaled: Sequence[Tensor]) -> Alone:
        return self._priors.alone([y.round().to(torch.int32) for y in scaled], self._gains, self._qp)

    def _frame(self, scaled: Sequence[Tensor], alone: Alone | None) -> MovedFrame:
        keyint = self._settings.keyint
        if self._past is None or alone is None or (keyint and self._since_key >= keyint):
            chosen = self._key(scaled)
        else:
            chosen = self._inter(scaled, alone, self._past)
            if self._priors.intra_frames and chosen.frame.bits >= NEAR_INTRA * self._intra_bits:
                other = self._key(scaled)
                chosen = other if other.cost < chosen.cost else chosen
        self._since_key = 1 if chosen.given is None else self._since_key + 1
        symbols = chosen.frame.symbols
        if alone is not None:
            known = alone if self._settings.price is None else None
            self._past = after(self._priors, symbols, self._gains, self._qp, chosen.given, self._still, known)
        return chosen.frame

    def _key(self, scaled: Sequence[Tensor]) -> _Choice:
        symbols, coded, cost = self._under(scaled, None)
        self._intra_bits = coded.bits
        return _Choice(MovedFrame(FrameKind.KEY, symbols, coded, None, self._still), None, cost)

    def _inter(self, scaled: Sequence[Tensor], alone: Alone, past: Past) -> _Choice:
        with self._priors.clock.stage("motion search"):
            field = self.search(alone.shown, past).clamp(-LIMIT, LIMIT)
        kind = FrameKind.MOVED if bool(field.any()) else FrameKind.STILL
        vectors = CodedField.of(self._priors, self._qp, past.field, field) if kind is FrameKind.MOVED else None
        given = look(self._priors, past, field)
        symbols, coded, cost = self._under(scaled, given)
        cost += 0.0 if vectors is None else vectors.bits
        return _Choice(MovedFrame(kind, symbols, coded, vectors, field), given, cost)

    def search(self, picture: Tensor, past: Past) -> Tensor:
        """Vectors of a frame that looks like `picture`, uint8 (1, H, W, 3): any decode."""
        return search(picture, past.reference, self._qp, past.field, self._settings.effort)

    def _under(self, scaled: Sequence[Tensor], given: Look | None) -> tuple[list[Tensor], CodedFrame, float]:
        """Symbols under the prior that is given the past, or under the image stage's own; their bits; their cost."""
        priors, gains, price = self._priors, self._gains, self._settings.price
        by_intra = given is None
        hidden = priors.hidden(by_intra, self._qp, self._header)
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
        distributions: list[Distribution] = []
        error = 0.0
        for index in reversed(range(len(scaled))):
            read = () if given is None else given.read(priors.levels[index], index)
            hidden, distribution = priors.expect(by_intra, index, hidden, gains[index], read)
            distributions.insert(0, distribution)
            coded = self._header.coded[index]
            here = (..., slice(coded))
            wanted = scaled[index][here].to(hidden.device)
            if price is None:
                q = wanted.round().to(torch.int32)
            else:
                own = Distribution(distribution.mean[here], distribution.log2_scale[here])
                q = choose_level(wanted, own, price)
                error += price * float((q - wanted).square().sum(dtype=torch.float64))
            symbols[index] = F.pad(q, (0, scaled[index].shape[-1] - coded))
            if index:
                hidden = priors.absorb(by_intra, index, hidden, symbols[index], gains[index], self._qp)
        frame = CodedFrame.of([q[0] for q in symbols], distributions, 0, self._header.coded, 0)
        return symbols, frame, frame.bits + error


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
