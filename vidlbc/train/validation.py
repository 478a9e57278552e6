"""Validation beside a training, in the process and on its device: estimated bits of real symbols, no file.

What is shipped is measured from true sizes at the end (vidlbc.train.image_validation, the main job); this is what a
run is watched by, and what chooses between two.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidlbc.codec.image_stage.base import ImageStage, channels_first, channels_last, qp_lambda
from vidlbc.codec.prior.topdown import symbol_bits

_BATCH = 4


class PictureValidation:
    """`validation(stage)` -> {"cost": ..., "qp8": {"bpp": ..., "psnr": ...}, ...}: means over whole pictures.

    `cost`: mean over pictures and QPs of ln(bpp + lambda 255^2 MSE), so that a difference of 0.01 is one of 1% of the
    rate-distortion cost, whichever the rate.
    """

    def __init__(self, pictures: Sequence[np.ndarray], qps: Sequence[int]):
        """`pictures`: uint8 (H, W, 3) of any sizes; those of one size go through the networks together."""
        self.qps = tuple(qps)
        sizes: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for picture in pictures:
            sizes[picture.shape].append(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1))
        starts = [(same, first) for same in sizes.values() for first in range(0, len(same), _BATCH)]
        self._batches = [torch.stack(same[first : first + _BATCH]) for same, first in starts]

    def __call__(self, stage: nn.Module) -> dict[str, Any]:
        assert isinstance(stage, ImageStage)
        device = next(stage.parameters()).device
        rows: dict[int, list[Tensor]] = {qp: [] for qp in self.qps}
        for batch in self._batches:
            frames = batch.to(device).float() / 255
            latents = stage.analysis(stage.pad(frames).contiguous(memory_format=torch.channels_last))
            for qp in self.qps:
                rows[qp].append(_rate_and_error(stage, frames, latents, qp).cpu())
        found: dict[str, Any] = {}
        costs = []
        for qp in self.qps:
            bpp, mse = torch.cat(rows[qp], 1)
            costs.append((bpp + qp_lambda(torch.tensor(qp)) * 255**2 * mse).log().mean())
            found[f"qp{qp}"] = {"bpp": round(float(bpp.mean()), 5), "psnr": round(float(-10 * mse.log10().mean()), 4)}
        return {"cost": round(float(torch.stack(costs).mean()), 5), **found}


def _rate_and_error(stage: ImageStage, frames: Tensor, latents: Sequence[Tensor], qp: int) -> Tensor:
    """(2, B): bits a pixel and mean squared error of 8-bit pictures."""
    qps = torch.full((len(frames),), qp, device=frames.device)
    gains = stage.gains_at(qps)
    symbols = [(channels_last(y.float()) * g.gain[:, None, None]).round() for y, g in zip(latents, gains, strict=True)]
    decoded = [q * g.step[:, None, None] for q, g in zip(symbols, gains, strict=True)]
    bits = [symbol_bits(q, d).sum((1, 2, 3)) for q, d in zip(symbols, stage.prior(decoded, qps, gains), strict=True)]
    height, width = frames.shape[-2:]
    seen = stage.synthesis([channels_first(y) for y in decoded], qps)[..., :height, :width].float()
    mse = ((seen.clamp(0, 1) * 255).round() / 255 - frames).square().mean((1, 2, 3))
    return torch.stack([torch.stack(bits).sum(0) / (height * width), mse])


class ClipRate(Protocol):
    """What a temporal stage is trained by."""

    def bpp(self, temporal: nn.Module, frames: Tensor, qp: Tensor) -> Tensor:
        """Estimated bits a pixel of frames, (B, n), of clips uint8 (B, T, 3, H, W) at qp (B,)."""
        ...


class ClipValidation:
    """`validation(temporal)` -> {"bpp": ..., "qp8": ..., ...}: estimated bits a pixel of whole clips; `bpp` is their
    geometric mean over the QPs."""

    def __init__(self, rate: ClipRate, clips: Sequence[np.ndarray], qps: Sequence[int]):
        """`clips`: uint8 (T, H, W, 3) of any sizes."""
        self.rate, self.qps = rate, tuple(qps)
        self._clips = [torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)[None] for clip in clips]

    def __call__(self, temporal: nn.Module) -> Mapping[str, Any]:
        device = next(temporal.parameters()).device
        means = {}
        for qp in self.qps:
            at = torch.tensor([qp], device=device)
            rates = [self.rate.bpp(temporal, clip.to(device), at).mean() for clip in self._clips]
            means[qp] = float(torch.stack(rates).mean())
        overall = float(np.exp(np.mean(np.log(list(means.values())))))
        return {"bpp": round(overall, 5), **{f"qp{qp}": round(rate, 5) for qp, rate in means.items()}}
