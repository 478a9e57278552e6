"""The image stage's loss: bpp + lambda * 255^2 * MSE, lambda per QP (Balle et al., arXiv 1802.01436)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidlbc.image_stage.base import ImageStage, channels_first, channels_last, qp_lambda
from vidlbc.image_stage.blocks import RoundSTE
from vidlbc.prior.topdown import symbol_bits


@dataclass(frozen=True)
class RateDistortion:
    """Called by the loop. Latents are rounded straight-through for the synthesis and as the prior's input; the rate is
    measured on symbols with uniform noise (mixed quantisation, Minnen and Singh, arXiv 2007.08739).

    `balance`: a sample's loss is multiplied by (lambda_mid / lambda)^balance, so that the highest rates do not take all
    of the gradient; each QP's own optimum is unchanged.
    """

    balance: float = 0.35

    def __call__(self, stage: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(stage, ImageStage)
        frames, qp = batch
        gains = stage.gains_at(qp)
        latents, rounded, bits = stage.analysis(stage.pad(frames)), [], torch.zeros(len(qp), device=frames.device)
        noisy = []
        for y, g in zip(latents, gains, strict=True):
            symbols = channels_last(y.float()) * g.gain[:, None, None]
            noisy.append(symbols + torch.rand_like(symbols) - 0.5)
            rounded.append(RoundSTE.apply(symbols) * g.step[:, None, None])
        # Under bf16 autocast a mean of 100 would be off by half a symbol: the prior stays in float32.
        with torch.autocast(frames.device.type, enabled=False):
            distributions = stage.prior(rounded, qp, gains)
        for q, distribution in zip(noisy, distributions, strict=True):
            bits = bits + symbol_bits(q, distribution).sum((1, 2, 3))
        decoded = stage.synthesis([channels_first(y) for y in rounded], qp)[..., : frames.shape[2], : frames.shape[3]]
        mse = (decoded.float() - frames).square().mean((1, 2, 3))
        bpp = bits / (frames.shape[2] * frames.shape[3])
        weight = qp_lambda(qp)
        middle = qp_lambda(torch.tensor(32.0))
        loss = ((bpp + weight * 255**2 * mse) * (middle / weight) ** self.balance).mean()
        return loss, {"bpp": float(bpp.detach().mean()), "psnr": float(-10 * mse.detach().log10().mean())}
