"""Family `lbc`, learning by compression (Xie et al., arXiv 2105.13978, Figure 2 and section 3.1).

    x_0 --f_1--> x_1 (stride 4) --f_2--> x_2 (8) --f_3--> x_3 (16) --f_4--> x_4 (32)
                  |f'_1                |f'_2              |f'_3             |f'_4      one 1x1 layer each
                 y_1                  y_2                y_3               y_4
                  |g'_1                |g'_2              |g'_3             |g'_4
    x' <--g_1--  x'_1   <--g_2+--     x'_2   <--g_3+--   x'_3  <--g_4+--   x'_4

    x_l = f_l(x_{l-1}),  y_l = f'_l(x_l),  x'_L = g'_L(z_L),  x'_l = g'_l(z_l) + g_{l+1}(x'_{l+1}),  x' = g_1(x'_1)

Most layers work at stride 8 and coarser. Resampling is (un)shuffling with 1x1 layers, set before training to an
orthonormal transform of real pictures (vidlbc.codec.image_stage.klt), so that training starts from a working transform
codec.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.base import FEATURE_STRIDE, ImageStage
from vidlbc.codec.image_stage.blocks import stack
from vidlbc.codec.image_stage.klt import initialise
from vidlbc.codec.prior.topdown import Level, QPTable

STRIDES = (4, 8, 16, 32)


class LBC(ImageStage):
    """Defaults: the shipped `default` codec."""

    family = "lbc"
    synthesis_modules = ("lift", "decode", "up", "modulate")

    def __init__(
        self,
        channels: Sequence[int] = (2, 40, 48, 64),
        widths: Sequence[int] = (48, 128, 192, 256),
        encoder_blocks: Sequence[int] = (1, 3, 3, 2),
        decoder_blocks: Sequence[int] = (2, 4, 3, 2),
        block: str | Sequence[str] = "depthwise",
        prior_widths: Sequence[int] = (64, 96, 128),
        prior_blocks: int = 2,
        variants: Mapping[str, Sequence[int]] | None = None,
        base_levels: int = 0,
        tail_block: str = "residual_gdn",
        encoder_tail: Sequence[int] = (0, 0, 0, 0),
        decoder_tail: Sequence[int] = (0, 0, 0, 0),
    ):
        """Each sequence is fine to coarse (strides 4, 8, 16, 32); `prior_widths` for working strides 8, 16, 32.

        `block`: a name of vidlbc.codec.image_stage.blocks, or one for each stride.
        `variants`: truncations by name, as V1, V2 and V3 of Table 1; they need training with them. `base_levels`: so
        many of the coarsest levels come first in a bitstream and decode without the others. The tails: so many blocks
        of another kind follow those of `block` at each stride; fresh ones change nothing, so that a trained stage may
        be given some.
        """
        kinds = (block,) * len(STRIDES) if isinstance(block, str) else tuple(block)
        for name, sizes in {
            "block": kinds,
            "channels": channels,
            "widths": widths,
            "encoder_blocks": encoder_blocks,
            "decoder_blocks": decoder_blocks,
            "encoder_tail": encoder_tail,
            "decoder_tail": decoder_tail,
        }.items():
            if len(sizes) != len(STRIDES):
                raise ValueError(f"{name} has {len(sizes)} entries, expected one for each of strides 4, 8, 16, 32")
        levels = [Level(s, c) for s, c in zip(STRIDES, channels, strict=True)]
        super().__init__(levels, prior_widths, prior_blocks, variants)
        if not 0 <= base_levels < len(levels):
            raise ValueError(f"base_levels is {base_levels}, expected 0 to {len(levels) - 1}")
        self.base_levels = base_levels
        self.widths = tuple(widths)
        inputs = [3 * 16, *[4 * w for w in widths[:-1]]]
        self.down = nn.ModuleList([nn.Conv2d(i, w, 1) for i, w in zip(inputs, widths, strict=True)])

        def blocks(counts: Sequence[int], tails: Sequence[int]) -> nn.ModuleList:
            sizes = zip(kinds, widths, counts, tails, strict=True)
            return nn.ModuleList([nn.Sequential(*stack(k, w, n), *stack(tail_block, w, m)) for k, w, n, m in sizes])

        self.encode = blocks(encoder_blocks, encoder_tail)
        self.project = nn.ModuleList([nn.Conv2d(w, c, 1) for w, c in zip(widths, channels, strict=True)])
        self.lift = nn.ModuleList([nn.Conv2d(c, w, 1) for w, c in zip(widths, channels, strict=True)])
        self.decode = blocks(decoder_blocks, decoder_tail)
        self.up = nn.ModuleList([nn.Conv2d(w, i, 1) for i, w in zip(inputs, widths, strict=True)])
        self.modulate = nn.ModuleList([QPTable(w) for w in widths])
        self.feature_channels = widths[STRIDES.index(FEATURE_STRIDE)]

    def start_from(self, pictures: Tensor) -> bool:
        initialise(self, pictures)
        return True

    def analysis(self, x: Tensor) -> list[Tensor]:
        return self.projected(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """x_l = f_l(x_{l-1}): padded frames (B, 3, H, W) in [0, 1] -> (B, width_l, H/s_l, W/s_l), fine to coarse.

        What classification and dense prediction inherit (section 3.4 of the paper).
        """
        x = F.pixel_unshuffle(x - 0.5, 4)
        out = []
        for index in range(len(self.levels)):
            x = self.encode[index](self.down[index](x if index == 0 else F.pixel_unshuffle(x, 2)))
            out.append(x)
        return out

    def projected(self, features: Sequence[Tensor]) -> list[Tensor]:
        """y_l = f'_l(x_l) of `features`."""
        return [project(x) for project, x in zip(self.project, features, strict=True)]

    def synthesis(self, latents: Sequence[Tensor], qp: Tensor) -> Tensor:
        return self.synthesis_with_features(latents, qp)[0]

    def synthesis_with_features(self, latents: Sequence[Tensor], qp: Tensor) -> tuple[Tensor, Tensor]:
        x: Tensor | None = None
        features: Tensor | None = None
        for index in reversed(range(len(self.levels))):
            lifted = self.lift[index](latents[index])
            x = lifted if x is None else lifted + x
            # A scale per channel and QP: how far to trust a coefficient depends on how coarsely it was quantised.
            x = x * (1 + self.modulate[index](qp)[:, :, None, None])
            x = self.decode[index](x)
            if STRIDES[index] == FEATURE_STRIDE:
                features = x
            x = F.pixel_shuffle(self.up[index](x), 4 if index == 0 else 2)
        assert x is not None and features is not None
        return x + 0.5, features
