"""Low-shot recognition and the linear probe on features that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.machine_perception.linear import RIDGES, ridge_logits, standardised, summaries
from vidlbc.experiments.machine_perception.lowshot import LowShotSettings, few_shot_correct, novel_classes, ridge_scores
from vidlbc.experiments.machine_perception.media import Medium
from vidlbc.experiments.machine_perception.probe import Probe
from vidlbc.experiments.machine_perception.report import score


def clip_set(classes: int = 6, train: int = 4, test: int = 3) -> ClipSet:
    rows = [(label, split) for label in range(classes) for split in ["train"] * train + ["test"] * test]
    count = len(rows)
    return ClipSet(
        (np.zeros((2, 16, 16, 3), np.uint8),) * count,
        np.array([label for label, _ in rows]),
        ("",) * count,
        tuple(split for _, split in rows),
        tuple(map(str, range(count))),
        tuple("abcdef"[:classes]),
    )


def probe_of(features: torch.Tensor) -> Probe:
    return Probe(tuple(range(len(features))), features, features)


def test_novel_classes_are_spread_or_named():
    clips = clip_set()
    assert novel_classes(clips, 3) == [1, 3, 5]
    assert novel_classes(clips, ("e", "b")) == [1, 4]
    assert novel_classes(clips, 0) == []
    with pytest.raises(InputError, match="unknown class 'x'"):
        novel_classes(clips, ("x",))
    with pytest.raises(InputError, match="low_shot.novel=5: expected 0 to 4"):
        novel_classes(clips, 5)


def test_separable_features_need_one_example_and_noise_stays_at_chance():
    clips, settings = clip_set(test=20), LowShotSettings(novel=3, draws=30)
    labels = torch.from_numpy(clips.labels)
    apart = torch.nn.functional.one_hot(labels, 6).float() + 0.01 * torch.randn(len(labels), 6)
    assert few_shot_correct(probe_of(apart), clips, [1, 3, 5], 1, settings).tolist() == [1.0] * 60
    noise = torch.randn(len(labels), 40, generator=torch.Generator().manual_seed(0))
    assert few_shot_correct(probe_of(noise), clips, [1, 3, 5], 2, settings).mean() == pytest.approx(1 / 3, abs=0.12)


def test_draws_are_the_same_for_every_medium():
    clips, settings = clip_set(), LowShotSettings(novel=3, draws=4)
    features = torch.randn(len(clips), 8)
    first = few_shot_correct(probe_of(features), clips, [1, 3, 5], 2, settings)
    np.testing.assert_array_equal(first, few_shot_correct(probe_of(7 * features), clips, [1, 3, 5], 2, settings))


def test_too_few_examples_are_told():
    with pytest.raises(InputError, match="low_shot.shots=5: class b has 4 training clips"):
        few_shot_correct(probe_of(torch.randn(42, 3)), clip_set(), [1, 3], 5, LowShotSettings())


def test_the_dual_ridge_is_the_primal_one():
    x, asked, targets = torch.randn(7, 3).double(), torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    y = torch.nn.functional.one_hot(targets).double()
    centred, means = x - x.mean(0), y.mean(0)
    weights = torch.linalg.solve(centred.T @ centred + 0.5 * torch.eye(3).double(), centred.T @ (y - means))
    torch.testing.assert_close(ridge_scores(x, targets, asked, 0.5), (asked - x.mean(0)) @ weights + means)


def test_the_ridge_is_chosen_on_val_alone():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(60) % 3
    features = torch.nn.functional.one_hot(targets, 3).float() + torch.randn(60, 3, generator=generator)
    train, val, test = list(range(30)), list(range(30, 45)), list(range(45, 60))
    scores, ridge = ridge_logits(features, targets, train, val, test)
    other = targets.clone()
    other[45:] = 0
    assert ridge in RIDGES and ridge_logits(features, other, train, val, test)[1] == ridge
    assert float((scores.argmax(1) == targets[45:]).float().mean()) > 0.5


def test_a_summary_tells_motion_from_its_reverse():
    """One bright cell that moves over the grid: forwards, backwards."""
    clip = torch.zeros(1, 4, 1, 4, 4)
    for t in range(4):
        clip[0, t, 0, t, t] = 1
    frames = torch.cat([clip, clip.flip(1), clip])
    found = summaries(Medium("m", "", 1, None, ((1, 16),), (frames,)), [(1, 16)], 3)
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])
    flat = standardised(torch.cat([found, torch.full((3, 1), 5.0)], 1), [0, 1])
    assert float(flat[:, -1].abs().max()) == 0  # a value that never varies in training


def test_a_score_has_an_interval_and_a_paired_difference():
    ours, theirs = np.array([1.0, 1.0, 1.0, 0.0] * 10), np.array([1.0, 0.0, 1.0, 0.0] * 10)
    told = score(ours, theirs)
    assert told["top1"] == 0.75 and told["difference"] == 0.25 and told["clips"] == 40
    assert told["ci95"][0] < 0.75 < told["ci95"][1] and told["difference_ci95"][0] > 0
