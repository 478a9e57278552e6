"""The codec of kind `chunk`: latents of eight frames are coded as one chunk latent.

    frames -> analysis (one frame a thread) -> chunk transform (one chunk a thread) -> symbols -> vidlbc.coding
    vidlbc.coding -> symbols -> chunk transform -> latents of frames -> synthesis -> frames

The last chunk of a clip is filled up by repetition; the end record says how many frames are the clip's.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vidlbc.bitstream import Reader
from vidlbc.codec import Codec
from vidlbc.coding import dequantised
from vidlbc.image_stage.base import channels_first, channels_last
from vidlbc.models import ChunkModel, ImageModel
from vidlbc.traced import Traced


class ChunkCodec(Codec):
    """As `Codec`; symbols are those of chunks, latents those of frames."""

    def __init__(self, image: ImageModel, chunk: ChunkModel, device: str = "auto", precision: str = "fp32"):
        super().__init__(image, chunk.stage.temporal, chunk.digest, device, precision, chunk)
        self.unit = chunk.stage.frames
        self._transform = chunk.stage.transform
        self._to_chunk, self._from_chunk = Traced(self._to_chunk_step), Traced(self._from_chunk_step)

    def unquantised(self, frames: np.ndarray | Tensor) -> list[Tensor]:
        latents = [self._units(channels_first(y)) for y in super().unquantised(frames)]
        chunks = self._pool.map(self._timed("temporal stage", self._to_chunk), *latents)
        return [torch.cat(level) for level in zip(*chunks, strict=True)]

    def decompress_stream(self, source: bytes | BinaryIO) -> Iterator[np.ndarray]:
        reader = Reader(source)
        h = reader.header
        self._check(h)
        shown, waiting, count = self._shown(h), None, 0
        for symbols in self._decode([reader]):
            if waiting is not None:
                yield waiting
                count += len(waiting)
            waiting = shown(self.dequantise(symbols, h.qp))
        # How many frames of the last chunk are the clip's is known at the end.
        assert waiting is not None
        yield waiting[: reader.frames - count]

    def dequantise(self, symbols: Sequence[Tensor], qp: int, frames: int | None = None) -> list[Tensor]:
        steps, qps = [g.step for g in self._gains(qp)], torch.tensor([qp], device=self.device)
        parts = self._pool.map(lambda *levels: self._from_chunk(*levels, *steps, qps), *symbols)
        return [torch.cat(level).flatten(0, 1)[:frames] for level in zip(*parts, strict=True)]

    def _units(self, latents: Tensor) -> Tensor:
        """(T, C, H, W) -> (ceil(T / unit), unit, C, H, W), filled up with the last."""
        missing = -len(latents) % self.unit
        return torch.cat([latents, *[latents[-1:]] * missing]).unflatten(0, (-1, self.unit))

    def _to_chunk_step(self, *latents: Tensor) -> tuple[Tensor, ...]:
        """Latents (U, unit, C_l, H_l, W_l) of every level -> c, float32 (U, H_s, W_s, M_s)."""
        chunk = self._transform.analysis(self._transform.maps([y.flatten(0, 1) for y in latents]))
        return tuple(map(channels_last, chunk))

    def _from_chunk_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Symbols (U, H_s, W_s, M_s), steps (1, M_s) and QP (1,) -> latents (U, unit, C_l, H_l, W_l)."""
        *pairs, qp = tensors
        count = len(pairs) // 2
        chunk = [channels_first(dequantised(*pair)) for pair in zip(pairs[:count], pairs[count:], strict=True)]
        latents = self._transform.latents(self._transform.synthesis(chunk, qp.expand(len(chunk[0]))))
        return tuple(y.unflatten(0, (-1, self.unit)) for y in latents)
