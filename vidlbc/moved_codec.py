"""The codec of temporal stages that predict from moved pictures (vidlbc.motion, vidlbc.coding.moving).

Bytes depend on the search for vectors, which is plain floating point and may differ in a last bit between machines;
what a bitstream decodes to does not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from vidlbc.bitstream import Header, Reader
from vidlbc.codec import Codec
from vidlbc.coding import EncodeReport, OnLevel, Priors
from vidlbc.coding.moved_decoding import decode_moved
from vidlbc.coding.moved_encoding import MovedChooser, MovedFrame, MovedSettings, MovedWriter
from vidlbc.coding.moved_priors import MovedPriors
from vidlbc.coding.rdo import ERROR_PRICE
from vidlbc.errors import InputError
from vidlbc.models import ImageModel
from vidlbc.motion.search import EFFORTS
from vidlbc.temporal_stage import MovedStage


class MovedCodec(Codec):
    """As `Codec`. `effort` and `keyint`: see vidlbc.codec.load. `skip` does nothing here: every symbol is coded."""

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
    ):
        super().__init__(image, temporal, temporal_digest, device, precision)
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
        return MovedChooser(self._moved, header, MovedSettings(ERROR_PRICE if rdo else None, self.effort, self.keyint))

    def _write(
        self, packets: Iterable[Tensor], sink: BinaryIO, header: Header, variant: str | None, rdo: bool
    ) -> EncodeReport:
        if rdo:
            scaled = (self.scaled(self.unquantised(packet), header.qp) for packet in packets)
        else:
            symbols = (self.analyse(packet, header.qp, variant) for packet in packets)
            scaled = ([q.float() for q in packet] for packet in symbols)
        return self._finish(self._chooser(header, rdo).packets(scaled), sink, header, variant)

    def _write_symbols(
        self, packets: Iterable[Sequence[Tensor]], sink: BinaryIO, header: Header, variant: str | None
    ) -> EncodeReport:
        scaled = ([q.float() for q in packet] for packet in packets)
        return self._finish(self._chooser(header, False).packets(scaled), sink, header, variant)

    def _finish(
        self, frames: Iterable[Sequence[MovedFrame]], sink: BinaryIO, header: Header, variant: str | None
    ) -> EncodeReport:
        writer = MovedWriter(sink, header, variant)
        for packet in frames:
            with self.clock.stage("entropy coding"):
                writer.add(packet)
        return writer.finish()

    def _choose(self, scaled: Sequence[Tensor], header: Header) -> list[Tensor]:
        frames = next(self._chooser(header, True).packets([scaled]))
        return [torch.cat(level) for level in zip(*[frame.symbols for frame in frames], strict=True)]

    def decompress_stream(self, source: bytes | BinaryIO) -> Iterator[np.ndarray]:
        if not self.shows_references:
            yield from super().decompress_stream(source)
            return
        reader = Reader(source)
        header = reader.header
        self._check(header)
        pictures: list[Future[Tensor]] = []
        packets = decode_moved(self._moved, reader, on_reference=pictures.append)
        while self._pool.ahead(lambda: next(packets, None)).result() is not None:
            block, pictures[:] = torch.cat([picture.result() for picture in pictures]), []
            yield block[:, : header.height, : header.width].cpu().numpy()

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
