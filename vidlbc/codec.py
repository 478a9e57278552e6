"""The codec: frames to bytes and back, with an image stage and a temporal stage.

    frames -> analysis (one frame a thread) -> symbols -> vidlbc.coding -> packets
    packets -> vidlbc.coding -> symbols -> synthesis (one frame a thread) -> frames

Why the bytes do not depend on threads or batch: on CPU every frame goes through the image stage alone, on one thread,
and frames run side by side; everything after the symbols is exact arithmetic. On a GPU frames go in batches of a fixed
size.
"""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from vidlbc import models
from vidlbc.bitstream import Header, Reader
from vidlbc.codec_input import check_qp, frame_rate, frames_tensor, pick_device, repack
from vidlbc.coding import EncodeReport, PacketWriter, Priors, RateDistortionQuantiser, decode, dequantised
from vidlbc.entropy import coder
from vidlbc.errors import BitstreamError, InputError, WeightsMismatch
from vidlbc.frame_pool import FramePool
from vidlbc.image_stage.base import channels_first, channels_last, truncated
from vidlbc.prior.grid import check_device, to_grid
from vidlbc.prior.topdown import Gains, Level
from vidlbc.temporal_stage import ChunkStage, TemporalStage
from vidlbc.traced import Traced

PACKET_FRAMES = 16


def load(
    name: str | Path = "default", device: str = "auto", temporal: str | None = None, precision: str = "fp32"
) -> "Codec":
    """Load a codec: a shipped name or a model folder. `temporal`: kind to use, by default the model's own.

    Raises InputError where there is no such model, kind, device or precision.
    """
    folder = models.find_model(str(name))
    image = models.load_image_stage(folder / "image_stage")
    kind = temporal or models.default_kind(folder)
    if kind not in (kinds := models.kinds_of(folder)):
        raise InputError(f"model {name} has no temporal stage {kind!r}: it has {', '.join(kinds)}")
    if kind == "chunk":
        from vidlbc.chunk_codec import ChunkCodec

        return ChunkCodec(image, models.load_chunk(folder / "temporal" / kind, image), device, precision)
    if kind == "none":
        stage, digest = models.no_context(image)
    else:
        stage, digest = models.load_temporal(folder / "temporal" / kind, image)
    return Codec(image, stage, digest, device=device, precision=precision)


class Codec:
    """See the module. Frames are uint8 (T, H, W, 3) RGB; T >= 1, H and W >= 16.

    `unit`: frames that are coded as one. Symbols are those of units; here, where it is 1, of frames.
    """

    unit = 1

    def __init__(
        self,
        image: models.ImageModel,
        temporal: TemporalStage,
        temporal_digest: bytes,
        device: str = "auto",
        precision: str = "fp32",
        coded: models.ChunkModel | None = None,
    ):
        """`coded`: the model whose symbols are coded, where they are not the image stage's own."""
        if precision not in ("fp32", "bf16"):
            raise InputError(f"unknown precision {precision!r}: expected fp32 or bf16")
        self.device = pick_device(device)
        check_device(self.device)
        self.image = image.to(self.device)
        self.stage = self.image.stage.to(memory_format=torch.channels_last)
        self.temporal = to_grid(temporal).to(self.device)
        self.coded = self.image if coded is None else coded.to(self.device)
        self.kind = self.coded.stage.kind if isinstance(self.coded.stage, ChunkStage) else temporal.kind
        self._digest = hashlib.sha256(image.digest + temporal_digest).digest()[:16]
        self._pool = FramePool(self.device, precision)
        self._priors = Priors(self.coded, self.temporal, self._pool)
        self._analysis, self._scaling = Traced(self._analysis_step), Traced(self._scaling_step)
        self._synthesis, self._pictures = Traced(self._synthesis_step), Traced(self._pictures_step)

    @property
    def fingerprint(self) -> str:
        """Identifies the weights that decode: 32 hexadecimal digits."""
        return self._digest.hex()

    @property
    def levels(self) -> tuple[Level, ...]:
        """Of the latents of a frame, fine to coarse."""
        return self.stage.levels

    @property
    def coded_levels(self) -> tuple[Level, ...]:
        """Of the symbols of a unit, fine to coarse."""
        return self.coded.stage.levels

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the truncations that the image stage was trained for."""
        return tuple(self.coded.stage.variants)

    def kept(self, variant: str | None) -> tuple[int, ...]:
        """Channels that a variant codes of each level, fine to coarse; () is all. Raises InputError."""
        if variant is None:
            return ()
        if variant not in self.coded.stage.variants:
            known = ", ".join(self.variants) or "none"
            raise InputError(f"unknown variant {variant!r}: this model has {known}")
        return self.coded.stage.variants[variant]

    # -- encoding ----------------------------------------------------------------------------------------------------

    def compress(
        self,
        frames: np.ndarray | Tensor,
        qp: int = 32,
        context: bool = True,
        fps: float | Fraction = 0,
        variant: str | None = None,
        rdo: bool = False,
    ) -> bytes:
        """uint8 (T, H, W, 3) -> bytes. `context=False` codes every frame from the null context (the baseline).

        `variant`: one of `variants`, which codes only the first channels of each level. `rdo`: symbols are chosen for
        rate and distortion under this codec's priors (vidlbc.coding.rdo): fewer bits at equal quality, slower.
        """
        sink = io.BytesIO()
        self.compress_stream([frames], sink, qp, context, fps, variant, rdo)
        return sink.getvalue()

    def compress_stream(
        self,
        blocks: Iterable[np.ndarray | Tensor],
        sink: BinaryIO,
        qp: int = 32,
        context: bool = True,
        fps: float | Fraction = 0,
        variant: str | None = None,
        rdo: bool = False,
    ) -> EncodeReport:
        """Encode blocks of frames as they come; memory does not grow with their number.

        Raises InputError where a block is no uint8 (n, H, W, 3) array, sizes differ, there is no frame at all, or qp,
        fps or variant is no such thing.
        """
        qp = check_qp(qp)
        frame_rate(fps)
        kept = self.kept(variant)
        writer: PacketWriter | None = None
        length = 0
        for packet in repack(blocks, PACKET_FRAMES):
            length += len(packet)
            if writer is None:
                header = self._header(packet.shape[1], packet.shape[2], qp, fps, context, kept)
                writer = PacketWriter(self._priors, sink, header, variant)
                chooser = RateDistortionQuantiser(self._priors, header) if rdo else None
            writer.add(chooser.choose(self.scaled(packet, qp)) if chooser else self.analyse(packet, qp, variant))
        if writer is None:
            raise InputError("nothing to encode: expected at least one frame")
        return writer.finish(length)

    def analyse(self, frames: np.ndarray | Tensor, qp: int, variant: str | None = None) -> list[Tensor]:
        """uint8 (T, H, W, 3) -> symbols, int32 (T, H_l, W_l, C_l) a level, fine to coarse, padded size.

        Of units of several frames there are ceil(T / unit). Channels that the variant leaves out are 0.
        """
        levels = self._analysed(frames, qp, self._analysis)
        return self._truncated(levels, self.kept(variant))

    def scaled(self, frames: np.ndarray | Tensor, qp: int) -> list[Tensor]:
        """uint8 (T, H, W, 3) -> what `analyse` rounds: gain * y, float32 (T, H_l, W_l, C_l) a level, padded size."""
        return self._analysed(frames, qp, self._scaling)

    def _analysed(self, frames: np.ndarray | Tensor, qp: int, traced: Traced) -> list[Tensor]:
        gains = [g.gain for g in self._gains(qp)]
        run = self._in_precision(traced)
        parts = self._pool.map(lambda batch: run(batch, *gains), frames_tensor(frames))
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def _analysis_step(self, batch: Tensor, *gains: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, H, W, 3), gains (1, C_l) of every level -> symbols."""
        return tuple(y.round().to(torch.int32) for y in self._scaling_step(batch, *gains))

    def _scaling_step(self, batch: Tensor, *gains: Tensor) -> tuple[Tensor, ...]:
        """The same before it is rounded."""
        x = self.stage.pad(batch.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        limit = coder.SYMBOL_LIMIT
        return tuple(
            (channels_last(y.float()) * gain).clamp(-limit, limit)
            for y, gain in zip(self._pool.cast(self.stage.analysis, x), gains, strict=True)
        )

    # -- decoding ----------------------------------------------------------------------------------------------------

    def decompress(self, data: bytes) -> np.ndarray:
        """bytes -> uint8 (T, H, W, 3). Raises BitstreamError, WeightsMismatch."""
        return np.concatenate(list(self.decompress_stream(data)))

    def decompress_stream(self, source: bytes | BinaryIO) -> Iterator[np.ndarray]:
        """Blocks of up to 16 frames, uint8 (n, H, W, 3), as they are decoded."""
        reader = Reader(source)
        h = reader.header
        if self.device.type != "cpu":
            for symbols in self._decode([reader]):
                yield self.synthesize(self.dequantise(symbols, h.qp), h.qp, h.height, h.width)
            return
        # Frames are synthesised while the priors, which go frame by frame, decode the ones after them.
        coming: deque[Future[Tensor]] = deque()
        qps, steps = torch.tensor([h.qp]), [g.step for g in self._gains(h.qp)]

        def picture(symbols: Sequence[Tensor]) -> Tensor:
            return self._in_precision(self._pictures)(qps, *symbols, *steps)[:, : h.height, : h.width]

        for symbols in self._decode([reader], lambda frame: coming.append(self._pool.after(lambda: picture(frame)))):
            yield torch.cat([coming.popleft().result() for _ in range(len(symbols[0]))]).numpy()

    def symbols(self, data: bytes | BinaryIO | Sequence[bytes | BinaryIO], base: bool = False) -> list[Tensor]:
        """Bitstream -> int32 (T, C_l, H_l, W_l) a coded level, fine to coarse, cropped to the frame's own cells.

        Several clips of equal size and length decode as one batch: (B, T, C_l, H_l, W_l). `base`: the levels of the
        base layer alone; of a file not a byte behind them is read.
        """
        if isinstance(data, bytes | bytearray | memoryview) or not isinstance(data, Sequence):
            return [level[0] for level in self.symbols([cast(bytes | BinaryIO, data)], base)]
        if not data:
            raise InputError("nothing to decode: expected at least one bitstream")
        readers = [Reader(cast(bytes | BinaryIO, d)) for d in data]
        decoded = self._decode(readers, base=base)
        parts = [[q.unflatten(0, (len(readers), -1)) for q in symbols] for symbols in decoded]
        whole = [torch.cat(level, 1).permute(0, 1, 4, 2, 3) for level in zip(*parts, strict=True)]
        return self.crop_symbols(whole, readers[0].header.height, readers[0].header.width)

    def latents(self, data: bytes | BinaryIO, base: bool = False) -> list[Tensor]:
        """Bitstream -> dequantised latents, float32 (T, C_l, H_l, W_l) a level; `base` as in `symbols`."""
        reader = Reader(data)
        header = reader.header
        symbols = self._whole(reader, base)
        return self.crop(self.dequantise(symbols, header.qp, reader.frames), header.height, header.width)

    def padded_symbols(self, data: bytes | BinaryIO, base: bool = False) -> list[Tensor]:
        """Bitstream -> int32 (T, H_l, W_l, C_l) a level, of the padded frame: for `dequantise` and `synthesize`."""
        return self._whole(Reader(data), base)

    def _whole(self, reader: Reader, base: bool = False) -> list[Tensor]:
        return [torch.cat(level) for level in zip(*self._decode([reader], base=base), strict=True)]

    def crop(self, levels: Sequence[Tensor], height: int, width: int) -> list[Tensor]:
        """(..., H_l, W_l) of the padded frame -> the cells that hold some of the true frame.

        Here and in `dequantise`, fewer levels than the codec has are its coarsest ones.
        """
        return _cropped(levels, self.levels[len(self.levels) - len(levels) :], height, width)

    def crop_symbols(self, levels: Sequence[Tensor], height: int, width: int) -> list[Tensor]:
        """The same of symbols, (..., C_l, H_l, W_l) a coded level."""
        return _cropped(levels, self.coded_levels[len(self.coded_levels) - len(levels) :], height, width)

    def compress_symbols(
        self,
        symbols: Sequence[Tensor],
        qp: int,
        height: int,
        width: int,
        context: bool = True,
        fps: float | Fraction = 0,
        kept: Sequence[int] = (),
        frames: int | None = None,
    ) -> tuple[bytes, EncodeReport]:
        """Symbols of one clip (int32 (T, H_l, W_l, C_l), padded size) -> bytes: the second half of `compress`.

        `kept`: how many channels of each level to code; () is all of them. `frames`: of the clip, where units of
        several stand for more.
        """
        sink = io.BytesIO()
        header = self._header(height, width, check_qp(qp), fps, context, tuple(kept))
        symbols = self._truncated(symbols, header.kept)
        writer = PacketWriter(self._priors, sink, header)
        for packet in zip(*[level.split(PACKET_FRAMES // self.unit) for level in symbols], strict=True):
            writer.add(packet)
        report = writer.finish(frames)
        return sink.getvalue(), report

    def transcode(self, data: bytes, target: "Codec", context: bool = True) -> tuple[bytes, EncodeReport]:
        """The same symbols under another prior of the same image stage: other bytes, identical pixels."""
        if target.coded.digest != self.coded.digest:
            raise InputError("transcoding keeps the symbols: both codecs must code the latents of the same image stage")
        reader = Reader(data)
        header, symbols = reader.header, self._whole(reader)
        return target.compress_symbols(
            symbols, header.qp, header.height, header.width, context, header.fps, header.kept, reader.frames
        )

    def dequantise(self, symbols: Sequence[Tensor], qp: int, frames: int | None = None) -> list[Tensor]:
        """Symbols int32 (T, H_l, W_l, C_l) -> latents of frames, float32 (T, C_l, H_l, W_l).

        `frames`: how many there are, where units of several stand for more; None is all that they stand for.
        """
        gains = self._gains(qp)[len(self.levels) - len(symbols) :]
        return [channels_first(dequantised(q, g.step)) for q, g in zip(symbols, gains, strict=True)]

    def synthesize(self, latents: Sequence[Tensor], qp: int, height: int, width: int) -> np.ndarray:
        """Latents of the padded frames (T, C_l, H_l, W_l) -> uint8 (T, H, W, 3) of the true size."""
        qps = torch.tensor([qp], device=self.device)
        run = self._in_precision(self._synthesis)
        parts = self._pool.map(lambda *levels: run(qps, *levels)[:, :height, :width], *latents)
        return torch.cat(parts).cpu().numpy()

    def _synthesis_step(self, qps: Tensor, *latents: Tensor) -> Tensor:
        """Latents (B, C_l, H_l, W_l) -> padded frames, uint8 (B, H, W, 3)."""
        levels_last = [y.contiguous(memory_format=torch.channels_last) for y in latents]
        x = self._pool.cast(self.stage.synthesis, levels_last, qps).float()
        return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def _pictures_step(self, qps: Tensor, *tensors: Tensor) -> Tensor:
        """Symbols (B, H_l, W_l, C_l) and steps (1, C_l) of every level -> padded frames, uint8 (B, H, W, 3)."""
        count = len(self.levels)
        latents = [channels_first(dequantised(*pair)) for pair in zip(tensors[:count], tensors[count:], strict=True)]
        return self._synthesis_step(qps, *latents)

    def _in_precision(self, traced: Traced) -> Callable[..., Tensor]:
        # In bfloat16 the casts depend on a context that a graph does not record.
        return traced if self._pool.precision == "fp32" else traced.function

    @staticmethod
    def _truncated(symbols: Sequence[Tensor], kept: Sequence[int]) -> list[Tensor]:
        return [truncated(q, k, -1) for q, k in zip(symbols, kept, strict=True)] if kept else list(symbols)

    def _header(
        self, height: int, width: int, qp: int, fps: float | Fraction, context: bool, kept: tuple[int, ...]
    ) -> Header:
        levels = tuple((level.stride, level.channels) for level in self.coded_levels)
        base, rate = self.coded.stage.base_levels, frame_rate(fps)
        return Header(height, width, qp, self._digest, self.kind, levels, rate, context, kept, base, self.unit)

    def _gains(self, qp: int) -> list[Gains]:
        return self.coded.gains(torch.tensor([qp], device=self.device))

    def _check(self, header: Header) -> None:
        if header.fingerprint != self._digest:
            raise WeightsMismatch(
                f"bitstream was written with weights {header.fingerprint.hex()} ({header.kind}), "
                f"these are {self.fingerprint} ({self.kind}): load the model that wrote it"
            )
        levels = tuple((level.stride, level.channels) for level in self.coded_levels)
        if (header.levels, header.base, header.unit) != (levels, self.coded.stage.base_levels, self.unit):
            raise BitstreamError("damaged bitstream: its levels are not those of its weights")

    def _decode(
        self,
        readers: Sequence[Reader],
        on_frame: Callable[[list[Tensor]], None] | None = None,
        base: bool = False,
    ) -> Iterator[list[Tensor]]:
        """Symbols packet by packet, one ahead of the caller: priors go frame by frame while the caller works."""
        for reader in readers:
            self._check(reader.header)
        packets = decode(self._priors, readers, on_frame, base)
        coming = self._pool.ahead(lambda: next(packets, None))
        while (symbols := coming.result()) is not None:
            coming = self._pool.ahead(lambda: next(packets, None))
            yield symbols


def _cropped(tensors: Sequence[Tensor], levels: Sequence[Level], height: int, width: int) -> list[Tensor]:
    return [
        y[..., : -(-height // level.stride), : -(-width // level.stride)]
        for y, level in zip(tensors, levels, strict=True)
    ]
