"""Chosen frames to the packets of a bitstream: vectors, flags of copied blocks, symbols."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header, Packet, end_bytes, pack_kinds, pack_qps
from vidlbc.codec.coding.encoding import PACKET_FRAMES, CodedFrame, EncodeReport, crc_bytes, ideal_bits
from vidlbc.codec.coding.moving import FrameKind
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.motion.brightness import Brightness
from vidlbc.codec.motion.prior import Asked, Code, Wanted

# Codes what it is given last, and gives it: MovedPriors.vectors or .flags with all else that they need.
Walk = Callable[[Code, Any], Tensor]


@dataclass(frozen=True)
class CodedRuns:
    """What the range coder needs of a frame's vectors, or of its flags: runs of symbols in their order; and their ideal
    code length. `values`: the field, or the flags."""

    values: Tensor
    runs: list[tuple[np.ndarray, coder.CodedParameters]]
    bits: float
    crc_bytes: bytes

    @classmethod
    def of(cls, walk: Walk, values: Tensor | Wanted) -> "CodedRuns":
        """The field or the flags of one frame, or what a field is chosen by."""
        runs: list[tuple[np.ndarray, ...]] = []  # values, means, log2 scales, quantised

        def code(asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
            assert truth is not None and asked.quantised is not None
            of_kind = (truth[0], asked.mean[0, :, kind], asked.log2_scale[0, :, kind], asked.quantised[:, 0, :, kind])
            here = slice(None) if mask is None else np.flatnonzero(mask[0].cpu().numpy())
            runs.append(tuple(x.cpu().numpy()[..., here] for x in of_kind))
            return truth

        chosen = walk(code, values)
        columns = zip(*[run[:3] for run in runs], strict=True)
        symbols, mean, log2_scale = (torch.from_numpy(np.concatenate(x)) for x in columns)
        bits = float(ideal_bits(symbols.float(), Distribution(mean, log2_scale)).sum(dtype=torch.float64))
        coded = [(values, coder.CodedParameters(*quantised)) for values, _, _, quantised in runs]
        return cls(chosen, coded, bits, crc_bytes(chosen))


@dataclass(frozen=True)
class MovedFrame:
    """One frame as it will be coded: symbols int32 (1, H_l, W_l, C_l), fine to coarse; `vectors` of a moved one;
    `flags` where blocks may be copied, and the share of them that are. A repeated frame has but symbols."""

    kind: FrameKind
    qp: int
    symbols: list[Tensor]
    coded: CodedFrame | None
    vectors: CodedRuns | None = None
    flags: CodedRuns | None = None
    copied: float = 0.0
    brightness: Brightness | None = None

    @property
    def bits(self) -> float:
        own = 0 if self.brightness is None else 8 * len(self.brightness.to_bytes())
        return own + sum(part.bits for part in (self.coded, self.vectors, self.flags) if part is not None)


class MovedWriter:
    """Codes chosen frames into packets of a sink."""

    def __init__(self, sink: BinaryIO, header: Header, variant: str | None = None):
        """`variant`: the name of what `header.kept` keeps, for the report."""
        self._sink, self._header, self._variant = sink, header, variant
        self._waiting: list[MovedFrame] = []
        self._bytes = 0
        self._bits: list[float] = []
        self._vector_bits = self._copied = 0.0
        self._write(header.to_bytes())

    def add(self, frames: Sequence[MovedFrame]) -> None:
        for frame in frames:
            begins = frame.kind is FrameKind.KEY and self._header.context
            if self._waiting and (begins or len(self._waiting) == PACKET_FRAMES):
                self._end_packet()
            self._waiting.append(frame)
            self._bits.append(frame.bits)
            self._vector_bits += 0.0 if frame.vectors is None else frame.vectors.bits
            self._copied += frame.copied

    def _end_packet(self) -> None:
        encoder, crc, checks = coder.Encoder(), 0, bytearray()
        for frame in self._waiting:
            for runs in (frame.vectors, frame.flags):
                if runs is not None:
                    for run in runs.runs:
                        encoder.encode(*run)
                    crc = zlib.crc32(runs.crc_bytes, crc)
            coded = frame.coded
            for index in reversed(range(0 if coded is None else len(coded.symbols))):
                assert coded is not None
                encoder.encode(coded.symbols[index], coded.parameters[index])
                crc = zlib.crc32(coded.crc_bytes[index], crc)
            checks.append(crc & 0xFF)
        modes = pack_kinds([frame.kind for frame in self._waiting])
        if self._header.copies:
            lights = [None if frame.brightness is None else frame.brightness.to_bytes() for frame in self._waiting]
            modes += pack_qps([frame.qp for frame in self._waiting], self._header.qp, lights)
        self._write(Packet(len(checks), crc, bytes(checks), modes, encoder.finish()).to_bytes())
        self._waiting = []

    def finish(self) -> EncodeReport:
        """Write the end record."""
        if self._waiting:
            self._end_packet()
        h, bits = self._header, self._bits
        self._write(end_bytes(len(bits), h.version))
        return EncodeReport(
            len(bits),
            self._bytes,
            None,
            h.qp,
            self._variant,
            sum(bits),
            h.height,
            h.width,
            tuple(bits),
            self._vector_bits,
            self._copied / len(bits),
        )

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._bytes += len(data)
