"""What every image stage is: a frame to integer symbols at several strides, and back.

    frame --pad--> analysis --> y_l --> q_l = round(gain_l[qp] * y_l) ==> coded by *any* prior
    frame <--crop-- synthesis <-- y^_l = q_l / gain_l[qp] <==

The symbols sit on a fixed grid: swapping the prior changes bits, never pixels. Lists are fine to
coarse; tensors (B, C, H, W).
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.prior import topdown
from vidlbc.codec.prior.topdown import NUM_QP, Level

# lambda of the rate-distortion loss  bpp + lambda * 255^2 * MSE,  log-spaced over the QPs (CompressAI's scale:
# its hyperprior models span 0.0018 to 0.18).
LAMBDA_MIN, LAMBDA_MAX = 0.0009, 0.09
QPS_A_FOLD = (NUM_QP - 1) / math.log(LAMBDA_MAX / LAMBDA_MIN)  # QPs more for a lambda e times as large

# Where a video decoder (vidlbc.codec.refinement) looks at the synthesis' features.
FEATURE_STRIDE = 8


def qp_lambda(qp: Tensor) -> Tensor:
    """lambda of each QP in 0..63: higher QP, higher rate."""
    return LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** (qp.float() / (NUM_QP - 1))


class QuantisationGains(nn.Module):
    """Per-QP, per-channel gain of one level, learned as log2 at anchors every 8 QPs."""

    def __init__(self, channels: int):
        super().__init__()
        anchors = torch.linspace(0, NUM_QP, NUM_QP // 8 + 1)
        # At high rate D = step^2/12 per coefficient, and d(bpp + lambda 255^2 D/3)/d(step) = 0 gives this step for
        # orthonormal transforms; training moves each channel from there.
        step = (18 / (qp_lambda(anchors) * 255**2 * math.log(2))).sqrt()
        self.log2_gain = nn.Parameter((-step.log2())[:, None].repeat(1, channels))

    def forward(self, qp: Tensor) -> Tensor:
        """qp (B,) -> log2 gain (B, C)."""
        low = torch.div(qp, 8, rounding_mode="floor")
        weight = ((qp - 8 * low).to(self.log2_gain.dtype) / 8)[:, None]
        return topdown.rows(self.log2_gain, low) * (1 - weight) + topdown.rows(self.log2_gain, low + 1) * weight


class ImageStage(nn.Module):
    """Base of the families. A family sets `levels` and implements `analysis` and `synthesis`.

    `synthesis_modules`: names of the modules that only the synthesis uses; the symbols do not depend on them.
    `base_levels`: how many levels, counted from the coarsest, form a base layer that is coded and decoded without the
    others; 0 where the family has no layers.
    """

    family = ""
    synthesis_modules: tuple[str, ...] = ()
    base_levels = 0
    feature_channels = 3 * FEATURE_STRIDE**2

    def __init__(
        self,
        levels: Sequence[Level],
        prior_widths: Sequence[int],
        prior_blocks: int = 2,
        variants: Mapping[str, Sequence[int]] | None = None,
    ):
        """`variants`: by name, how many channels of each level are kept, fine to coarse (see `truncated`).

        Raises ValueError where a variant does not fit the levels.
        """
        super().__init__()
        self.levels = tuple(levels)
        self.variants = {name: self._variant(name, kept) for name, kept in (variants or {}).items()}
        self.gains = nn.ModuleList([QuantisationGains(level.channels) for level in self.levels])
        self.prior = topdown.TopDownPrior(self.levels, prior_widths, prior_blocks)

    def _variant(self, name: str, kept: Sequence[int]) -> tuple[int, ...]:
        channels = [level.channels for level in self.levels]
        if len(kept) != len(channels) or not all(0 <= k <= c for k, c in zip(kept, channels, strict=True)):
            raise ValueError(f"variant {name} keeps {list(kept)} channels, expected at most {channels}, one a level")
        return tuple(kept)

    @property
    def multiple(self) -> int:
        """Frames are padded to a multiple of this many pixels."""
        return max(level.stride for level in self.levels)

    @abstractmethod
    def analysis(self, x: Tensor) -> list[Tensor]:
        """Padded frames (B, 3, H, W) in [0, 1] -> latents y_l (B, C_l, H/s_l, W/s_l)."""

    @abstractmethod
    def synthesis(self, latents: Sequence[Tensor], qp: Tensor) -> Tensor:
        """Dequantised latents -> padded frames (B, 3, H, W), not clamped; qp (B,)."""

    def synthesis_with_features(self, latents: Sequence[Tensor], qp: Tensor) -> tuple[Tensor, Tensor]:
        """`synthesis`, and what it knows at stride 8, (B, feature_channels, H/8, W/8): by default the frame, folded."""
        x = self.synthesis(latents, qp)
        return x, F.pixel_unshuffle(x - 0.5, FEATURE_STRIDE)

    def start_from(self, pictures: Tensor) -> bool:
        """Before training, set the transforms to one fit for `pictures` (B, 3, H, W) in [0, 1], sides multiples of 32.

        False: the family has no such start, and nothing changed.
        """
        return False

    def pad(self, x: Tensor) -> Tensor:
        """Replicate the last row and column up to the next multiple."""
        height, width = x.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x

    def gains_at(self, qp: Tensor) -> list[topdown.Gains]:
        """Differentiable gains for a batch of QPs, one entry a level."""
        return gains_at(self.gains, qp)


def gains_at(modules: Iterable[nn.Module], qp: Tensor) -> list[topdown.Gains]:
    """Of `QuantisationGains`, one a level, for a batch of QPs."""
    logs = [module(qp) for module in modules]
    return [topdown.Gains(torch.exp2(log2), torch.exp2(-log2), log2) for log2 in logs]


def truncated(x: Tensor, kept: int, dim: int) -> Tensor:
    """The first `kept` channels along `dim`, zeros in place of the others: what the decoder of a variant sees.

    Projections are linear, so zeroed channels are truncated projections (Xie et al., arXiv 2105.13978, section 3.3).
    """
    if kept == x.shape[dim]:
        return x
    rest = torch.zeros_like(x.narrow(dim, kept, x.shape[dim] - kept))
    return torch.cat([x.narrow(dim, 0, kept), rest], dim)


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
