"""The codec: frames to bytes and back, with an image stage and a temporal stage.

    frames -> analysis (one frame a thread) -> symbols -> vidlbc.codec.coding -> packets
    packets -> vidlbc.codec.coding -> symbols -> synthesis (one frame a thread) -> frames

Why the bytes do not depend on threads or batch: on CPU every frame goes through the image stage alone, on one thread,
and frames run side by side; everything after the symbols is exact arithmetic. On a GPU frames go in batches of a fixed
size.
"""

import hashlib
import io
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import chain
from typing import BinaryIO, NamedTuple, Unpack, cast

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec import models
from vidlbc.codec.bitstream import Header, Reader, Stored, check_span, cut
from vidlbc.codec.coding import (
    PACKET_FRAMES,
    EncodeReport,
    OnLevel,
    PacketWriter,
    Priors,
    RateDistortionQuantiser,
    decode,
)
from vidlbc.codec.image_codec import ImageCodec
from vidlbc.codec.inputs import frames_tensor, repack
from vidlbc.codec.options import CodingOptions, Options
from vidlbc.codec.prior.grid import to_grid
from vidlbc.codec.rate_control import Target, TargetReport, compress_to_target
from vidlbc.codec.refinement import VideoDecoder
from vidlbc.codec.temporal_stage import TemporalStage
from vidlbc.errors import BitstreamError, InputError, WeightsMismatch

Keep = Callable[[Sequence[Tensor]], None]  # called with the symbols of each packet that was written
Span = tuple[int, int]  # frames [start, stop)
MAX_PIXELS = 1 << 26  # 8192 x 8192; a frame of 8K video has half of it


class Encoded(NamedTuple):
    """A bitstream, its symbols, int32 (T, H_l, W_l, C_l) a level, padded size, and what `compress_stream` reports."""

    data: bytes
    symbols: list[Tensor]
    report: EncodeReport


class Decoded(NamedTuple):
    """Symbols int32 (T, H_l, W_l, C_l) a level, padded size, and the QP of each frame."""

    symbols: list[Tensor]
    qps: tuple[int, ...]


class Codec(ImageCodec):
    """See the module. Frames are uint8 (T, H, W, 3) RGB; T >= 1, H and W >= 16. `max_pixels`: see `load`."""

    moves = False  # whether frames are predicted from moved pictures
    shows_references: bool | None = False  # see MovedCodec

    def __init__(
        self,
        image: models.ImageModel,
        temporal: TemporalStage,
        temporal_digest: bytes,
        device: str = "auto",
        precision: str = "fp32",
        decoder: tuple[VideoDecoder, bytes] | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(image, device, precision, decoder)
        self.max_pixels = max_pixels
        self.temporal = to_grid(temporal).to(self.device)
        self.kind = temporal.kind
        self._digest = hashlib.sha256(image.digest + temporal_digest).digest()[:16]
        self._priors = self._make_priors()

    def _make_priors(self) -> Priors:
        return Priors(self.image, self.temporal, self._pool)

    @property
    def fingerprint(self) -> str:
        """Identifies the weights that decode: 32 hexadecimal digits."""
        return self._digest.hex()

    @property
    def picture_fingerprint(self) -> str:
        """Identifies the weights that decode and those that refine, if any."""
        ways = {True: "references", None: "", False: "alone" if self.moves else ""}
        refined = self.refiner.digest.hex()[:8] if self.refiner else ways[self.shows_references]
        return f"{self.fingerprint}+{refined}" if refined else self.fingerprint

    @property
    def refines(self) -> bool:
        """Whether `decompress` may give other pictures than those of the image stage alone."""
        return self.shows_references is not False or self.refiner is not None

    @property
    def sees_past(self) -> bool:
        """Whether priors are given earlier frames: what rate-distortion optimised quantisation gains from."""
        return self._priors.context

    @property
    def prefers_rdo(self) -> bool:
        """Whether symbols are chosen for rate and distortion where it is left open: where blocks may be copied."""
        return self._priors.copies

    # -- encoding ----------------------------------------------------------------------------------------------------

    def compress(
        self,
        frames: np.ndarray | Tensor,
        qp: int = 32,
        *,
        psnr: float | None = None,
        bitrate: float | None = None,
        **options: Unpack[Options],
    ) -> bytes:
        """uint8 (T, H, W, 3) -> bytes; options: see `CodingOptions`.

        `psnr` (dB) or `bitrate` (kbit/s, which needs `fps`) find the QP, and without a variant that too
        (vidlbc.codec.rate_control). Warns where neither QP nor variant reaches them.
        """
        sink = io.BytesIO()
        if psnr is None and bitrate is None:
            self.compress_stream([frames], sink, qp, **options)
        else:
            target = Target.one_of(psnr=psnr, bitrate=bitrate)
            report = self.compress_to_target(frames, sink, target, **options)
            if not target.met(report.reached):
                warnings.warn(f"{target}: {report.reached:.4g} is the nearest that this codec comes", stacklevel=2)
        return sink.getvalue()

    def compress_to_target(
        self, frames: np.ndarray | Tensor, sink: BinaryIO, target: Target, **options: Unpack[Options]
    ) -> TargetReport:
        """The bitstream of uint8 (T, H, W, 3) that meets the target best; see vidlbc.codec.rate_control."""
        return compress_to_target(self, frames, sink, target, **options)

    def compress_stream(
        self, blocks: Iterable[np.ndarray | Tensor], sink: BinaryIO, qp: int = 32, **options: Unpack[Options]
    ) -> EncodeReport:
        """Encode blocks of frames as they come; memory does not grow with their number. Options: see `CodingOptions`.

        Raises InputError where a block is no uint8 (n, H, W, 3) array, sizes differ, there is no frame at all, or an
        option is no such thing.
        """
        return self._compress(blocks, sink, CodingOptions(qp, **options), lambda symbols: None)

    def _compress(
        self, blocks: Iterable[np.ndarray | Tensor], sink: BinaryIO, options: CodingOptions, keep: Keep
    ) -> EncodeReport:
        if not hasattr(sink, "write"):
            where = type(sink).__name__
            raise InputError(f"a bitstream is to go to {where}: expected a file open for writing bytes")
        if options.rdo is None:
            options = replace(options, rdo=self.prefers_rdo)
        kept = self.kept(options.variant)
        packets = repack(blocks, PACKET_FRAMES)
        first = next(packets, None)
        if first is None:
            raise InputError("nothing to encode: expected at least one frame")
        header = self._header(first.shape[1], first.shape[2], options, kept)
        return self._write(chain([first], packets), sink, header, options, keep)

    def _write(
        self, packets: Iterable[Tensor], sink: BinaryIO, header: Header, options: CodingOptions, keep: Keep
    ) -> EncodeReport:
        """Packets of frames, uint8 (n, H, W, 3), to a bitstream."""
        writer, qp = PacketWriter(self._priors, sink, header, options.variant), header.qp
        if options.rdo:
            scaled = (self.scaled(self.unquantised(packet), qp) for packet in packets)
            for symbols, known in RateDistortionQuantiser(self._priors, header).packets(scaled):
                writer.add(symbols, known)
                keep(symbols)
        else:
            for packet in packets:
                symbols = self.analyse(packet, qp, variant=options.variant)
                writer.add(symbols)
                keep(symbols)
        return writer.finish()

    def encode(self, frames: np.ndarray | Tensor, qp: int = 32, **options: Unpack[Options]) -> Encoded:
        """What `compress` gives with these options, and the symbols that it decodes to."""
        sink, packets = io.BytesIO(), list[Sequence[Tensor]]()
        report = self._compress([frames], sink, CodingOptions(qp, **options), packets.append)
        return Encoded(sink.getvalue(), [torch.cat(level) for level in zip(*packets, strict=True)], report)

    def analyse(self, frames: np.ndarray | Tensor, qp: int, **options: Unpack[Options]) -> list[Tensor]:
        """uint8 (T, H, W, 3) -> symbols, int32 (T, H_l, W_l, C_l) a level, fine to coarse, padded size.

        They are those that `compress` codes with the same options; `rdo` of None rounds. Channels that the variant
        leaves out are 0. Raises InputError for `rdo` where frames are predicted from pictures: see `encode`.
        """
        height, width = frames_tensor(frames).shape[1:3]
        return self.quantise(self.unquantised(frames), qp, height, width, **options)

    def quantise(
        self, latents: Sequence[Tensor], qp: int, height: int, width: int, **options: Unpack[Options]
    ) -> list[Tensor]:
        """What `unquantised` gives of a whole clip of frames of that true size -> what `analyse` gives."""
        chosen = CodingOptions(qp, **options)
        scaled, kept = self.scaled(latents, chosen.qp), self.kept(chosen.variant)
        if chosen.rdo:
            chosen = replace(chosen, rdo=False, skip=chosen.skipped)
            return self._choose(scaled, self._header(height, width, chosen, kept))
        return self._truncated([y.round_().to(torch.int32) for y in scaled], kept)

    def _choose(self, scaled: Sequence[Tensor], header: Header) -> list[Tensor]:
        """gain * y of a whole clip -> symbols chosen for rate and distortion."""
        return RateDistortionQuantiser(self._priors, header).choose(scaled)

    # -- decoding ----------------------------------------------------------------------------------------------------

    def decompress(self, data: Stored, span: Span | None = None) -> np.ndarray:
        """bytes -> uint8 (T, H, W, 3). Raises BitstreamError, WeightsMismatch.

        `span`: (start, stop), decode those frames alone, and what they need (vidlbc.cut); the same frames to the bit
        but where a video decoder refines them, which sees what comes before. Raises InputError where it is none.
        """
        if span is None:
            return np.concatenate(list(self.decompress_stream(data)))
        start, stop = check_span(span)
        part = cut(data, start, stop)
        return self.decompress(part.data)[part.place(start, stop)]

    def decompress_stream(self, source: Stored) -> Iterator[np.ndarray]:
        """Blocks of up to 16 frames, uint8 (n, H, W, 3), as they are decoded."""
        return self._decompress(Reader(source))

    def _decompress(self, reader: Reader) -> Iterator[np.ndarray]:
        """Pictures of the image stage alone, or those that `refiner` makes of them."""
        h = reader.header
        self._check(h)
        if h.copies:
            done = 0
            for symbols in self._decode([reader]):
                own = reader.qps[done : done + len(symbols[0])]
                done += len(own)
                yield self.synthesize(self.dequantise(symbols, own), own, h.height, h.width)
            return
        if self.device.type != "cpu" or self.refiner is not None:
            shown = self._shown(h)
            for symbols in self._decode([reader]):
                yield shown(self.dequantise(symbols, h.qp))
            return
        # Frames are synthesised while the priors, which go frame by frame, decode the ones after them.
        coming: deque[Future[Tensor]] = deque()
        qps, steps = torch.tensor([h.qp]), [g.step for g in self._gains(h.qp)]

        def picture(symbols: Sequence[Tensor]) -> Tensor:
            return self._in_precision(self._pictures)(qps, *symbols, *steps)[:, : h.height, : h.width]

        for decoded in self._decode([reader], lambda frame: coming.append(self._pool.after(lambda: picture(frame)))):
            yield torch.cat([coming.popleft().result() for _ in range(len(decoded[0]))]).numpy()

    def decode(self, data: Stored, base: bool = False) -> Decoded:
        """Bitstream -> symbols of the padded frame, for `dequantise` and `synthesize`, and QPs; `base` as in
        `symbols`."""
        reader = Reader(data)
        symbols = [torch.cat(level) for level in zip(*self._decode([reader], base=base), strict=True)]
        return Decoded(symbols, tuple(reader.qps))

    def decode_shown(self, data: Stored) -> tuple[Decoded, np.ndarray]:
        """What `decode` and `decompress` give."""
        found, header = self.decode(data), Reader(data).header
        if self.refiner is not None:
            return found, self.decompress(data)
        return found, self.synthesize(self.dequantise(*found), found.qps, header.height, header.width)

    def symbols(self, data: Stored | Sequence[Stored], base: bool = False) -> list[Tensor]:
        """Bitstream -> int32 (T, C_l, H_l, W_l) a level, fine to coarse, cropped to the frame's own cells.

        Several clips of equal size and length decode as one batch: (B, T, C_l, H_l, W_l). `base`: the levels of the
        base layer alone; of a file not a byte behind them is read.
        """
        if isinstance(data, bytes | bytearray | memoryview | str) or not isinstance(data, Sequence):
            return [level[0] for level in self.symbols([cast(Stored, data)], base)]
        if not data:
            raise InputError("nothing to decode: expected at least one bitstream")
        readers = [Reader(cast(Stored, d)) for d in data]
        decoded = self._decode(readers, base=base)
        parts = [[q.unflatten(0, (len(readers), -1)) for q in symbols] for symbols in decoded]
        whole = [torch.cat(level, 1) for level in zip(*parts, strict=True)]
        return self.unpadded(whole, readers[0].header.height, readers[0].header.width)

    def latents(self, data: Stored, base: bool = False, span: Span | None = None) -> list[Tensor]:
        """Bitstream -> dequantised latents, float32 (T, C_l, H_l, W_l) a level; `base` as in `symbols`, `span` as in
        `decompress`."""
        if span is not None:
            start, stop = check_span(span)
            part = cut(data, start, stop, base)
            return [level[part.place(start, stop)] for level in self.latents(part.data, base)]
        reader = Reader(data)
        header = reader.header
        symbols = self._whole(reader, base)
        return self.crop(self.dequantise(symbols, reader.qps), header.height, header.width)

    def padded_symbols(self, data: Stored, base: bool = False) -> list[Tensor]:
        """Bitstream -> int32 (T, H_l, W_l, C_l) a level, of the padded frame."""
        return self.decode(data, base).symbols

    def fits(self, symbols: Sequence[Tensor], header: Header, frames: int, base: bool = False) -> bool:
        """Could `symbols` be what `padded_symbols` gives of a stream of that header and number of frames?"""
        height, width = self._priors.padded(header)
        levels = self.levels[-header.base :] if base else self.levels
        expected = [(frames, height // level.stride, width // level.stride, level.channels) for level in levels]
        return [tuple(level.shape) for level in symbols] == expected

    def code_lengths(self, data: Stored, on_level: OnLevel) -> None:
        """Decode a bitstream and tell what its symbols took: `on_level` is called with the index of each level, coarse
        to fine, of each frame, and with the bits of each of its symbols under the prior that coded it, float32 (H_l,
        W_l, channels coded), of the padded frame.
        """
        for _ in self._decode([Reader(data)], on_level=on_level):
            pass

    def _whole(self, reader: Reader, base: bool = False) -> list[Tensor]:
        return [torch.cat(level) for level in zip(*self._decode([reader], base=base), strict=True)]

    def compress_symbols(
        self,
        symbols: Sequence[Tensor],
        qp: int,
        height: int,
        width: int,
        *,
        kept: Sequence[int] = (),
        **options: Unpack[Options],
    ) -> tuple[bytes, EncodeReport]:
        """Symbols of one clip (int32 (T, H_l, W_l, C_l), padded size) -> bytes: the second half of `compress`.

        `kept`: how many channels of each level to code; () is all of them, or those of `variant`. `skip`: as the
        symbols were chosen for, None is 0; ValueError where they were not.
        """
        sink, chosen = io.BytesIO(), replace(CodingOptions(qp, **options), rdo=False)
        header = self._header(height, width, chosen, tuple(kept) or self.kept(chosen.variant))
        symbols = self._truncated(symbols, header.kept)
        packets = zip(*[level.split(PACKET_FRAMES) for level in symbols], strict=True)
        report = self._write_symbols(packets, sink, header, chosen.variant)
        return sink.getvalue(), report

    def _write_symbols(
        self, packets: Iterable[Sequence[Tensor]], sink: BinaryIO, header: Header, variant: str | None
    ) -> EncodeReport:
        writer = PacketWriter(self._priors, sink, header, variant)
        for packet in packets:
            writer.add(packet)
        return writer.finish()

    def transcode(self, data: bytes, target: "Codec", context: bool = True) -> tuple[bytes, EncodeReport]:
        """The same symbols under another prior of the same image stage: other bytes, and identical pixels of the image
        stage. Raises InputError where frames have QPs of their own."""
        if target.image.digest != self.image.digest:
            raise InputError("transcoding keeps the symbols: both codecs must code the latents of the same image stage")
        reader = Reader(data)
        header, symbols = reader.header, self._whole(reader)
        if set(reader.qps) != {header.qp}:
            raise InputError("frames of this bitstream have QPs of their own, which transcoding does not keep")
        return target.compress_symbols(
            symbols, header.qp, header.height, header.width, kept=header.kept, context=context, fps=header.fps
        )

    def _header(self, height: int, width: int, options: CodingOptions, kept: tuple[int, ...]) -> Header:
        """`options.rdo`: of frames, not of symbols that are given."""
        levels = tuple((level.stride, level.channels) for level in self.levels)
        context, copies = options.context, bool(options.rdo) and options.context and self._priors.copies
        return Header(
            height,
            width,
            options.qp,
            self._digest,
            self.kind,
            levels,
            options.rate,
            context,
            kept,
            self.stage.base_levels,
            0 if self.moves else options.skipped,
            self.moves,
            copies,
        )

    def _check(self, header: Header) -> None:
        if header.fingerprint != self._digest:
            raise WeightsMismatch(
                f"bitstream was written with weights {header.fingerprint.hex()} ({header.kind}), "
                f"these are {self.fingerprint} ({self.kind}): load the model that wrote it"
            )
        levels = tuple((level.stride, level.channels) for level in self.levels)
        if (header.levels, header.base, header.moved) != (levels, self.stage.base_levels, self.moves):
            raise BitstreamError("damaged bitstream: its levels are not those of its weights")
        pixels = math.prod(self._priors.padded(header))
        if pixels > self.max_pixels:
            raise BitstreamError(
                f"bitstream holds frames of {header.width}x{header.height}, {pixels} pixels when padded: "
                f"the limit is max_pixels={self.max_pixels}"
            )

    def _decode(
        self,
        readers: Sequence[Reader],
        on_frame: Callable[[list[Tensor]], None] | None = None,
        base: bool = False,
        on_level: OnLevel | None = None,
    ) -> Iterator[list[Tensor]]:
        """Symbols packet by packet, one ahead of the caller: priors go frame by frame while the caller works."""
        for reader in readers:
            self._check(reader.header)
        packets = self._packets(readers, on_frame, base, on_level)
        coming = self._pool.ahead(lambda: next(packets, None))
        while (symbols := coming.result()) is not None:
            coming = self._pool.ahead(lambda: next(packets, None))
            yield symbols

    def _packets(
        self,
        readers: Sequence[Reader],
        on_frame: Callable[[list[Tensor]], None] | None,
        base: bool,
        on_level: OnLevel | None,
    ) -> Iterator[list[Tensor]]:
        return decode(self._priors, readers, on_frame, base, on_level)
