"""One model for all rates against one for each: how the difference is read off a curve."""

import numpy as np
import pytest

from vidlbc.experiments.rates.study import excess, neighbours


def test_the_excess_at_equal_quality_is_that_of_the_curve():
    qualities = np.array([28.0, 30.0, 32.0, 34.0, 36.0])
    rates = 0.1 * 2 ** ((qualities - 28) / 4)
    assert excess(rates, qualities, 0.1 * 2 ** (3.3 / 4), 31.3) == pytest.approx(0, abs=1e-9)
    assert excess(rates[::-1], qualities[::-1], 0.1 * 2 ** (3.3 / 4) / 1.02, 31.3) == pytest.approx(2)


def test_no_figure_is_given_where_the_curve_does_not_reach_or_turns():
    assert excess([0.1, 0.2], [28, 30], 0.3, 31) is None
    assert excess([0.1, 0.2, 0.3], [28, 30, 30], 0.3, 29) is None


@pytest.mark.parametrize("qp", [0, 16, 63])
def test_neighbours_are_qps_and_hold_their_own(qp):
    found = neighbours(qp)
    assert qp in found and len(found) >= 3 and all(0 <= n <= 63 for n in found)
