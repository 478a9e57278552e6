"""COCO's run-length masks: runs of 0 and 1 by turns, down the columns; counts as a list or packed into a string."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class RunLengthError(ValueError):
    """Counts that are damaged or do not fill the mask."""


def decode_counts(text: str) -> list[int]:
    """The counts behind COCO's string: six bits a character from '0' on, 5 of value and 1 of 'more follows', the last
    one's top value bit the sign; from the fourth count on, the difference to the one before last."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise RunLengthError(f"character {character!r} in the counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise RunLengthError("the counts end within a number")
    return counts


def fill_runs(counts: Sequence[int], height: int, width: int) -> np.ndarray:
    """bool (height, width). Raises RunLengthError unless the counts add up to its size."""
    runs = np.array(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise RunLengthError(f"counts of {runs.sum()} pixels, expected {height * width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
