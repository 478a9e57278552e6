"""The networks of floating point as a codec runs them: frames to what is quantised, symbols to frames; no bitstream.

On CPU every frame goes through it alone, on one thread, and frames run side by side, so that what becomes of a frame
does not depend on threads or batch. On a GPU frames go in batches of a fixed size (vidlbc.codec.frame_pool).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec import models
from vidlbc.codec.bitstream import Header
from vidlbc.codec.coding import dequantised
from vidlbc.codec.entropy import coder
from vidlbc.codec.frame_pool import FramePool
from vidlbc.codec.image_stage.base import channels_first, channels_last, truncated
from vidlbc.codec.inputs import frames_tensor, pick_device
from vidlbc.codec.prior.grid import check_device
from vidlbc.codec.prior.topdown import Gains, Level
from vidlbc.codec.refinement import Refiner, VideoDecoder
from vidlbc.codec.traced import Traced
from vidlbc.errors import InputError
from vidlbc.run.stage_clock import StageClock


class ImageCodec:
    """Frames are uint8 (T, H, W, 3) RGB; H and W >= 16. Lists over levels are fine to coarse.

    `decoder`: refines frames from those before them, and its digest (see `vidlbc.codec.models.load_video_decoder`).
    """

    def __init__(
        self,
        image: models.ImageModel,
        device: str = "auto",
        precision: str = "fp32",
        decoder: tuple[VideoDecoder, bytes] | None = None,
    ):
        """Raises InputError where there is no such device or precision."""
        if precision not in ("fp32", "bf16"):
            raise InputError(f"unknown precision {precision!r}: expected fp32 or bf16")
        self.device = pick_device(device)
        check_device(self.device)
        self.image = image.to(self.device)
        self.stage = self.image.stage.to(memory_format=torch.channels_last)
        self._pool = FramePool(self.device, precision)
        self.refiner = None if decoder is None else Refiner(self.stage, *decoder, self._pool)
        self._analysis = Traced(self._analysis_step)
        self._synthesis, self._pictures = Traced(self._synthesis_step), Traced(self._pictures_step)

    @property
    def clock(self) -> StageClock:
        """Seconds of work by stage."""
        return self._pool.clock

    @property
    def lanes(self) -> int:
        """Clips that are best encoded side by side, each in a thread of its own. To be asked for in the main thread."""
        return self._pool.lanes

    def start_threads(self) -> None:
        """As many as the main thread may use, where others than the main thread will be the first to use the codec."""
        self._pool.start()

    @property
    def levels(self) -> tuple[Level, ...]:
        """Of the latents of a frame."""
        return self.stage.levels

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the truncations that the image stage was trained for."""
        return tuple(self.stage.variants)

    def kept(self, variant: str | None) -> tuple[int, ...]:
        """Channels that a variant codes of each level, fine to coarse; () is all. Raises InputError."""
        if variant is None:
            return ()
        if variant not in self.stage.variants:
            known = ", ".join(self.variants) or "none"
            raise InputError(f"unknown variant {variant!r}: this model has {known}")
        return self.stage.variants[variant]

    def unquantised(self, frames: np.ndarray | Tensor) -> list[Tensor]:
        """uint8 (T, H, W, 3) -> y, float32 (T, H_l, W_l, C_l) a level, padded size: the same for every QP."""
        parts = self._pool.map(self._timed("image stage", self._in_precision(self._analysis)), frames_tensor(frames))
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def scaled(self, latents: Sequence[Tensor], qp: int) -> list[Tensor]:
        """What `unquantised` gives -> gain * y, which is rounded to symbols."""
        limit = coder.SYMBOL_LIMIT
        return [(y * g.gain).clamp_(-limit, limit) for y, g in zip(latents, self._gains(qp), strict=True)]

    def _analysis_step(self, batch: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, H, W, 3) -> y, float32 (B, H_l, W_l, C_l)."""
        x = self.stage.pad(batch.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        return tuple(channels_last(y.float()) for y in self._pool.cast(self.stage.analysis, x))

    def crop(self, levels: Sequence[Tensor], height: int, width: int) -> list[Tensor]:
        """(..., H_l, W_l) of the padded frame -> the cells that hold some of the true frame.

        Here and in `dequantise`, fewer levels than the codec has are its coarsest ones.
        """
        own = self.levels[len(self.levels) - len(levels) :]
        return [
            y[..., : -(-height // level.stride), : -(-width // level.stride)]
            for y, level in zip(levels, own, strict=True)
        ]

    def unpadded(self, symbols: Sequence[Tensor], height: int, width: int) -> list[Tensor]:
        """Symbols of the padded frame (..., H_l, W_l, C_l) -> (..., C_l, H_l, W_l) of the cells of the true one."""
        return self.crop([q.movedim(-1, -3) for q in symbols], height, width)

    def dequantise(self, symbols: Sequence[Tensor], qp: int | Sequence[int]) -> list[Tensor]:
        """Symbols int32 (T, H_l, W_l, C_l) -> latents, float32 (T, C_l, H_l, W_l); `qp` of all frames, or of each."""
        gains = self._gains(qp)[len(self.levels) - len(symbols) :]
        return [channels_first(dequantised(q, g.step)) for q, g in zip(symbols, gains, strict=True)]

    def synthesize(self, latents: Sequence[Tensor], qp: int | Sequence[int], height: int, width: int) -> np.ndarray:
        """Latents of the padded frames (T, C_l, H_l, W_l) -> uint8 (T, H, W, 3) of the true size, each frame alone;
        `qp` of all frames, or of each."""
        qps = self._qps(qp)
        run = self._in_precision(self._synthesis)
        if len(qps) == 1:
            parts = self._pool.map(lambda *levels: run(qps, *levels)[:, :height, :width], *latents)
        else:
            parts = self._pool.map(lambda own, *levels: run(own, *levels)[:, :height, :width], qps, *latents)
        return torch.cat(parts).cpu().numpy()

    def _shown(self, header: Header) -> Callable[[Sequence[Tensor]], np.ndarray]:
        """Takes the latents of a clip's padded frames, block after block; gives uint8 (n, H, W, 3)."""
        place = header.qp, header.height, header.width
        if self.refiner is None:
            return lambda latents: self.synthesize(latents, *place)
        clip = self.refiner.start(*place)
        return lambda latents: clip.add(latents).numpy()

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

    def _timed(self, stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*tensors: Tensor) -> Any:
            with self.clock.stage(stage, on_device=True):
                return run(*tensors)

        return timed

    def _in_precision(self, traced: Traced) -> Callable[..., Tensor]:
        # In bfloat16 the casts depend on a context that a graph does not record.
        return traced if self._pool.precision == "fp32" else traced.function

    @staticmethod
    def _truncated(symbols: Sequence[Tensor], kept: Sequence[int]) -> list[Tensor]:
        return [truncated(q, k, -1) for q, k in zip(symbols, kept, strict=True)] if kept else list(symbols)

    def _gains(self, qp: int | Sequence[int]) -> list[Gains]:
        return self.image.gains(self._qps(qp))

    def _qps(self, qp: int | Sequence[int]) -> Tensor:
        """Of all frames together, (1,), or of each, (T,)."""
        several = [qp] if isinstance(qp, int) else qp
        return torch.tensor(several if len(set(several)) > 1 else several[:1], device=self.device)
