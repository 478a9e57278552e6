"""The temporal stage's loss: bits of the frozen stage's symbols, given the past. No distortion: it cannot change."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidlbc.codec.image_stage.base import channels_last, qp_lambda
from vidlbc.codec.models import ImageModel
from vidlbc.codec.prior.topdown import symbol_bits
from vidlbc.codec.temporal_stage import TemporalStage

# Rate grows about as lambda^0.45 over the QPs of the shipped stage; dividing by it lets every QP pull alike.
RATE_EXPONENT = 0.45


@dataclass(frozen=True)
class SymbolRate:
    """Called by the loop on (frames uint8 (B, T, 3, S, S), qp (B,))."""

    image: ImageModel
    bf16: bool = False
    capturable: ClassVar[bool] = True

    @torch.no_grad()
    def symbols(self, frames: Tensor, qp: Tensor) -> list[Tensor]:
        """float32 (B*T, H_l, W_l, C_l) a level, fine to coarse."""
        stage = self.image.stage
        x = stage.pad(frames.flatten(0, 1).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            latents = stage.analysis(x)
        gains = self.image.gains(qp)
        return [(channels_last(y.float()) * g.gain[:, None, None]).round() for y, g in zip(latents, gains, strict=True)]

    def bpp(self, temporal: nn.Module, frames: Tensor, qp: Tensor) -> Tensor:
        """Estimated bits a pixel of each frame, (B, T), of frames uint8 (B, T, 3, H, W) at qp (B,)."""
        assert isinstance(temporal, TemporalStage)
        clips, count = frames.shape[:2]
        qp = qp.repeat_interleave(count)
        symbols = self.symbols(frames, qp)
        gains = self.image.gains(qp)
        latents = [q * g.step[:, None, None] for q, g in zip(symbols, gains, strict=True)]
        multiple = self.image.stage.multiple
        height, width = (side + -side % multiple for side in frames.shape[-2:])
        out, _ = temporal(latents, qp, gains, count, temporal.start(clips, height, width))
        bits = torch.stack([symbol_bits(q, d).sum((1, 2, 3)) for q, d in zip(symbols, out, strict=True)]).sum(0)
        return (bits / (frames.shape[-2] * frames.shape[-1])).view(clips, count)

    def __call__(
        self, temporal: nn.Module, batch: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        frames, qp = batch
        bpp = self.bpp(temporal, frames, qp)
        weight = (qp_lambda(torch.tensor(32.0)) / qp_lambda(qp))[:, None] ** RATE_EXPONENT
        first, rest = bpp[:, 0].detach(), bpp[:, min(2, frames.shape[1] - 1) :].detach().mean(1)
        # A mean over clips, as the others: it does not depend on how a batch is spread over processes.
        parts = {"bpp_first": first, "bpp": rest, "saving": 1 - rest / first}
        return (weight * bpp).mean(), {name: value.mean() for name, value in parts.items()}
