"""What of a padded frame is shown. Nothing here decides what decodes.

Frames are padded to a multiple of 32 pixels, and decoders cut what was added: of a picture of 176x144 that is a sixth
of what is coded. No error there costs anything, so an encoder that chooses symbols for rate and distortion spends
nothing on it: of a cell that is shown in part errors count by that part, of one that is not the prior's mean is taken,
and blocks that are not shown are copied. Vectors are searched for as if all were shown: left to themselves there, they
took 8% more bits in all, for what they lead to is what the cells at the edge are predicted from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.bitstream import Header
from vidlbc.codec.coding.priors import Priors
from vidlbc.codec.motion.copies import BLOCK


@dataclass(frozen=True)
class Visible:
    """`pixels`: float (1, H, W), 1 where shown, else 0; `cells`: of each level the share of a cell's pixels that are,
    (1, H_l, W_l, 1); `blocks`: those of 16x16 of which any pixel is, bool (1, H/16, W/16). None where all are."""

    pixels: Tensor | None
    cells: Sequence[Tensor | None]
    blocks: Tensor | None = None

    @classmethod
    def of(cls, priors: Priors, header: Header) -> "Visible":
        padded = priors.padded(header)
        if padded == (header.height, header.width):
            return cls(None, [None] * len(priors.levels))
        pixels = torch.zeros(1, *padded, device=priors.pool.device)
        pixels[:, : header.height, : header.width] = 1
        cells = [F.avg_pool2d(pixels, level.stride)[..., None] for level in priors.levels]
        return cls(pixels, cells, F.max_pool2d(pixels, BLOCK) > 0)
