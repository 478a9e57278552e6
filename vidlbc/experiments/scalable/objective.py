"""Losses of a scalable codec (de Andrade and Bajic, arXiv 2405.10244, "Scalable coding"), for `vidlbc.train.loop`.

    L_b = lambda_b d_b + R(y_b, z_b) + beta ||x^ - x||^2,  x^ = g_a(y^_b)    base, head and preview together
    L_e = lambda_e d_e + R(y_e, z_e | y^_b)                                  the base frozen

Every term is per frame, so that clips of any length and pictures of any size weigh alike:

    R           estimated bits / pixels of the frame (bit/pixel), mean over the frames of a clip
    d_b         cross-entropy of the clip's class, in nats
    ||x^ - x||^2  mean over pixels and RGB of the squared error, in squares of ten grey levels: 255^2 MSE / 100
    d_e         255^2 MSE, as in vidlbc.train.objectives.image

With these units beta = 0.01 is a tenth of a bit/pixel at an error of 20 dB, while a nat of d_b is worth 0.03 to 3.
Latents are rounded straight-through, as in the paper, and one model serves all QPs: lambda_b and lambda_e go with QP.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.experiments.scalable.image_stage import Scalable
from vidlbc.train.objectives.image import code

GREY_LEVELS_SQUARED = 100.0
# What g_a learns with where beta is 0: it then reads latents that it does not change.
_WATCHER = 0.01


@dataclass(frozen=True)
class TaskStrength:
    """lambda_b of each QP, log-spaced from `low` at QP 0 to `high` at QP 63. Raises InputError."""

    low: float = 0.03
    high: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise InputError(f"task strength from {self.low} to {self.high}: expected 0 < low <= high")

    def at(self, qp: Tensor) -> Tensor:
        """qp (B,) -> lambda_b (B,)."""
        return self.low * (self.high / self.low) ** (qp.float() / (NUM_QP - 1))


class TaskBase(nn.Module):
    """A stage with a base only, and the head that reads y^_b: what the base's training moves."""

    def __init__(self, stage: Scalable, head: nn.Module):
        super().__init__()
        self.stage, self.head = stage, head


@dataclass(frozen=True)
class BaseLoss:
    """L_b; a batch is clips (B, T, 3, H, W) in [0, 1], labels (B,), qp (B,).

    `head_steps`: so many first steps move the head and the preview only. A fresh head tells the analysis nothing, and
    meanwhile the rate would empty the latents that it is to learn from.
    `balance`: as in vidlbc.train.objectives.image.RateDistortion, on lambda_b.
    """

    beta: float
    strength: TaskStrength
    head_steps: int = 0
    balance: float = 0.35

    def __call__(
        self, module: nn.Module, batch: tuple[Tensor, Tensor, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(module, TaskBase)
        clips, labels, qp = batch
        batch_size, length, _, height, width = clips.shape
        frames = clips.flatten(0, 1)
        together = step >= self.head_steps
        with torch.set_grad_enabled(together):
            coded = code(module.stage, module.stage.analysis(module.stage.pad(frames)), qp.repeat_interleave(length))
        bpp = coded.bits.view(batch_size, length).mean(1) / (height * width)
        logits = module.head(coded.latents[0].unflatten(0, (batch_size, length)))
        nats = F.cross_entropy(logits, labels, reduction="none")
        # With beta = 0 the preview only watches, so that what the base happens to tell of the picture can be measured.
        seen = coded.latents if self.beta and together else [y.detach() for y in coded.latents]
        mse = (module.stage.preview(seen)[..., :height, :width] - frames).square().mean((1, 2, 3))
        error = 255**2 / GREY_LEVELS_SQUARED * mse.view(batch_size, length).mean(1)
        strength = self.strength.at(qp)
        middle = math.sqrt(self.strength.low * self.strength.high)
        terms = strength * nats + bpp + (self.beta or _WATCHER) * error
        loss = (terms * (middle / strength) ** self.balance).mean()
        right = (logits.argmax(1) == labels).float().mean()
        figures = {"bpp": bpp.mean(), "nats": nats.mean(), "top1": right, "preview": -10 * mse.mean().log10()}
        return loss, {name: value.detach() for name, value in figures.items()}


@dataclass(frozen=True)
class EnhancementLoss:
    """L_e; a batch is frames (B, 3, H, W) in [0, 1], qp (B,). The rate is the enhancement's, the base being frozen.

    `whole`: the rate of all levels, for a codec whose every level serves the pictures.
    """

    whole: bool = False
    balance: float = 0.35

    def __call__(self, stage: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(stage, Scalable)
        frames, qp = batch
        height, width = frames.shape[2:]
        coded = code(stage, stage.analysis(stage.pad(frames)), qp)
        decoded = stage.synthesis(coded.latents, qp)[..., :height, :width]
        mse = (decoded - frames).square().mean((1, 2, 3))
        bits = coded.bits if self.whole else torch.stack(coded.level_bits[:2]).sum(0)
        bpp = bits / (height * width)
        weight = qp_lambda(qp)
        middle = qp_lambda(torch.tensor((NUM_QP - 1) / 2))
        loss = ((bpp + weight * 255**2 * mse) * (middle / weight) ** self.balance).mean()
        return loss, {"bpp": bpp.detach().mean(), "psnr": -10 * mse.detach().log10().mean()}
