"""Degradations of frames: Gaussian blur, Gaussian noise, grey (Xie et al., section 3.3).

As augmentation the degraded frame is also what is to be decoded. With `recover` the encoder sees the degraded frame
and the target is the clean one: pretraining as recovery from degradation (Wang, "Research proposal towards efficient
visual representation learning", section 3.2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.errors import InputError


@dataclass(frozen=True)
class Degradation:
    """`blur`: largest deviation of the kernel in pixels; `noise`: largest deviation, of values in [0, 1]; `grey`,
    `share`: probability that a degraded frame turns grey, that a frame is degraded at all."""

    blur: float = 1.5
    noise: float = 0.08
    grey: float = 0.2
    share: float = 0.3
    recover: bool = False

    def __post_init__(self) -> None:
        for name in ("blur", "noise"):
            if getattr(self, name) < 0:
                raise InputError(f"degradation.{name}={getattr(self, name)}: expected at least 0")
        for name in ("grey", "share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"degradation.{name}={getattr(self, name)}: expected a probability, 0 to 1")

    def __call__(self, x: Tensor, seed: int, share: float | None = None) -> Tensor:
        """Frames (B, 3, H, W) in [0, 1] -> degraded ones; a function of the frames and the seed alone.

        `share` in place of the one set; 1 for the views that contrastive learning compares.
        """
        generator = torch.Generator().manual_seed(seed)
        draw = torch.rand(len(x), 4, generator=generator).to(x)
        grain = torch.randn(x.shape, generator=generator).to(x)
        chosen = draw[:, 0] < (self.share if share is None else share)
        out = _blurred(x, self.blur * draw[:, 1]) if self.blur > 0 else x
        grey = out.mean(1, keepdim=True).expand_as(out)
        out = torch.where((draw[:, 2] < self.grey)[:, None, None, None], grey, out)
        out = (out + grain * (self.noise * draw[:, 3])[:, None, None, None]).clamp(0, 1)
        return torch.where(chosen[:, None, None, None], out, x)


def _blurred(x: Tensor, deviation: Tensor) -> Tensor:
    """A Gaussian of its own width for each frame: (B, 3, H, W), (B,) in pixels."""
    # Ramps up from a kernel that is one pixel: 0.1 leaves e^-50 of the neighbours.
    deviation = deviation.clamp_min(0.1)
    radius = min(max(1, int(3 * float(deviation.max()) + 0.5)), min(x.shape[-2:]) - 1)
    places = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (places / deviation[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)
    planes = x.flatten(0, 1)[None]
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None], groups=len(kernel))
    planes = F.pad(planes, (0, 0, radius, radius), mode="reflect")
    return F.conv2d(planes, kernel[:, None, :, None], groups=len(kernel))[0].view_as(x)
