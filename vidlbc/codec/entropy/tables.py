"""Integer probability tables of the discretised logistic distribution: part of the bitstream format.

A symbol q with mean m and scale s is coded as r = q - n with m = n + f/16, n integer, f in -8..8, under the table of
(scale index, |f|); for negative f the sign of r is flipped. Scale index i stands for s = 2^(i/8 - 5), i = 0..88.

    P(r) = (1 - e) (F((r + 1/2 - f/16) / s) - F((r - 1/2 - f/16) / s)) + e T(r)
    F(x) = 1 / (1 + exp(-x)),   e = 2^-14

T is a heavy tail, T(r) ~ 1 / (1 + |r|)^2 and 1 / (1 + R) for the escape: a network that is sure that nothing moves is
wrong now and then, and such a symbol would cost 24 to 40 bits without it (4% of the file of a clip with little motion).
A table holds r = -R..R, then one escape entry for everything beyond, as integer counts that sum to 2^24. They are
computed in decimal arithmetic (correctly rounded by specification), so every platform gets the same integers; a golden
test pins their checksum.
"""

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import cache

import numpy as np

SCALE_STEPS = 8  # per octave; rounding to it costs 0.03% of the bits at scale 1, 0.13% at scale 1/8, on average
MIN_LOG2_SCALE, MAX_LOG2_SCALE = -5, 6
NUM_SCALES = (MAX_LOG2_SCALE - MIN_LOG2_SCALE) * SCALE_STEPS + 1
MEAN_STEPS = 16
NUM_FRACTIONS = MEAN_STEPS // 2 + 1
PRECISION = 24
TOTAL = 1 << PRECISION
TAIL_SHARE = 2.0**-14
_MIN_RADIUS = 64
_TAIL = Decimal(2) ** -20


@dataclass(frozen=True)
class Table:
    """Counts of r = -radius..radius, then the escape; they sum to 2^24."""

    radius: int
    counts: np.ndarray


@cache
def tables() -> tuple[Table, ...]:
    """All tables, index scale_index * NUM_FRACTIONS + |f|. About half a second, once a process."""
    with localcontext(Context(prec=28)):
        return tuple(
            table
            for index in range(NUM_SCALES)
            for table in _tables_of_scale(Decimal(index) / SCALE_STEPS + MIN_LOG2_SCALE)
        )


def _tables_of_scale(log2_scale: Decimal) -> list[Table]:
    scale = Decimal(2) ** log2_scale
    radius = max(_MIN_RADIUS, int((scale * -_TAIL.ln()).to_integral_value(rounding="ROUND_CEILING")))
    # F at every multiple of 1/16 that any fraction needs: x = k/16, k = 0..16 * (radius + 1).
    step = (Decimal(-1) / (MEAN_STEPS * scale)).exp()
    upper, power = [], Decimal(1)
    for _ in range(MEAN_STEPS * (radius + 1) + 1):
        upper.append(1 / (1 + power))
        power *= step

    def cumulative(eighths: int) -> Decimal:
        return upper[eighths] if eighths >= 0 else 1 - upper[-eighths]

    share, tail = Decimal(TAIL_SHARE), _heavy_tail(radius)
    out = []
    for fraction in range(NUM_FRACTIONS):
        edges = [cumulative(MEAN_STEPS * r - MEAN_STEPS // 2 - fraction) for r in range(-radius, radius + 2)]
        mass = [b - a for a, b in zip(edges[:-1], edges[1:], strict=True)]
        mass.append(1 - (edges[-1] - edges[0]))
        mass = [(1 - share) * m + share * t for m, t in zip(mass, tail, strict=True)]
        # One count each is reserved, so that every entry can be coded; the rest is shared out in proportion.
        free = TOTAL - len(mass)
        counts = np.array([1 + int(m * free) for m in mass], dtype=np.int64)
        counts[radius] += TOTAL - counts.sum()  # the remainder goes to r = 0
        out.append(Table(radius, counts))
    return out


def _heavy_tail(radius: int) -> list[Decimal]:
    """T of r = -radius..radius and of the escape."""
    weights = [1 / Decimal((1 + abs(r)) ** 2) for r in range(-radius, radius + 1)] + [1 / Decimal(1 + radius)]
    total = sum(weights)
    return [weight / total for weight in weights]
