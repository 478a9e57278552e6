"""Packets from symbols: all are known, so the priors run on groups of frames side by side."""

import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header, Packet, end_bytes, pack_modes
from vidlbc.codec.coding.priors import Priors
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.entropy.tables import TAIL_SHARE
from vidlbc.codec.prior.grid import require_exact_products
from vidlbc.codec.prior.topdown import symbol_probability
from vidlbc.codec.temporal_stage import Maps, State
from vidlbc.codec.traced import Traced

# The intra prior is tried on frames that need at least this share of the bits that it takes for the packet's first.
NEAR_INTRA = 0.75
# Levels of one frame take different priors where that saves at least this share of it: decoding such a frame takes a
# third longer. At 0.005 it was one frame in ten of five clips, for 0.2% of their bytes. Frames that the intra prior
# alone would code (first ones, scene cuts) are rare, so that their time counts less.
_WORTH_BOTH, _WORTH_BOTH_AT_CUTS = 0.02, 0.005
# Frames that the encoder's priors take at once: small maps cost more to call than to compute.
_GROUP_FRAMES, _GROUP_CELLS = 4, 256
PACKET_FRAMES = 16  # at most
SPOOLED = 1 << 24  # bytes of a layer that are kept in memory while it waits for the other


@dataclass(frozen=True)
class EncodeReport:
    """What `compress_stream` wrote. `estimated_bits`: ideal code length under the unquantised distributions.

    `base_bytes`: how many of the bytes, from the start, hold the base layer; None where there are no layers.
    `frame_bits`: estimated, of each frame; `vector_bits`: of all, those of motion. `copied`: the share of all frames'
    blocks that are not coded.
    """

    frames: int
    bytes: int
    base_bytes: int | None
    qp: int
    variant: str | None
    estimated_bits: float
    height: int
    width: int
    frame_bits: tuple[float, ...]
    vector_bits: float
    copied: float


class LeftOut(NamedTuple):
    """Of one level of a frame: cells whose symbols are not coded, bool (1, H_l, W_l), and what they are, int32 (1, H_l,
    W_l, C_l)."""

    cells: Tensor
    symbols: Tensor


@dataclass(frozen=True)
class CodedFrame:
    """What the range coder needs of one frame (fine to coarse), and its ideal code length."""

    symbols: list[np.ndarray]
    parameters: list[coder.CodedParameters]
    level_bits: list[float]
    crc_bytes: list[bytes]
    intra: int = 0  # mask of the levels coded by the intra prior

    @classmethod
    def of(
        cls,
        symbols: Sequence[Tensor],
        distributions: Sequence[Distribution],
        row: int,
        coded: Sequence[int],
        skip: int,
        left: Sequence[LeftOut | None] = (),
    ) -> "CodedFrame":
        """symbols int32 (H_l, W_l, C_l); distributions (B, H_l, W_l, C_l), of which the frame's is `row`.

        `coded`: how many channels of each level are coded, the first ones. `skip`: scale indices below it are not; a
        level whose symbols do not allow that has infinitely many bits. `left`: of each level cells that are not coded.
        """
        bound = [torch.tensor(coder.first_table(skip), device=distributions[0].mean.device)] if skip else []
        bits, parameters, arrays, crcs = [], [], [], []
        left = left or [None] * len(symbols)
        for q, d, count, others in zip(symbols, distributions, coded, left, strict=True):
            here = (slice(row, row + 1), ..., slice(count))
            q = q[..., :count]
            tensors = q[None].to(d.mean.device), d.mean[here], d.log2_scale[here]
            crcs.append(crc_bytes(q))
            if others is None:
                level_bits, *quantised = _LEVEL(*tensors, *bound)
            else:
                level_bits, *quantised = _LEFT_LEVEL(*tensors, others.cells)
                quantised, q = [x[~others.cells] for x in quantised], q[~others.cells[0].to(q.device)]
            bits.append(float(level_bits))
            parameters.append(coder.CodedParameters.of(*quantised))
            arrays.append(q.reshape(-1).cpu().numpy())
        return cls(arrays, parameters, bits, crcs)

    @property
    def bits(self) -> float:
        return sum(self.level_bits)

    def or_intra(self, other: "CodedFrame") -> "CodedFrame":
        """The shorter of both at each level; `other`: the same frame under the intra prior.

        A decoder runs both priors where levels differ: to be worth it, all levels together must be shorter by some
        share of the better prior alone.
        """
        mask = sum((b < a) << level for level, (a, b) in enumerate(zip(self.level_bits, other.level_bits, strict=True)))
        shortest = sum(map(min, self.level_bits, other.level_bits))
        cut = other.bits < self.bits
        if shortest > (1 - (_WORTH_BOTH_AT_CUTS if cut else _WORTH_BOTH)) * min(self.bits, other.bits):
            mask = (1 << len(self.level_bits)) - 1 if cut else 0
        parts = [other if mask >> level & 1 else self for level in range(len(self.level_bits))]
        return CodedFrame(
            self.symbols,
            [part.parameters[level] for level, part in enumerate(parts)],
            [part.level_bits[level] for level, part in enumerate(parts)],
            self.crc_bytes,
            mask,
        )


class Known(NamedTuple):
    """What whoever chose a packet's symbols has computed already: the states before each frame and after the last, and
    the distributions of each frame's levels given the past, None where they are not known. Exact, so never in doubt.
    """

    states: Sequence[State]
    distributions: Sequence[Sequence[Distribution] | None]


def coded_frames(
    priors: Priors, symbols: Sequence[Tensor], header: Header, state: State, known: Known | None = None
) -> Iterator[tuple[CodedFrame, State]]:
    """Each frame of one packet with its quantised distributions, in order, and the state after it.

    symbols int32 (T, H_l, W_l, C_l). On CPU small groups of frames run side by side, one thread each; exact either way.
    With context a level is coded by the intra prior where that is shorter. It is tried on the packet's first frame, and
    then on those that come near it.
    """
    require_exact_products()
    pool = priors.pool
    qps = torch.tensor([header.qp], device=pool.device)
    gains = priors.image.gains(qps)
    context = header.context and priors.context
    coded = header.coded
    count = len(symbols[0])
    group = max(1, min(_GROUP_FRAMES, _GROUP_CELLS // symbols[-1][0, ..., 0].numel()))
    spans = [slice(start, start + group) for start in range(0, count, group)]

    def observe(index: int) -> Maps:
        return priors.observe([q[spans[index]] for q in symbols], gains)

    states = [state]
    if known:
        states = list(known.states)
    elif context:
        seen = pool.each(observe, len(spans))
        states += pool.ahead(lambda: _advance(priors, state, [f.result() for f in seen])).result()

    def quantised(frame: Sequence[Tensor], out: Sequence[Distribution], row: int) -> CodedFrame:
        with priors.clock.stage("entropy coding"):
            return CodedFrame.of(frame, out, row, coded, header.skip)

    def intra(t: int) -> CodedFrame:
        alone = [q[t : t + 1] for q in symbols]
        return quantised([q[t] for q in symbols], priors.frames(True, alone, qps, gains, {}), 0)

    try_intra = priors.intra_frames and context
    first = pool.each(intra, 1)[0].result() if try_intra else None

    def code(index: int) -> list[CodedFrame]:
        span = spans[index]
        several = [q[span] for q in symbols]
        size = len(several[0])
        given = known.distributions[span] if known else [None] * size
        if None in given:
            memory = priors.memory(_side_by_side(states[span][:size] if context else [state] * size))
            out = priors.frames(False, several, qps.expand(size), gains, memory)
        frames = []
        for t in range(size):
            at_hand = given[t]
            frame = quantised([q[t] for q in several], *((out, t) if at_hand is None else (at_hand, 0)))
            if first is not None and frame.bits >= NEAR_INTRA * first.bits:
                frame = frame.or_intra(intra(span.start + t) if span.start + t else first)
            frames.append(frame)
        return frames

    t = 0
    for group_coded in pool.each(code, len(spans)):
        for frame in group_coded.result():
            t += 1
            yield frame, states[t if context else 0]


@torch.inference_mode()
def _advance(priors: Priors, state: State, observed: Sequence[Maps]) -> list[State]:
    """States after each frame; frame by frame, so on the serial worker. `observed`: maps of groups of frames."""
    states = []
    for maps in observed:
        for t in range(len(next(iter(maps.values())))):
            state = priors.advance(state, {s: m[t : t + 1] for s, m in maps.items()})
            states.append(state)
    return states


def _side_by_side(states: Sequence[State]) -> State:
    return {s: tuple(map(torch.cat, zip(*[state[s] for state in states], strict=True))) for s in states[0]}


class _Section:
    """Packets of some of the levels, and the running packet's parts."""

    def __init__(self, sink: BinaryIO, levels: range, skip: int):
        self.sink, self.levels, self.skip, self.bytes = sink, levels, skip, 0
        self._begin()

    def _begin(self) -> None:
        self._encoder, self._crc, self._checks, self._masks = coder.Encoder(self.skip), 0, bytearray(), list[int]()

    def add(self, frame: CodedFrame) -> None:
        for index in reversed(self.levels):
            self._encoder.encode(frame.symbols[index], frame.parameters[index])
            self._crc = zlib.crc32(frame.crc_bytes[index], self._crc)
        self._masks.append(frame.intra >> self.levels.start & ((1 << len(self.levels)) - 1))
        self._checks.append(self._crc & 0xFF)

    def end_packet(self) -> None:
        modes = pack_modes(self._masks, len(self.levels))
        packet = Packet(len(self._checks), self._crc, bytes(self._checks), modes, self._encoder.finish())
        self.write(packet.to_bytes())
        self._begin()

    def write(self, data: bytes) -> None:
        self.sink.write(data)
        self.bytes += len(data)


class PacketWriter:
    """Codes packets of symbols into a sink, carrying the temporal state from one to the next.

    With a base layer the enhancement's packets wait in a temporary file until the base has ended.
    """

    def __init__(self, priors: Priors, sink: BinaryIO, header: Header, variant: str | None = None):
        """`variant`: the name of what `header.kept` keeps, for the report.

        Raises InputError where the base layer cannot stand alone under the temporal stage.
        """
        priors.check_layers(header)
        self._priors, self._sink, self._header, self._variant = priors, sink, header, variant
        self._state = priors.start(1, header)
        first, *later = header.sections
        self._sections = [_Section(sink, first, header.skip)]
        self._sections += [
            _Section(cast(BinaryIO, SpooledTemporaryFile(SPOOLED)), levels, header.skip) for levels in later
        ]
        self._sections[0].write(header.to_bytes())
        self._bits: list[float] = []

    def add(self, symbols: Sequence[Tensor], known: Known | None = None) -> None:
        """One packet: int32 (n, H_l, W_l, C_l) a level, n up to 255; channels that are not coded must be zero."""
        for frame, state in coded_frames(self._priors, symbols, self._header, self._state, known):
            self._state = state
            with self._priors.clock.stage("entropy coding"):
                for section in self._sections:
                    section.add(frame)
            self._bits.append(frame.bits)
        with self._priors.clock.stage("entropy coding"):
            for section in self._sections:
                section.end_packet()

    def finish(self) -> EncodeReport:
        """Write the end records."""
        h, bits = self._header, self._bits
        for section in self._sections:
            section.write(end_bytes(len(bits), h.version))
        for section in self._sections[1:]:
            section.sink.seek(0)
            shutil.copyfileobj(section.sink, self._sink)
            section.sink.close()
        size, base = sum(section.bytes for section in self._sections), self._sections[0].bytes
        return EncodeReport(
            len(bits),
            size,
            base if h.base else None,
            h.qp,
            self._variant,
            sum(bits),
            h.height,
            h.width,
            tuple(bits),
            vector_bits=0.0,
            copied=0.0,
        )


def crc_bytes(q: Tensor) -> bytes:
    """What the checksums cover: a level's symbols, int16 little-endian, (H, W, C) order; levels coarse to fine."""
    return q.to(torch.int16).contiguous().cpu().numpy().astype("<i2", copy=False).tobytes()


def _code_level(
    q: Tensor, mean: Tensor, log2_scale: Tensor, bound: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ideal bits of one level of one frame, and its quantised distributions; all (1, H, W, C).

    Tables below `bound` are not coded.
    """
    distribution = Distribution(mean, log2_scale)
    bits, (table, centre, flip) = ideal_bits(q.float(), distribution), coder.quantise_tensors(distribution)
    if bound is not None:
        bits = torch.where(table < bound, torch.where(q == centre, 0.0, torch.inf), bits)
    return bits.sum(dtype=torch.float64), table, centre, flip


def _code_left_level(q: Tensor, mean: Tensor, log2_scale: Tensor, left: Tensor) -> tuple[Tensor, ...]:
    """As `_code_level`; cells of which `left` (1, H, W) is set have no bits."""
    distribution = Distribution(mean, log2_scale)
    bits = torch.where(left[..., None], 0.0, ideal_bits(q.float(), distribution))
    return bits.sum(dtype=torch.float64), *coder.quantise_tensors(distribution)


def ideal_bits(q: Tensor, distribution: Distribution) -> Tensor:
    """Code length of each symbol under the distributions before they are quantised, with the heavy tail of
    vidlbc.codec.entropy.tables."""
    distance = (q - distribution.mean.round()).abs()
    # 0.4396: one over the sum of 1 / (1 + |r|)^2 up to 64 and of the escape's 1 / 65.
    tail = 0.4396 / (1 + distance).square()
    probability = (1 - TAIL_SHARE) * symbol_probability(q, distribution)[0] + TAIL_SHARE * tail
    return -probability.log2()


_LEVEL = Traced(_code_level)
_LEFT_LEVEL = Traced(_code_left_level)
