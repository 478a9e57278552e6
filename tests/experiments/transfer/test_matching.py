"""Boundary scores: what is matched, what is not, and how predictions are thinned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidlbc.experiments.transfer.matching import THRESHOLDS, boundary_score, f_measure, match_counts, thin

SHAPE = (240, 320)  # diagonal 400: pixels up to 3 apart match


def line(column: int, value: float = 1.0, rows: slice = slice(None)) -> np.ndarray:
    out = np.zeros(SHAPE, np.float32)
    out[rows, column] = value
    return out


def score(prediction, truth):
    return boundary_score([match_counts(prediction, truth)])


@pytest.mark.parametrize("shift, ods", [(0, 1.0), (3, 1.0), (-3, 1.0), (4, 0.0), (-4, 0.0)])
def test_pixels_match_within_the_tolerance(shift, ods):
    found = score(line(100 + shift), line(100))
    assert found.ods == pytest.approx(ods) and found.ois == pytest.approx(ods)


def test_the_distance_is_a_disc_and_not_a_square():
    truth = np.zeros(SHAPE, np.float32)
    truth[50, 50] = 1
    for (dy, dx), matched in {(2, 2): 1, (3, 0): 1, (3, 1): 0, (3, 3): 0, (-2, 2): 1, (0, -3): 1, (-3, -1): 0}.items():
        found = np.zeros(SHAPE, np.float32)
        found[50 + dy, 50 + dx] = 1
        counts = match_counts(found, truth)[:, 0]
        assert counts.tolist() == [matched, 1, matched, 1], (dy, dx)


def test_precision_and_recall_are_told_apart():
    half = line(100, rows=slice(0, 120))
    # Half of the line, nothing wrong: P = 1, R = 1/2 and three pixels more that are in reach of its end.
    assert match_counts(half, line(100))[:, 0].tolist() == [120, 120, 123, 240]
    # The line and another that nobody drew.
    both = match_counts(line(100) + line(200), line(100))[:, 0]
    assert both.tolist() == [240, 480, 240, 240] and f_measure(both) == pytest.approx(2 / 3)


def test_a_boundary_of_few_annotators_weighs_less_in_recall():
    truth = line(100, 0.75) + line(200, 0.25)
    assert match_counts(line(100), truth)[2:, 0] == pytest.approx([180, 240])
    assert match_counts(line(200), truth)[2:, 0] == pytest.approx([60, 240])
    assert match_counts(line(200), truth)[:2, 0].tolist() == [240, 240]  # but is right in precision


def test_the_best_threshold_is_of_the_set_or_of_each_picture():
    noise = line(10, 0.2)
    strong, weak = line(100, 0.9) + noise * 4, line(100, 0.5) + noise
    counts = [match_counts(strong, line(100)), match_counts(weak, line(100))]
    found = boundary_score(counts)
    # 0.8 takes out the noise of the first picture and the line of the second.
    assert found.ois == pytest.approx(1.0) and found.ods < 0.9
    assert found.ods == pytest.approx(max(f_measure(counts[0] + counts[1])))
    assert found.ods_threshold in THRESHOLDS


def test_average_precision_orders_good_and_bad_maps():
    rng = np.random.default_rng(0)
    truth = line(100) + line(200)
    noise = (rng.random(SHAPE) > 0.98) * rng.random(SHAPE).astype(np.float32)
    good = np.maximum(np.clip(truth, 0, 1) * 0.9, noise * 0.5)
    nothing = np.zeros(SHAPE, np.float32)
    ap = [score(prediction, truth).ap for prediction in (good, noise, nothing)]
    assert ap[0] > 0.95 > 0.6 > ap[1] > ap[2] == 0
    assert score(nothing, truth).ods == 0


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120])
def test_a_thick_ridge_becomes_a_thin_line(angle):
    rows, columns = np.mgrid[:80, :90].astype(np.float32)
    across = np.cos(np.deg2rad(angle)) * (columns - 45) + np.sin(np.deg2rad(angle)) * (rows - 40)
    ridge = torch.from_numpy(np.exp(-((across / 3) ** 2)))
    thinned = thin(ridge)
    inner = (slice(10, 70), slice(10, 80))
    kept = thinned[inner] > 0.3
    assert np.abs(across[inner][kept.numpy()]).max() < 1.6
    # The line stays whole: the middle pixels are kept at their value.
    middle = np.abs(across[inner]) < 0.4
    assert kept.numpy()[middle].mean() > 0.95
    assert torch.equal(thinned[inner][kept], ridge[inner][kept])
