"""Where the bits of a bitstream go, over time, levels and the picture: those of the file itself, not an estimate."""

from dataclasses import dataclass

import numpy as np

from vidlbc.bitstream import inspect
from vidlbc.codec import Codec

CELL = 8  # pixels a side


@dataclass(frozen=True)
class BitMaps:
    """Bits of the symbols of one bitstream. Both arrays have the same sum.

    `levels` (T, levels), fine to coarse. `cells` (T, rows, columns): of `CELL` x `CELL` pixels, coarse levels being
    spread evenly over the pixels that they stand for; of the padded frame, since its margin costs bits too. Where
    several frames are coded at once, each takes an equal share. `other`: bits of header, checksums and coder's ends.
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
    unit, strides = codec.unit, tuple(stride for stride, _ in info.levels)
    maps = [np.stack(level) for level in found]
    levels = np.stack([_per_frame(level.sum((1, 2)), unit, info.frames) for level in maps], 1)
    cells = np.sum([_cells(level, stride) for level, stride in zip(maps, strides, strict=True)], 0)
    other = 8 * len(data) - float(levels.sum())
    return BitMaps(levels, _per_frame(cells, unit, info.frames), strides, info.height, info.width, other)


def _per_frame(units: np.ndarray, size: int, frames: int) -> np.ndarray:
    """(U, ...) of units of `size` frames, the last one maybe shorter -> (T, ...), a unit's bits shared out evenly."""
    counts = [min(size, frames - start) for start in range(0, frames, size)]
    shares = units / np.array(counts).reshape(-1, *[1] * (units.ndim - 1))
    return np.repeat(shares, counts, axis=0)


def _cells(bits: np.ndarray, stride: int) -> np.ndarray:
    """(U, H_l, W_l) -> (U, rows, columns)."""
    if stride > CELL:
        ratio = stride // CELL
        return bits.repeat(ratio, 1).repeat(ratio, 2) / ratio**2
    ratio = CELL // stride
    units, rows, columns = bits.shape
    return bits.reshape(units, rows // ratio, ratio, columns // ratio, ratio).sum((2, 4))
