"""Packets from symbols: all are known, so the priors run on groups of frames side by side."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vidlbc.bitstream import Header, Packet, end_bytes, pack_modes
from vidlbc.coding.priors import Priors
from vidlbc.entropy import coder
from vidlbc.entropy.tables import TAIL_SHARE
from vidlbc.prior.grid import require_exact_products
from vidlbc.prior.topdown import Distribution, symbol_probability
from vidlbc.temporal_stage import Maps, State
from vidlbc.traced import Traced

# The intra prior is tried on frames that need at least this share of the bits that it takes for the packet's first.
_NEAR_INTRA = 0.75
# Levels of one frame take different priors where that saves at least this share of it: decoding such a frame takes a
# third longer. At 0.005 it was one frame in ten of five clips, for 0.2% of their bytes. Frames that the intra prior
# alone would code (first ones, scene cuts) are rare, so that their time counts less.
_WORTH_BOTH, _WORTH_BOTH_AT_CUTS = 0.02, 0.005
# Frames that the encoder's priors take at once: small maps cost more to call than to compute.
_GROUP_FRAMES, _GROUP_CELLS = 4, 256


@dataclass(frozen=True)
class EncodeReport:
    """What `compress_stream` wrote. `estimated_bits`: ideal code length under the unquantised distributions."""

    frames: int
    bytes: int
    estimated_bits: float
    height: int
    width: int
    frame_bits: tuple[float, ...]


@dataclass(frozen=True)
class CodedFrame:
    """What the range coder needs of one frame (fine to coarse), and its ideal code length."""

    symbols: list[np.ndarray]
    parameters: list[coder.CodedParameters]
    level_bits: list[float]
    crc_bytes: bytes
    intra: int = 0  # mask of the levels coded by the intra prior

    @classmethod
    def of(cls, symbols: Sequence[Tensor], distributions: Sequence[Distribution], row: int) -> "CodedFrame":
        """symbols int32 (H_l, W_l, C_l); distributions (B, H_l, W_l, C_l), of which the frame's is `row`."""
        bits, parameters = [], []
        for q, d in zip(symbols, distributions, strict=True):
            here = slice(row, row + 1)
            level_bits, *quantised = _LEVEL(q[None].to(d.mean.device), d.mean[here], d.log2_scale[here])
            bits.append(float(level_bits))
            parameters.append(coder.CodedParameters.of(*quantised))
        arrays = [q.reshape(-1).cpu().numpy() for q in symbols]
        return cls(arrays, parameters, bits, b"".join(crc_bytes(q) for q in reversed(symbols)))

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


def coded_frames(
    priors: Priors, symbols: Sequence[Tensor], qp: int, state: State, context: bool
) -> Iterator[tuple[CodedFrame, State]]:
    """Each frame of one packet with its quantised distributions, in order, and the state after it.

    symbols int32 (T, H_l, W_l, C_l). On CPU small groups of frames run side by side, one thread each; exact either way.
    With context a level is coded by the intra prior where that is shorter. It is tried on the packet's first frame, and
    then on those that come near it.
    """
    require_exact_products()
    pool = priors.pool
    qps = torch.tensor([qp], device=pool.device)
    gains = priors.image.gains(qps)
    context = context and priors.context
    count = len(symbols[0])
    group = max(1, min(_GROUP_FRAMES, _GROUP_CELLS // symbols[-1][0, ..., 0].numel()))
    spans = [slice(start, start + group) for start in range(0, count, group)]

    def observe(index: int) -> Maps:
        return priors.observe([q[spans[index]] for q in symbols], gains)

    states = [state]
    if context:
        seen = pool.each(observe, len(spans))
        states += pool.ahead(lambda: _advance(priors, state, [f.result() for f in seen])).result()

    def intra(t: int) -> CodedFrame:
        alone = [q[t : t + 1] for q in symbols]
        return CodedFrame.of([q[t] for q in symbols], priors.frames(True, alone, qps, gains, {}), 0)

    try_intra = priors.intra_frames and context
    first = pool.each(intra, 1)[0].result() if try_intra else None

    def code(index: int) -> list[CodedFrame]:
        span = spans[index]
        known = [q[span] for q in symbols]
        size = len(known[0])
        memory = priors.memory(_side_by_side(states[span][:size] if context else [state] * size))
        out = priors.frames(False, known, qps.expand(size), gains, memory)
        frames = []
        for t in range(size):
            frame = CodedFrame.of([q[t] for q in known], out, t)
            if first is not None and frame.bits >= _NEAR_INTRA * first.bits:
                frame = frame.or_intra(intra(span.start + t) if span.start + t else first)
            frames.append(frame)
        return frames

    t = 0
    for coded in pool.each(code, len(spans)):
        for frame in coded.result():
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


class PacketWriter:
    """Codes packets of symbols into a sink, carrying the temporal state from one to the next."""

    def __init__(self, priors: Priors, sink: BinaryIO, header: Header):
        self._priors, self._sink, self._header = priors, sink, header
        self._state = priors.start(1, header)
        data = header.to_bytes()
        sink.write(data)
        self._bytes = len(data)
        self._bits: list[float] = []

    def add(self, symbols: Sequence[Tensor]) -> None:
        """One packet: int32 (n, H_l, W_l, C_l) a level, n up to 255."""
        encoder, crc, checks, masks = coder.Encoder(), 0, bytearray(), []
        header = self._header
        for frame, state in coded_frames(self._priors, symbols, header.qp, self._state, header.context):
            self._state = state
            for index in reversed(range(len(frame.parameters))):
                encoder.encode(frame.symbols[index], frame.parameters[index])
            crc = zlib.crc32(frame.crc_bytes, crc)
            masks.append(frame.intra)
            checks.append(crc & 0xFF)
            self._bits.append(frame.bits)
        modes = pack_modes(masks, len(header.levels))
        data = Packet(len(checks), crc, bytes(checks), modes, encoder.finish()).to_bytes()
        self._sink.write(data)
        self._bytes += len(data)

    def finish(self) -> EncodeReport:
        """Write the end record."""
        data = end_bytes(len(self._bits))
        self._sink.write(data)
        self._bytes += len(data)
        h = self._header
        return EncodeReport(len(self._bits), self._bytes, sum(self._bits), h.height, h.width, tuple(self._bits))


def crc_bytes(q: Tensor) -> bytes:
    """What the checksums cover: a level's symbols, int16 little-endian, (H, W, C) order; levels coarse to fine."""
    return q.to(torch.int16).contiguous().cpu().numpy().astype("<i2", copy=False).tobytes()


def _code_level(q: Tensor, mean: Tensor, log2_scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ideal bits of one level of one frame, and its quantised distributions; all (1, H, W, C)."""
    distribution = Distribution(mean, log2_scale)
    return _ideal_bits(q.float(), distribution), *coder.quantise_tensors(distribution)


def _ideal_bits(q: Tensor, distribution: Distribution) -> Tensor:
    """Code length under the distributions before they are quantised, with the heavy tail of vidlbc.entropy.tables."""
    distance = (q - distribution.mean.round()).abs()
    # 0.4396: one over the sum of 1 / (1 + |r|)^2 up to 64 and of the escape's 1 / 65.
    tail = 0.4396 / (1 + distance).square()
    probability = (1 - TAIL_SHARE) * symbol_probability(q, distribution)[0] + TAIL_SHARE * tail
    return -probability.log2().sum(dtype=torch.float64)


_LEVEL = Traced(_code_level)
