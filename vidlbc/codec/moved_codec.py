"""The codec of temporal stages that predict from moved pictures (vidlbc.codec.motion, vidlbc.codec.coding.moving).

Bytes depend on the search for vectors, which is plain floating point and may differ in a last bit between machines;
what a bitstream decodes to does not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header, Reader, Stored
from vidlbc.codec.codec import MAX_PIXELS, Codec, Decoded, Keep
from vidlbc.codec.coding import EncodeReport, OnLevel, Priors
from vidlbc.codec.coding.moved_decoding import decode_moved
from vidlbc.codec.coding.moved_encoding import PRICE, MovedChooser, MovedSettings, SourceFrames
from vidlbc.codec.coding.moved_priors import MovedPriors
from vidlbc.codec.coding.moved_writing import MovedFrame, MovedWriter
from vidlbc.codec.models import ImageModel
from vidlbc.codec.motion.search import EFFORTS
from vidlbc.codec.options import CodingOptions
from vidlbc.codec.temporal_stage import MovedStage
from vidlbc.errors import InputError


class MovedCodec(Codec):
    """As `Codec`. `effort` and `keyint`: see vidlbc.codec.load. `shows_references`: whether `decompress` gives what
    frames are predicted from; None: of streams whose blocks may be copied. `skip` does nothing here: every symbol is
    coded."""

    moves = True

    def __init__(
        self,
        image: ImageModel,
        temporal: MovedStage,
        temporal_digest: bytes,
        device: str = "auto",
        precision: str = "fp32",
        effort: str = "default",
        keyint: int = 0,
        shows_references: bool | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(image, temporal, temporal_digest, device, precision, max_pixels=max_pixels)
        self.shows_references = shows_references
        self.effort, self.keyint = EFFORTS[effort], keyint

    def _make_priors(self) -> Priors:
        if self.stage.base_levels:
            raise InputError(
                "a base layer cannot stand alone where frames are predicted from pictures: use temporal=none"
            )
        return MovedPriors(self.image, cast(MovedStage, self.temporal), self._pool)

    @property
    def _moved(self) -> MovedPriors:
        return cast(MovedPriors, self._priors)

    def _chooser(self, header: Header, rdo: bool) -> MovedChooser:
        return MovedChooser(self._moved, header, MovedSettings(PRICE if rdo else None, self.effort, self.keyint))

    def _write(
        self, packets: Iterable[Tensor], sink: BinaryIO, header: Header, options: CodingOptions, keep: Keep
    ) -> EncodeReport:
        if options.rdo:
            sources = (SourceFrames(self.unquantised(packet), self._padded(packet)) for packet in packets)
        else:
            rounded = (self.analyse(packet, header.qp, variant=options.variant) for packet in packets)
            sources = (SourceFrames([q.float() for q in packet]) for packet in rounded)
        return self._finish(
            self._chooser(header, bool(options.rdo)).packets(sources), sink, header, options.variant, keep
        )

    def _padded(self, frames: Tensor) -> Tensor:
        rows, columns = (
            torch.arange(side + -side % self.stage.multiple, device=frames.device).clamp_max(side - 1)
            for side in frames.shape[1:3]
        )
        return frames.index_select(1, rows).index_select(2, columns)

    def _write_symbols(
        self, packets: Iterable[Sequence[Tensor]], sink: BinaryIO, header: Header, variant: str | None
    ) -> EncodeReport:
        sources = (SourceFrames([q.float() for q in packet]) for packet in packets)
        return self._finish(self._chooser(header, False).packets(sources), sink, header, variant, lambda symbols: None)

    def _finish(
        self, packets: Iterable[Sequence[MovedFrame]], sink: BinaryIO, header: Header, variant: str | None, keep: Keep
    ) -> EncodeReport:
        writer = MovedWriter(sink, header, variant)
        for frames in packets:
            with self.clock.stage("entropy coding"):
                writer.add(frames)
            keep([torch.cat(level) for level in zip(*[frame.symbols for frame in frames], strict=True)])
        return writer.finish()

    def _choose(self, scaled: Sequence[Tensor], header: Header) -> list[Tensor]:
        raise InputError(
            "symbols for rate and distortion belong to frames that are predicted from pictures: use encode"
        )

    def decompress_stream(self, source: Stored) -> Iterator[np.ndarray]:
        reader = Reader(source)
        if not self._references(reader.header):
            return self._decompress(reader)
        return (pictures for _, pictures in self._shown_packets(reader))

    def decode_shown(self, data: Stored) -> tuple[Decoded, np.ndarray]:
        reader = Reader(data)
        if not self._references(reader.header):
            return super().decode_shown(data)
        packets, pictures = zip(*self._shown_packets(reader), strict=True)
        symbols = [torch.cat(level) for level in zip(*packets, strict=True)]
        return Decoded(symbols, tuple(reader.qps)), np.concatenate(pictures)

    def _references(self, header: Header) -> bool:
        """Whether the pictures of a stream are those that frames are predicted from."""
        return header.copies if self.shows_references is None else self.shows_references

    def _shown_packets(self, reader: Reader) -> Iterator[tuple[list[Tensor], np.ndarray]]:
        """Symbols and reference pictures, uint8 (n, H, W, 3), packet by packet."""
        header = reader.header
        self._check(header)
        coming: list[Future[Tensor]] = []
        packets = decode_moved(self._moved, reader, on_reference=coming.append)
        while (symbols := self._pool.ahead(lambda: next(packets, None)).result()) is not None:
            block, coming[:] = torch.cat([picture.result() for picture in coming]), []
            yield symbols, block[:, : header.height, : header.width].cpu().numpy()

    def _packets(
        self,
        readers: Sequence[Reader],
        on_frame: Callable[[list[Tensor]], None] | None,
        base: bool,
        on_level: OnLevel | None,
    ) -> Iterator[list[Tensor]]:
        if base:
            raise InputError("the bitstream has no base layer: its model has none")
        if len(readers) == 1:
            return decode_moved(self._moved, readers[0], on_frame, on_level)
        return self._one_by_one(readers)

    def _one_by_one(self, readers: Sequence[Reader]) -> Iterator[list[Tensor]]:
        """Clips of a batch: each has kinds of frames of its own."""
        if len({(r.header.height, r.header.width, r.header.context) for r in readers}) > 1:
            raise InputError("clips decoded as one batch must have the same size, layers and context flag")
        clips = []
        for reader in readers:
            clips.append([torch.cat(level) for level in zip(*decode_moved(self._moved, reader), strict=True)])
        if len({len(clip[0]) for clip in clips}) > 1:
            raise InputError("clips decoded as one batch must have the same number of frames")
        yield [torch.cat(level) for level in zip(*clips, strict=True)]
