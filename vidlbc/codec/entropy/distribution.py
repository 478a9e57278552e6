"""What a prior says of symbols, and the range coder codes them under."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Distribution:
    """Logistic distribution of every symbol of one level: mean and log2(scale), (B, H_l, W_l, C_l), in symbol units."""

    mean: Tensor
    log2_scale: Tensor
