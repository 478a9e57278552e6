"""Where the bits of a bitstream go, over time, levels and the picture: those of the file itself, not an estimate."""

from dataclasses import dataclass

import numpy as np
from einops import reduce

from vidlbc.codec.bitstream import inspect
from vidlbc.codec.codec import Codec

CELL = 8  # pixels a side


@dataclass(frozen=True)
class BitMaps:
    """Bits of the symbols of one bitstream. Both arrays have the same sum.

    `levels` (T, levels), fine to coarse. `cells` (T, rows, columns): of `CELL` x `CELL` pixels, coarse levels being
    spread evenly over the pixels that they stand for; of the padded frame, since its margin costs bits too. `other`:
    bits of header, checksums and coder's ends.
    """

    levels: np.ndarray
    cells: np.ndarray
    strides: tuple[int, ...]
    height: int
    width: int
    other: float

    @property
    def frames(self) -> np.ndarray:
        """(T,)"""
        return self.levels.sum(1)

    @property
    def shown(self) -> np.ndarray:
        """The cells that hold some of the true frame, (T, ceil(height / CELL), ceil(width / CELL))."""
        return self.cells[:, : -(-self.height // CELL), : -(-self.width // CELL)]


def bit_maps(codec: Codec, data: bytes) -> BitMaps:
    """Decodes `data` and counts what each symbol took under the prior that the file says coded it.

    Symbols and `other` add up to the file, 8 * len(data): the range coder adds under 8 bytes a packet to its symbols'
    ideal code lengths, a header some 40 bytes, a packet of 16 frames some 30. Raises BitstreamError, WeightsMismatch.
    """
    info = inspect(data)
    found: list[list[np.ndarray]] = [[] for _ in info.levels]
    codec.code_lengths(data, lambda index, bits: found[index].append(bits.double().sum(2).numpy()))
    strides = tuple(stride for stride, _ in info.levels)
    maps = [np.stack(level) for level in found]
    levels = np.stack([level.sum((1, 2)) for level in maps], 1)
    cells = np.sum([_cells(level, stride) for level, stride in zip(maps, strides, strict=True)], 0)
    other = 8 * len(data) - float(levels.sum())
    return BitMaps(levels, cells, strides, info.height, info.width, other)


def _cells(bits: np.ndarray, stride: int) -> np.ndarray:
    """(T, H_l, W_l) -> (T, rows, columns)."""
    if stride > CELL:
        ratio = stride // CELL
        return bits.repeat(ratio, 1).repeat(ratio, 2) / ratio**2
    ratio = CELL // stride
    summed: np.ndarray = reduce(bits, "t (y r) (x s) -> t y x", "sum", r=ratio, s=ratio)
    return summed
