"""The probability tables are part of the format: the same integers everywhere, and the coder uses exactly them."""

from __future__ import annotations

import hashlib

import constriction
import numpy as np
import pytest

from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.tables import (
    MEAN_STEPS,
    MIN_LOG2_SCALE,
    NUM_FRACTIONS,
    NUM_SCALES,
    SCALE_STEPS,
    TAIL_SHARE,
    TOTAL,
    tables,
)

# SHA-256 of every table's counts, int32 little-endian, one table after another. A change here is a change of format.
COUNTS_SHA256 = "fb007d5e752240a2db610ddfea3d1d44f0c05b7e611a6564881ec2ddfb5cebaf"


def test_counts_are_the_pinned_integers() -> None:
    counts = b"".join(table.counts.astype("<i4").tobytes() for table in tables())
    assert hashlib.sha256(counts).hexdigest() == COUNTS_SHA256


def test_every_table_is_a_full_code() -> None:
    assert len(tables()) == NUM_SCALES * NUM_FRACTIONS == 801
    for table in tables():
        assert len(table.counts) == 2 * table.radius + 2  # -radius..radius and the escape
        assert table.counts.min() >= 1
        assert table.counts.sum() == TOTAL == 2**24


def test_counts_follow_the_logistic_distribution() -> None:
    """Against the formula in floats, heavy tail included: within two counts of rounding, and a part in a thousand."""
    for scale_index in range(0, NUM_SCALES, 11):
        scale = 2.0 ** (scale_index / SCALE_STEPS + MIN_LOG2_SCALE)
        for fraction in range(NUM_FRACTIONS):
            table = tables()[scale_index * NUM_FRACTIONS + fraction]
            residual = np.arange(-table.radius, table.radius + 1) - fraction / MEAN_STEPS
            # tanh keeps its precision in both tails.
            mass = (np.tanh((residual + 0.5) / (2 * scale)) - np.tanh((residual - 0.5) / (2 * scale))) / 2
            distance = np.abs(np.arange(-table.radius, table.radius + 1))
            tail = 1 / (1.0 + distance) ** 2
            mass = (1 - TAIL_SHARE) * mass + TAIL_SHARE * tail / (tail.sum() + 1 / (1 + table.radius))
            off = np.abs(table.counts[:-1] - mass * TOTAL)
            off[table.radius] = 0  # takes the remainder
            assert np.all(off <= 2 + 1e-3 * mass * TOTAL)


def test_escapes_are_rare_under_the_right_model() -> None:
    """A radius reaches tails of 2^-20 each, so that escapes cost nothing where the model fits."""
    for table in tables():
        assert table.counts[-1] / TOTAL < 2**-18


def _decode_one(point: int, model: object) -> int:
    """The symbol that a fresh decoder gives when its first two words hold `point`."""
    words = np.array([point >> 32, point & 0xFFFFFFFF], dtype=np.uint32)
    return int(constriction.stream.queue.RangeDecoder(words).decode(model))


@pytest.mark.slow
def test_the_coder_uses_exactly_these_counts() -> None:
    """Every boundary of every table, probed in the coder itself.

    A fresh decoder has lower = 0 and range = 2^64 - 1, so its quantile is point // scale with scale = (2^64 - 1) >> 24:
    entry k must start at point = scale * cumulative(k), and not one point earlier.
    """
    scale = (2**64 - 1) >> 24
    for index, table in enumerate(tables()):
        model, starts = coder._models()[index], np.cumsum(table.counts) - table.counts
        for entry in range(len(starts)):
            point = int(starts[entry]) * scale
            assert _decode_one(point, model) == entry, (index, entry)
            if entry:
                assert _decode_one(point - 1, model) == entry - 1, (index, entry)
        assert _decode_one(TOTAL * scale - 1, model) == len(starts) - 1


def test_plain_symbols_are_sixteen_equal_bits() -> None:
    scale = (2**64 - 1) >> 24
    for value in (0, 1, 255, 32767, 32768, 65535):
        assert _decode_one(value * 256 * scale, coder._plain_model()) == value
        assert _decode_one((value + 1) * 256 * scale - 1, coder._plain_model()) == value


def test_rounding_the_scale_costs_little() -> None:
    """Eight scales an octave: what the rounding costs, as a share of the bits, is as said in tables.py."""
    x = np.arange(-4000, 4001)

    def logistic(scale: float) -> np.ndarray:
        return (np.tanh((x + 0.5) / (2 * scale)) - np.tanh((x - 0.5) / (2 * scale))) / 2

    for log2_scale, allowed in ((-3, 0.0014), (0, 0.0003), (4, 0.0002)):
        true = logistic(2.0**log2_scale)
        used = true > 1e-12
        bits = [
            -(true[used] * np.log2(np.maximum(logistic(2.0 ** (log2_scale + off))[used], 2.0**-24))).sum()
            for off in np.linspace(-1 / 16, 1 / 16, 9)
        ]
        assert 0 <= np.mean(bits) / bits[4] - 1 < allowed
