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
from vidlbc.codec_input import frames_tensor
from vidlbc.coding import dequantised
from vidlbc.entropy import coder
from vidlbc.image_stage.base import channels_first, channels_last
from vidlbc.models import ChunkModel, ImageModel
from vidlbc.traced import Traced


class ChunkCodec(Codec):
    """As `Codec`; symbols are those of chunks, latents those of frames."""

    def __init__(self, image: ImageModel, chunk: ChunkModel, device: str = "auto", precision: str = "fp32"):
        super().__init__(image, chunk.stage.temporal, chunk.digest, device, precision, chunk)
        self.unit = chunk.stage.frames
        self._transform = chunk.stage.transform
        self._latents = Traced(self._latents_step)
        self._to_chunk, self._from_chunk = Traced(self._to_chunk_step), Traced(self._from_chunk_step)

    def analyse(self, frames: np.ndarray | Tensor, qp: int, variant: str | None = None) -> list[Tensor]:
        scaled = self.scaled(frames, qp)
        return self._truncated([c.round().to(torch.int32) for c in scaled], self.kept(variant))

    def scaled(self, frames: np.ndarray | Tensor, qp: int) -> list[Tensor]:
        run = self._in_precision(self._latents)
        parts = self._pool.map(lambda batch: run(batch), frames_tensor(frames))
        latents = [self._units(torch.cat(level)) for level in zip(*parts, strict=True)]
        gains = [g.gain for g in self._gains(qp)]
        chunks = self._pool.map(lambda *levels: self._to_chunk(*levels, *gains), *latents)
        return [torch.cat(level) for level in zip(*chunks, strict=True)]

    def decompress_stream(self, source: bytes | BinaryIO) -> Iterator[np.ndarray]:
        reader = Reader(source)
        h = reader.header
        waiting, shown = None, 0
        for symbols in self._decode([reader]):
            if waiting is not None:
                yield waiting
                shown += len(waiting)
            waiting = self.synthesize(self.dequantise(symbols, h.qp), h.qp, h.height, h.width)
        # How many frames of the last chunk are the clip's is known at the end.
        assert waiting is not None
        yield waiting[: reader.frames - shown]

    def dequantise(self, symbols: Sequence[Tensor], qp: int, frames: int | None = None) -> list[Tensor]:
        steps, qps = [g.step for g in self._gains(qp)], torch.tensor([qp], device=self.device)
        parts = self._pool.map(lambda *levels: self._from_chunk(*levels, *steps, qps), *symbols)
        return [torch.cat(level).flatten(0, 1)[:frames] for level in zip(*parts, strict=True)]

    def _units(self, latents: Tensor) -> Tensor:
        """(T, C, H, W) -> (ceil(T / unit), unit, C, H, W), filled up with the last."""
        missing = -len(latents) % self.unit
        return torch.cat([latents, *[latents[-1:]] * missing]).unflatten(0, (-1, self.unit))

    def _latents_step(self, batch: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, H, W, 3) -> latents (B, C_l, H_l, W_l) of the padded frames."""
        x = self.stage.pad(batch.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        return tuple(y.float() for y in self._pool.cast(self.stage.analysis, x))

    def _to_chunk_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Latents (U, unit, C_l, H_l, W_l) and gains (1, M_s) of every level -> gain * c (U, H_s, W_s, M_s)."""
        count, limit = len(self.levels), coder.SYMBOL_LIMIT
        maps = self._transform.maps([y.flatten(0, 1) for y in tensors[:count]])
        chunk = self._transform.analysis(maps)
        return tuple(
            (channels_last(c) * gain).clamp(-limit, limit) for c, gain in zip(chunk, tensors[count:], strict=True)
        )

    def _from_chunk_step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Symbols (U, H_s, W_s, M_s), steps (1, M_s) and QP (1,) -> latents (U, unit, C_l, H_l, W_l)."""
        *pairs, qp = tensors
        count = len(pairs) // 2
        chunk = [channels_first(dequantised(*pair)) for pair in zip(pairs[:count], pairs[count:], strict=True)]
        latents = self._transform.latents(self._transform.synthesis(chunk, qp.expand(len(chunk[0]))))
        return tuple(y.unflatten(0, (-1, self.unit)) for y in latents)
