"""Symbols of one clip to packets and back: exact priors, range coder, checksums. No pixels here.

    symbols -> temporal stage + intra prior (fixed-point grid) -> range coder -> packets of up to 16 frames
    packets -> range decoder + the same priors, frame by frame, level by level -> symbols

Encoding knows all symbols, so its priors run on many frames side by side; decoding must go frame by frame, coarse to
fine. Both are exact arithmetic (vidlbc.prior.grid), hence the same distributions.
"""

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vidlbc.bitstream import Header, Packet, Reader, end_bytes, pack_modes, unpack_modes
from vidlbc.entropy import coder
from vidlbc.entropy.tables import TAIL_SHARE
from vidlbc.errors import BitstreamError, InputError
from vidlbc.frame_pool import FramePool
from vidlbc.models import ImageModel
from vidlbc.prior.grid import require_exact_products, to_grid
from vidlbc.prior.topdown import Context, Distribution, Gains, TopDownPrior, symbol_bits
from vidlbc.temporal_stage import Memory, NoContext, State, TemporalStage

# The intra prior is tried on frames that need at least this share of the bits that it takes for the packet's first.
_NEAR_INTRA = 0.75
# Levels of one frame take different priors where that saves at least this share of it.
_WORTH_BOTH = 0.005
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
            single = Distribution(d.mean[row], d.log2_scale[row])
            bits.append(_ideal_bits(q.to(d.mean.device).float(), single))
            parameters.append(coder.quantise(single))
        arrays = [q.reshape(-1).cpu().numpy() for q in symbols]
        return cls(arrays, parameters, bits, b"".join(_crc_bytes(q) for q in reversed(symbols)))

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
        if shortest > (1 - _WORTH_BOTH) * min(self.bits, other.bits):
            mask = 0 if self.bits <= other.bits else (1 << len(self.level_bits)) - 1
        parts = [other if mask >> level & 1 else self for level in range(len(self.level_bits))]
        return CodedFrame(
            self.symbols,
            [part.parameters[level] for level, part in enumerate(parts)],
            [part.level_bits[level] for level, part in enumerate(parts)],
            self.crc_bytes,
            mask,
        )


class SymbolCoder:
    """Codes symbols under an image stage's gains and an exact temporal stage (`to_grid`)."""

    def __init__(self, image: ImageModel, temporal: TemporalStage, pool: FramePool):
        self.image, self.temporal, self.pool = image, temporal, pool
        # The image stage's own prior: for frames that the past says nothing about (the first, scene cuts).
        without = isinstance(temporal, NoContext)
        self.intra = temporal.trunk if without else to_grid(copy.deepcopy(image.stage.prior)).to(pool.device)
        self.intra_frames = True  # False: the encoder never chooses it; the decoder reads either

    def padded(self, header: Header) -> tuple[int, int]:
        """Height and width of the padded frame."""
        multiple = self.image.stage.multiple
        return header.height + -header.height % multiple, header.width + -header.width % multiple

    def start(self, batch: int, header: Header) -> State:
        """The null state."""
        return self.temporal.start(batch, *self.padded(header))

    def coded_frames(
        self, symbols: Sequence[Tensor], qp: int, state: State, context: bool
    ) -> Iterator[tuple[CodedFrame, State]]:
        """Each frame of one packet with its quantised distributions, in order, and the state after it.

        symbols int32 (T, H_l, W_l, C_l). On CPU small groups of frames run side by side, one thread each; exact either
        way. With context a level is coded by the intra prior where that is shorter. It is tried on the packet's first
        frame, and then on those that come near it.
        """
        require_exact_products()
        qps = torch.tensor([qp], device=self.pool.device)
        gains = self.image.gains(qps)
        context = context and self.temporal.kind != NoContext.kind
        count = len(symbols[0])
        group = max(1, min(_GROUP_FRAMES, _GROUP_CELLS // symbols[-1][0, ..., 0].numel()))
        spans = [slice(start, start + group) for start in range(0, count, group)]

        def observe(index: int) -> tuple[list[Tensor], Memory]:
            latents = self._dequantise([q[spans[index]] for q in symbols], gains)
            return latents, self.temporal.observe(latents) if context else {}

        seen = self.pool.each(observe, len(spans))
        states = [state]
        if context:
            states += self.pool.ahead(lambda: self._advance(state, [f.result()[1] for f in seen])).result()

        def intra(index: int, t: int) -> CodedFrame:
            latents = [y[t : t + 1] for y in seen[index].result()[0]]
            t += spans[index].start
            return CodedFrame.of([q[t] for q in symbols], self.intra(latents, qps, gains), 0)

        try_intra = self.intra_frames and context
        alone = self.pool.each(lambda index: intra(index, 0), 1)[0].result() if try_intra else None

        def code(index: int) -> list[CodedFrame]:
            span, latents = spans[index], seen[index].result()[0]
            size = len(latents[0])
            past = zip(*(states[span][:size] if context else [state] * size), strict=True)
            reader = self.temporal.reader(self.temporal.memory([torch.cat(parts) for parts in past]))
            out = self.temporal.trunk(latents, qps.expand(size), gains, reader)
            frames = []
            for t in range(size):
                frame = CodedFrame.of([q[span.start + t] for q in symbols], out, t)
                if alone is not None and frame.bits >= _NEAR_INTRA * alone.bits:
                    frame = frame.or_intra(intra(index, t) if span.start + t else alone)
                frames.append(frame)
            return frames

        t = 0
        for coded in self.pool.each(code, len(spans)):
            for frame in coded.result():
                t += 1
                yield frame, states[t if context else 0]

    def _dequantise(self, symbols: Sequence[Tensor], gains: Sequence[Gains]) -> list[Tensor]:
        on_device = [q.to(self.pool.device, torch.float32) for q in symbols]
        return [q * g.step[:, None, None] for q, g in zip(on_device, gains, strict=True)]

    @torch.inference_mode()
    def _advance(self, state: State, observed: Sequence[Memory]) -> list[State]:
        """States after each frame; frame by frame, so on the serial worker. `observed`: maps of groups of frames."""
        states = []
        for maps in observed:
            for t in range(len(next(iter(maps.values())))):
                state = self.temporal.advance(state, {s: m[t : t + 1] for s, m in maps.items()})
                states.append(state)
        return states

    @torch.inference_mode()
    def decode(
        self, readers: Sequence[Reader], on_frame: Callable[[list[Tensor]], None] | None = None
    ) -> Iterator[list[Tensor]]:
        """Symbols of one packet after another, int32 (B * n, H_l, W_l, C_l), frame index fastest.

        `on_frame` is called with the symbols of each frame, (B, H_l, W_l, C_l), as soon as they are there.
        Raises BitstreamError where checksums fail, InputError where the clips do not go together.
        """
        require_exact_products()
        first = readers[0].header
        if len({(r.header.height, r.header.width, r.header.context) for r in readers}) > 1:
            raise InputError("clips decoded as one batch must have the same size and context flag")
        qp = torch.tensor([r.header.qp for r in readers], device=self.pool.device)
        gains, null = self.image.gains(qp), self.start(len(readers), first)
        state = null
        for maybe in zip_longest(*[r.packets() for r in readers]):
            packets = [p for p in maybe if p is not None]
            if len(packets) < len(readers) or len({p.frames for p in packets}) > 1:
                raise InputError("clips decoded as one batch must have the same number of frames")
            decoders = [coder.Decoder(p.payload) for p in packets]
            masks = [unpack_modes(p.modes, p.frames, len(first.levels)) for p in packets]
            crcs = [0] * len(packets)
            frames: list[list[Tensor]] = []
            for t in range(packets[0].frames):
                intra = [mask[t] for mask in masks]
                symbols, state = self._decode_frame(decoders, intra, qp, gains, state if first.context else null, first)
                for b, packet in enumerate(packets):
                    crcs[b] = zlib.crc32(b"".join(_crc_bytes(q[b]) for q in reversed(symbols)), crcs[b])
                    if crcs[b] & 0xFF != packet.checks[t]:
                        raise BitstreamError(
                            f"decoded symbols of frame {readers[b].frames - packet.frames + t} fail their checksum: "
                            "the bitstream was altered, or the weights differ from those that wrote it"
                        )
                frames.append(symbols)
                if on_frame is not None:
                    on_frame(symbols)
            for b, packet in enumerate(packets):
                if crcs[b] != packet.symbol_crc:
                    raise BitstreamError(f"decoded symbols fail their checksum before frame {readers[b].frames}")
            yield [torch.stack(level, 1).flatten(0, 1) for level in zip(*frames, strict=True)]

    def _decode_frame(
        self,
        decoders: Sequence[coder.Decoder],
        intra: Sequence[int],
        qp: Tensor,
        gains: Sequence[Gains],
        state: State,
        header: Header,
    ) -> tuple[list[Tensor], State]:
        """Symbols of the next frame of every clip, int32 (B, H_l, W_l, C_l), and the state after it.

        `intra`: for each clip the mask of the levels that the intra prior codes. Where there are such and others, both
        priors run, each down to the finest level that needs it.
        """
        height, width = self.padded(header)
        count = len(self.temporal.levels)
        paths = []
        for by_intra in (False, True):
            used = [i for i in range(count) if any(bool(mask >> i & 1) == by_intra for mask in intra)]
            if used:
                trunk = self.intra if by_intra else self.temporal.trunk
                context = None if by_intra else self.temporal.reader(self.temporal.memory(state))
                coarsest = trunk.work_strides[-1]
                hidden = trunk.start(qp, height // coarsest, width // coarsest)
                paths.append(_Path(trunk, context, hidden, by_intra, used[0]))
        symbols: list[Tensor] = [torch.empty(0)] * count
        latents: list[Tensor] = [torch.empty(0)] * count
        for index in reversed(range(count)):
            paths = [path for path in paths if path.finest <= index]
            distributions = {path.intra: path.distribution(index, gains[index]) for path in paths}
            decoded = []
            for b, decoder in enumerate(decoders):
                d = distributions[bool(intra[b] >> index & 1)]
                decoded.append(decoder.decode(coder.quantise(Distribution(d.mean[b], d.log2_scale[b]))))
            shape = next(iter(distributions.values())).mean.shape
            symbols[index] = torch.from_numpy(np.stack(decoded)).view(shape)
            (latents[index],) = self._dequantise([symbols[index]], [gains[index]])
            if index:
                for path in paths:
                    path.hidden = path.trunk.absorb(index, path.hidden, latents[index], qp)
        return symbols, self.temporal.update(state, latents) if header.context else state


@dataclass
class _Path:
    """One prior on its way from the coarsest level to the finest."""

    trunk: TopDownPrior
    context: Context | None
    hidden: Tensor
    intra: bool
    finest: int  # level that it is needed for

    def distribution(self, index: int, gains: Gains) -> Distribution:
        if self.context is not None:
            self.hidden = self.context(index, self.hidden)
        out, self.hidden = self.trunk.distribution(index, self.hidden, gains)
        return out


class PacketWriter:
    """Codes packets of symbols into a sink, carrying the temporal state from one to the next."""

    def __init__(self, symbol_coder: SymbolCoder, sink: BinaryIO, header: Header):
        self._coder, self._sink, self._header = symbol_coder, sink, header
        self._state = symbol_coder.start(1, header)
        data = header.to_bytes()
        sink.write(data)
        self._bytes = len(data)
        self._bits: list[float] = []

    def add(self, symbols: Sequence[Tensor]) -> None:
        """One packet: int32 (n, H_l, W_l, C_l) a level, n up to 255."""
        encoder, crc, checks, masks = coder.Encoder(), 0, bytearray(), []
        header = self._header
        for frame, state in self._coder.coded_frames(symbols, header.qp, self._state, header.context):
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


def _ideal_bits(q: Tensor, distribution: Distribution) -> float:
    """Code length under the distributions before they are quantised, with the heavy tail of vidlbc.entropy.tables."""
    distance = (q - distribution.mean.round()).abs()
    # 0.4396: one over the sum of 1 / (1 + |r|)^2 up to 64 and of the escape's 1 / 65.
    tail = 0.4396 / (1 + distance).square()
    probability = (1 - TAIL_SHARE) * torch.exp2(-symbol_bits(q, distribution)) + TAIL_SHARE * tail
    return float(-probability.double().log2().sum())


def _crc_bytes(q: Tensor) -> bytes:
    """What the checksums cover: a level's symbols, int16 little-endian, (H, W, C) order; levels coarse to fine."""
    return q.to(torch.int16).contiguous().cpu().numpy().astype("<i2", copy=False).tobytes()
