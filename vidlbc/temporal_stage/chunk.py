"""Kind `chunk`: eight frames' latents become one chunk latent, which is quantised and coded given the chunk before.

    latents of 8 frames --ChunkTransform--> c --gains--> symbols --prior(chunk before)--> bits
    latents of 8 frames <--ChunkTransform-- c^ <---------symbols

Unlike the other kinds it is lossy: pictures are not those of the image stage, since what the frames do not share is
quantised as well. To its entropy model a chunk is what a frame is to the other kinds: levels at the working strides,
coded coarse to fine by the transformer prior, given the chunk before (`context` of them); so symbols are as exact and
portable, eight frames a pass. A first chunk is coded from the null state, or by the same network without the past.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from vidlbc.image_stage.base import QuantisationGains, gains_at
from vidlbc.prior.topdown import Gains, Level, TopDownPrior
from vidlbc.temporal_stage.chunk_transform import ChunkTransform
from vidlbc.temporal_stage.transformer import TransformerPrior

# Chunk latents of the coarsest stride reach some 60; priors look at less than 16.
_COARSE_VIEW_BITS = 3


class ChunkStage(nn.Module):
    """What an image stage is to the other kinds' codec, one step further: levels, gains, transform, prior."""

    kind = "chunk"
    base_levels = 0

    def __init__(
        self,
        levels: Sequence[Level],
        frames: int = 8,
        channels: Sequence[int] = (192, 288, 384),
        widths: Sequence[int] = (64, 96, 128),
        blocks: int = 2,
        prior_widths: Sequence[int] = (96, 128, 160),
        prior_blocks: int = 2,
        context: int = 1,
        margin: int = 4,
    ):
        """`levels`: of the image stage. The three sequences have an entry for each of its working strides, fine to
        coarse; `channels` are those of the chunk latent. Raises ValueError, InputError where they cannot be.
        """
        super().__init__()
        self.transform = ChunkTransform(levels, frames, channels, widths, blocks)
        strides = self.transform.strides
        coarsest = strides[-1]
        bits = [_COARSE_VIEW_BITS if stride == coarsest else 0 for stride in strides]
        self.levels = tuple(Level(s, c, b) for s, c, b in zip(strides, channels, bits, strict=True))
        self.frames, self.multiple = frames, max(level.stride for level in levels)
        self.variants: dict[str, tuple[int, ...]] = {}
        self.gains = nn.ModuleList([QuantisationGains(c) for c in channels])
        self.temporal = TransformerPrior(self.levels, prior_widths, prior_blocks, context=context, margin=margin)

    @property
    def prior(self) -> TopDownPrior:
        """What codes a chunk that the past says nothing about: the same network, without the past."""
        return self.temporal.trunk

    def gains_at(self, qp: Tensor) -> list[Gains]:
        """Differentiable gains for a batch of QPs, one entry a level."""
        return gains_at(self.gains, qp)
