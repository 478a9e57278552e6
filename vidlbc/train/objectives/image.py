"""The image stage's loss: bpp + lambda * 255^2 * MSE, lambda per QP (Balle et al., arXiv 1802.01436)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidlbc.codec.image_stage.base import ImageStage, channels_first, channels_last, qp_lambda, truncated
from vidlbc.codec.image_stage.blocks import RoundSTE
from vidlbc.codec.prior.topdown import symbol_bits
from vidlbc.run import distributed


@dataclass(frozen=True)
class Coded:
    """What the decoder gets: dequantised latents (B, C_l, H_l, W_l), and estimated bits of each level, (B,) each."""

    latents: list[Tensor]
    level_bits: list[Tensor]

    @property
    def bits(self) -> Tensor:
        """Estimated bits of each frame, (B,)."""
        return torch.stack(self.level_bits).sum(0)


def code(stage: ImageStage, latents: Sequence[Tensor], qp: Tensor, kept: Sequence[int] | None = None) -> Coded:
    """Quantise latents y_l (B, C_l, H_l, W_l) differentiably and estimate their bits under the stage's intra prior.

    Rounded straight-through for the synthesis and as the prior's input; the rate is measured on symbols with uniform
    noise (mixed quantisation, Minnen and Singh, arXiv 2007.08739). `kept`: channels kept of each level (a variant).
    """
    gains = stage.gains_at(qp)
    kept = [level.channels for level in stage.levels] if kept is None else kept
    rounded, noisy = [], []
    for y, g, k in zip(latents, gains, kept, strict=True):
        symbols = channels_last(y.float()) * g.gain[:, None, None]
        noisy.append(symbols + distributed.rand_like(symbols) - 0.5)
        rounded.append(truncated(RoundSTE.apply(symbols) * g.step[:, None, None], k, -1))
    # Under bf16 autocast a mean of 100 would be off by half a symbol: the prior stays in float32.
    with torch.autocast(qp.device.type, enabled=False):
        distributions = stage.prior(rounded, qp, gains)
    bits = [
        symbol_bits(q, distribution)[..., :k].sum((1, 2, 3))
        for q, distribution, k in zip(noisy, distributions, kept, strict=True)
    ]
    return Coded([channels_first(y) for y in rounded], bits)


@dataclass(frozen=True)
class RateDistortion:
    """Called by the loop: bpp + lambda * 255^2 * MSE of `code` and the synthesis.

    `balance`: a sample's loss is multiplied by (lambda_mid / lambda)^balance, so that the highest rates do not take all
    of the gradient; each QP's own optimum is unchanged.
    """

    balance: float = 0.35
    capturable: ClassVar[bool] = True

    def __call__(self, stage: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(stage, ImageStage)
        frames, qp = batch
        coded = code(stage, stage.analysis(stage.pad(frames)), qp)
        bits = coded.bits
        decoded = stage.synthesis(coded.latents, qp)[..., : frames.shape[2], : frames.shape[3]]
        mse = (decoded.float() - frames).square().mean((1, 2, 3))
        bpp = bits / (frames.shape[2] * frames.shape[3])
        weight = qp_lambda(qp)
        middle = qp_lambda(torch.tensor(32.0))
        loss = ((bpp + weight * 255**2 * mse) * (middle / weight) ** self.balance).mean()
        return loss, {"bpp": bpp.detach().mean(), "psnr": -10 * mse.detach().log10().mean()}
