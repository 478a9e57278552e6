"""Vectors for rate and distortion: what a search found, weighed by what each vector truly takes (rate-constrained
motion estimation; Sullivan and Wiegand, 1998). Nothing here decides what decodes.

    the first guess, the second, the vector found  --sums of differences + price * bits of the prior--> vector
    parts of 8x8 likewise, where together with their flag they are cheaper than the block's own vector

A search sees what neighbours have; the prior sees more, and its first guess is all but free where a picture moves as a
whole. So they are chosen while they are coded, pass by pass, each block given what was chosen before. Estimated bits
alone cost 4 points of BD-rate against x265 on eight validation clips.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.motion.field import BLOCK, commonest
from vidlbc.codec.motion.prior import Asked
from vidlbc.codec.motion.search import Blocks, price_of_bits
from vidlbc.codec.prior.topdown import symbol_bits
from vidlbc.codec.traced import Traced


class Cheapest:
    """For VectorPrior.walk: a field that takes fewer bits than the one found (vidlbc.codec.motion.prior.Wanted)."""

    def __init__(self, qp: Tensor, found: Tensor, blocks: Mapping[int, Blocks]):
        """qp (B,); found int32 (B, H/8, W/8, 2); `blocks`: of the frames and their references (search.blocks_of)."""
        self._price, self._blocks = price_of_bits(qp)[:, None, None], blocks
        self._parts, self._whole = found.flatten(1, 2), commonest(found).flatten(1, 2)

    def large(self, here: Tensor, guess: Sequence[Tensor], asked: Asked, size: tuple[int, int]) -> Tensor:
        options = torch.stack([guess[0], guess[1], self._whole[:, here]], 2)
        everywhere = torch.zeros_like(self._whole)[:, :, None].repeat(1, 1, options.shape[2], 1)
        differences = self._differences(2 * BLOCK, everywhere.index_copy(1, here, options), size)[:, here]
        return _pick(options, (differences + self._price * self._bits(asked, guess, options)).argmin(-1))

    def parts(self, large: Tensor, of_split: Asked, guess: Sequence[Tensor], asked: Asked) -> tuple[Tensor, Tensor]:
        rows, columns = large.shape[1:3]
        options = torch.stack([guess[0], guess[1], self._parts], 2)
        differences = self._differences(BLOCK, options, (2 * rows, 2 * columns))
        cost, best = (differences + self._price * self._bits(asked, guess, options)).min(-1)
        apart, together = (self._price * _symbol_bits(of_split[:2], 0, flag) for flag in (1, 0))
        # The first guess of a part is its block's own vector.
        whole = _of_four(differences[..., 0], rows, columns)
        split = _of_four(cost, rows, columns) + apart < whole + together
        return split[..., 0].int(), _pick(options, best)

    def _bits(self, asked: Asked, guess: Sequence[Tensor], options: Tensor) -> Tensor:
        bits: Tensor = _bits(options.device)(asked.mean, asked.log2_scale, *guess, options)
        return bits

    def _differences(self, side: int, options: Tensor, size: tuple[int, int]) -> Tensor:
        """Of vectors (B, h*w, K, 2) of all blocks, (B, h*w, K)."""
        return self._blocks[side].differences(options.unflatten(1, size)).flatten(1, 2)


@cache
def _bits(device: torch.device) -> Traced:
    """`_vector_bits` as graphs, which belong to one device."""
    return Traced(_vector_bits)


def _vector_bits(
    mean: Tensor, log2_scale: Tensor, first: Tensor, second: Tensor, differs: Tensor, options: Tensor
) -> Tensor:
    """What vectors (B, n, K, 2) take, (B, n, K), as VectorPrior.walk codes them."""
    asked = mean, log2_scale
    first, second, differs = first[:, :, None], second[:, :, None], differs[:, :, None]
    down, right = (options - first).unbind(-1)
    as_first = (options == first).all(-1)
    as_second = (options == second).all(-1) & differs
    neither = _symbol_bits(asked, 2, down) + _symbol_bits(asked, 3, right)
    neither = neither + torch.where(differs, _symbol_bits(asked, 1, 1), 0.0)
    other = _symbol_bits(asked, 0, 1) + torch.where(as_second, _symbol_bits(asked, 1, 0), neither)
    return torch.where(as_first, _symbol_bits(asked, 0, 0), other)


def _symbol_bits(asked: tuple[Tensor, Tensor], kind: int, value: Tensor | int) -> Tensor:
    """Of symbols (B, n, K) of one kind of each block, K = 1 for a number."""
    mean, log2_scale = asked[0][..., kind, None], asked[1][..., kind, None]
    symbol = torch.full_like(mean, value) if isinstance(value, int) else value.float()
    return symbol_bits(symbol, Distribution(mean, log2_scale))


def _pick(options: Tensor, index: Tensor) -> Tensor:
    return options.gather(2, index[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]


def _of_four(x: Tensor, rows: int, columns: int) -> Tensor:
    """Sums of a map (B, 4n) of parts over each block, (B, n, 1)."""
    return x.view(-1, rows, 2, columns, 2).sum((2, 4)).flatten(1)[..., None]
