"""The loss of a temporal stage that predicts from moved pictures, in a closed loop: references are decoded pictures.

    frames --frozen image stage--> symbols --> latents of every frame
    frame by frame: reference of t-1 --search, moved--> picture --analysis--> prediction of t
                    latents of t, moved picture --synthesis--> reference of t        error against the frame
    all frames at once: bits of symbols and of vectors

No gradient goes through time: each part learns from what the others make of it now.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidlbc.image_stage.base import channels_last, qp_lambda
from vidlbc.models import ImageModel
from vidlbc.motion import search as motion_search
from vidlbc.motion.stage import Prediction
from vidlbc.motion.warp import CONTRAST, moved, seen, shown
from vidlbc.prior.topdown import symbol_bits
from vidlbc.temporal_stage.moved import MovedStage

_RATE_EXPONENT = 0.45


@dataclass
class Walk:
    """A batch of clips, frame after frame; lists over frames. Fields and predictions begin with the second frame."""

    references: list[Tensor]
    fields: list[Tensor]
    predictions: list[Prediction]
    errors: list[Tensor]


@dataclass(frozen=True)
class MotionRate:
    """Called by the loop on (frames uint8 (B, T, 3, S, S), qp (B,)); S a multiple of 32.

    `pictures`: weight of the references' error, where their synthesis is trained.
    """

    image: ImageModel
    bf16: bool = False
    pictures: float = 1.0
    effort: motion_search.Effort = motion_search.DEFAULT
    coded: bool = True
    capturable: ClassVar[bool] = False

    @torch.no_grad()
    def symbols(self, frames: Tensor, qp: Tensor) -> list[Tensor]:
        """float32 (B*T, H_l, W_l, C_l) a level, fine to coarse; qp (B*T,)."""
        stage = self.image.stage
        x = stage.pad(frames.flatten(0, 1).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            latents = stage.analysis(x)
        gains = self.image.gains(qp)
        return [(channels_last(y.float()) * g.gain[:, None, None]).round() for y, g in zip(latents, gains, strict=True)]

    def walk(self, temporal: MovedStage, frames: Tensor, latents: list[Tensor], qp: Tensor) -> Walk:
        """frames uint8 (B, T, 3, H, W), latents (B, T, H_l, W_l, C_l), qp (B,)."""
        motion, walk = temporal.motion, Walk([], [], [], [])
        pictures = frames.permute(0, 1, 3, 4, 2).contiguous()
        learns = any(p.requires_grad for p in motion.synthesis.parameters()) and torch.is_grad_enabled()
        analyses = any(p.requires_grad for p in motion.analysis.parameters()) and torch.is_grad_enabled()
        for t in range(frames.shape[1]):
            own = [y[:, t] for y in latents]
            before: Tensor | None = None
            if t:
                with torch.no_grad():
                    last = walk.fields[-1] if walk.fields else None
                    field = motion_search.search(pictures[:, t], walk.references[-1], qp, last, self.effort)
                    before = moved(walk.references[-1], field)
                with torch.set_grad_enabled(analyses):
                    walk.predictions.append(motion.predict(before))
                walk.fields.append(field)
            with torch.set_grad_enabled(learns):
                picture = motion.synthesis(own, qp, before)
                walk.errors.append((picture - seen(pictures[:, t])).square().mean((1, 2, 3)) / CONTRAST**2)
            walk.references.append(shown(picture.detach()))
        return walk

    def measure(self, temporal: MovedStage, frames: Tensor, qp: Tensor) -> tuple[Tensor, Tensor, Tensor, Walk]:
        """Bits a pixel of symbols and of vectors of each frame but the first, (B, T-1); mean squared errors of all
        references, (B, T); and the walk."""
        clips, count = frames.shape[:2]
        pixels = frames.shape[-2] * frames.shape[-1]
        qps = qp.repeat_interleave(count)
        symbols = self.symbols(frames, qps)
        latents = [q * g.step[:, None, None] for q, g in zip(symbols, self.image.gains(qps), strict=True)]
        walk = self.walk(temporal, frames, [y.unflatten(0, (clips, count)) for y in latents], qp)
        errors = torch.stack(walk.errors, 1)
        fields = torch.stack(walk.fields, 1)
        seen_then = Prediction(*[
            [torch.stack(level, 1).flatten(0, 1) for level in zip(*one, strict=True)] for one in zip(*walk.predictions, strict=True)
        ])  # fmt: skip
        later = qp.repeat_interleave(count - 1)
        bits = torch.zeros(len(later), device=frames.device)
        if self.coded:
            out = temporal.given_past(latents, later, self.image.gains(later), count, fields, seen_then)
            coded = [q.unflatten(0, (clips, count))[:, 1:].flatten(0, 1) for q in symbols]
            bits = torch.stack([symbol_bits(q, d).sum((1, 2, 3)) for q, d in zip(coded, out, strict=True)]).sum(0)
        none = torch.zeros_like(fields[:, :1])
        earlier = torch.cat([none, fields[:, :-1]], 1).flatten(0, 1)
        paid = temporal.motion.vectors.bits(later, earlier, fields.flatten(0, 1), symbol_bits)
        return (bits / pixels).view(clips, -1), (paid / pixels).view(clips, -1), errors, walk

    def __call__(
        self, temporal: nn.Module, batch: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(temporal, MovedStage)
        frames, qp = batch
        bits, vectors, errors, _ = self.measure(temporal, frames, qp)
        weight = ((qp_lambda(torch.tensor(32.0)) / qp_lambda(qp)) ** _RATE_EXPONENT)[:, None]
        rate = (weight * (bits + vectors)).mean()
        loss = rate
        parts = {"bpp": (bits + vectors).detach().mean(), "bpp_vectors": vectors.detach().mean(), "rate": rate.detach()}
        parts["psnr"] = -10 * errors[:, 1:].detach().clamp_min(1e-9).log10().mean()
        parts["psnr_first"] = -10 * errors[:, 0].detach().clamp_min(1e-9).log10().mean()
        if errors.requires_grad:
            # As the image stage's own loss, each QP pulling alike.
            loss = loss + self.pictures * (weight * qp_lambda(qp)[:, None] * 255**2 * errors[:, 1:]).mean()
        return loss, parts
