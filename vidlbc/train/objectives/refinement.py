"""The video decoder's loss: how much of each frame's error it leaves, as a logarithm. No rate: it cannot change.

The mean of log(MSE refined / MSE alone) is the mean gain in dB: every clip and QP pulls alike, whatever its error. With
lambda(QP) * MSE in its place, a few clips of large errors drown the others (docs/log.md).
"""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidlbc.codec.image_stage.base import channels_first
from vidlbc.codec.models import ImageModel
from vidlbc.codec.refinement import State, VideoDecoder
from vidlbc.train.objectives.video import SymbolRate


@dataclass(frozen=True)
class RefinementDistortion:
    """Called by the loop on (frames uint8 (B, T, 3, S, S), qp (B,)); gradients flow through all T frames.

    `motion`: weight of the error of the moved picture, without which the motion learns nothing before the past is
    trusted. `cuts`: share of the steps in which every clip goes over to another one midway.
    """

    image: ImageModel
    motion: float = 0.1
    cuts: float = 0.15
    seed: int = 0
    bf16: bool = False

    @torch.no_grad()
    def decoded(self, frames: Tensor, qp: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, S, S), qp (N,) -> what the frozen decoder makes of them: pictures and features."""
        rate = SymbolRate(self.image, self.bf16)
        coded = zip(rate.symbols(frames[:, None], qp), self.image.gains(qp), strict=True)
        latents = [channels_first(q * gains.step[:, None, None]) for q, gains in coded]
        with torch.autocast(frames.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            latents = [y.contiguous(memory_format=torch.channels_last) for y in latents]
            picture, features = self.image.stage.synthesis_with_features(latents, qp)
        return picture.float(), features.float()

    def __call__(self, decoder: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(decoder, VideoDecoder)
        device = next(decoder.parameters()).device
        frames, qp = batch[0].to(device), batch[1].to(device)
        clips, count = frames.shape[:2]
        draw = random.Random(f"{self.seed}/{step}")
        cut = draw.randrange(1, count) if clips > 1 and count > 1 and draw.random() < self.cuts else None
        if cut is not None:
            frames = torch.cat([frames[:, :cut], frames[:, cut:].roll(1, 0)], 1)
        picture, features = self.decoded(frames.flatten(0, 1), qp.repeat_interleave(count))
        picture, features = (x.unflatten(0, (clips, count)) for x in (picture, features))
        height, width = frames.shape[-2:]
        state: State = ()
        loss = torch.zeros((), device=device)
        first: list[Tensor] = []
        rest: list[Tensor] = []
        for t in range(count):
            source = frames[:, t].float() / 255
            out = decoder(features[:, t], picture[:, t], qp, state)
            plain, error = (_mse(x[..., :height, :width], source) for x in (picture[:, t], out.picture))
            ratio = (error / plain).log()
            loss = loss + ratio.mean()
            if out.moved is not None and t != cut:
                loss = loss + self.motion * (1 + _mse(out.moved[..., :height, :width], source) / plain).log().mean()
            (first if t in (0, cut) else rest).append(ratio.detach().mean() * -10 / math.log(10))
            state = out.state
        parts = {"gain_first": torch.stack(first).mean()}
        if rest:
            parts["gain"] = torch.stack(rest).mean()
        return loss / count, parts


def _mse(x: Tensor, source: Tensor) -> Tensor:
    """(B,). A frame without error would have no logarithm."""
    return (x - source).square().mean((1, 2, 3)) + 1e-6
