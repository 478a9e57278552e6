"""The probe: sees time, chooses without the test split, evaluates every view once, repeats to the bit."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import vidlbc.evaluate.probe.fit as probe_fit
from tests.evaluate.motion import LEVELS, motion_set
from vidlbc.errors import InputError
from vidlbc.evaluate import ProbeBudget, ProbeResult, run_probe
from vidlbc.evaluate.probe.result import mean_class_accuracy, video_probabilities

SMALL = ProbeBudget(epochs=16, batch=16, rates=(3e-3,), decays=(0.01,), checkpoints=2, ema=0.9, mixup=0.0)
TINY = ProbeBudget(epochs=4, batch=16, rates=(1e-3, 1e-2), decays=(0.0, 0.1), checkpoints=2, ema=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attentive", "lstm"])
def test_motion_is_read_and_needs_the_order_of_time(kind: str) -> None:
    result = run_probe(motion_set(160, 0), motion_set(200, 1), 2, kind, budget=SMALL)
    assert result.top1 > 0.9
    assert result.ci95[0] <= result.top1 <= result.ci95[1]
    blind = run_probe(motion_set(160, 0, shuffled=True), motion_set(200, 1, shuffled=True), 2, kind, budget=SMALL)
    assert 0.36 < blind.top1 < 0.64  # 4 deviations of 200 coin flips
    # The trained head itself, shown the same test clips in random order, is at a loss too.
    shuffled = motion_set(200, 1, shuffled=True)
    confused = video_probabilities(probe_fit.view_logits(result.head, shuffled)).argmax(1)
    assert 0.33 < (confused == shuffled.labels).double().mean() < 0.67


@pytest.mark.slow
def test_a_single_frame_says_nothing() -> None:
    one = run_probe(motion_set(160, 0, frames=1), motion_set(200, 1, frames=1), 2, "attentive", budget=SMALL)
    assert 0.36 < one.top1 < 0.64


@pytest.mark.slow
def test_same_seed_same_result_and_global_generator_untouched() -> None:
    train, test = motion_set(48, 0), motion_set(24, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = run_probe(train, test, 2, "attentive", budget=TINY, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    b = run_probe(train, test, 2, "attentive", budget=TINY, seed=3)
    assert torch.equal(a.view_logits, b.view_logits) and a.chosen == b.chosen and a.trials == b.trials
    c = run_probe(train, test, 2, "attentive", budget=TINY, seed=4)
    assert not torch.equal(a.view_logits, c.view_logits)


def test_the_choice_never_sees_the_test_split() -> None:
    train, test = motion_set(64, 0), motion_set(32, 1)
    honest = run_probe(train, test, 2, "linear", budget=TINY)
    poisoned = run_probe(train, replace(test, labels=1 - test.labels), 2, "linear", budget=TINY)
    other = run_probe(train, motion_set(16, 2, shuffled=True), 2, "linear", budget=TINY)
    assert honest.chosen == poisoned.chosen == other.chosen
    assert honest.trials == poisoned.trials == other.trials
    assert torch.equal(honest.view_logits, poisoned.view_logits)
    for a, b in zip(honest.head.state_dict().values(), other.head.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_choice_does_see_the_holdout() -> None:
    train, test, val = motion_set(64, 0), motion_set(8, 1), motion_set(32, 2)
    honest = run_probe(train, test, 2, "attentive", budget=TINY, val=val)
    poisoned = run_probe(train, test, 2, "attentive", budget=TINY, val=replace(val, labels=1 - val.labels))
    assert honest.trials != poisoned.trials
    assert honest.holdout == "the val split (32 videos)" and honest.n_train == 96 and honest.n_holdout == 32


def test_every_grid_member_and_checkpoint_is_a_trial() -> None:
    result = run_probe(motion_set(32, 0), motion_set(8, 1), 2, "linear", budget=TINY)
    seen = {(t["rate"], t["decay"], t["epochs"]) for t in result.trials}
    assert seen == {(r, d, e) for r in (1e-3, 1e-2) for d in (0.0, 0.1) for e in (2, 4)}
    assert len(result.trials) == 8
    best = min(result.trials, key=lambda t: t["loss"])
    assert result.chosen == {k: best[k] for k in ("rate", "decay", "epochs")}
    assert result.holdout == "8 videos of 1 groups of the train split"


def test_every_view_is_evaluated_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = motion_set(32, 0, views=2), motion_set(13, 1, views=3)
    marked = replace(test, tokens=test.tokens.clone())
    for i in range(13):
        for v in range(3):
            marked.tokens[i, v, 0, 0, 0, 0] = i * 3 + v
    seen: list[float] = []
    plain = probe_fit.view_logits

    def spied(head, data, *args, **kwargs):  # type: ignore[no-untyped-def]
        classify = head.classify
        if data is marked:
            head.classify = lambda x: seen.extend(x[:, 0, 0, 0, 0].tolist()) or classify(x)
        return plain(head, data, *args, batch=4, **kwargs)

    monkeypatch.setattr("vidlbc.evaluate.probe.protocol.view_logits", spied)
    result = run_probe(train, marked, 2, "linear", budget=TINY)
    assert sorted(seen) == [float(i) for i in range(39)]
    assert result.view_logits.shape == (13, 3, 2)


def test_batch_size_of_the_evaluation_does_not_matter() -> None:
    result = run_probe(motion_set(32, 0), motion_set(16, 1, views=2), 2, "lstm", budget=TINY)
    again = probe_fit.view_logits(result.head, motion_set(16, 1, views=2), batch=5)
    torch.testing.assert_close(result.view_logits, again, rtol=1e-4, atol=1e-5)


def test_views_are_stored_and_give_the_accuracy_again(tmp_path: Path) -> None:
    test = motion_set(10, 1, views=2)
    result = run_probe(motion_set(32, 0), test, 2, "linear", budget=TINY)
    result.write_views(tmp_path / "views.parquet", classes=["right", "left"])
    table = pq.read_table(tmp_path / "views.parquet")
    assert table.schema.metadata[b"classes"] == b"right\nleft"
    rows = table.to_pylist()
    assert [(r["key"], r["view"]) for r in rows] == [(k, v) for k in test.keys for v in range(2)]
    logits = torch.tensor([r["logits"] for r in rows]).reshape(10, 2, 2)
    assert torch.equal(logits, result.view_logits)
    labels = torch.tensor([r["label"] for r in rows[::2]])
    assert (video_probabilities(logits).argmax(1) == labels).double().mean().item() == result.top1
    assert list(tmp_path.iterdir()) == [tmp_path / "views.parquet"]


def known_result(logits: list[list[list[float]]], labels: list[int], failed: int = 0) -> ProbeResult:
    base = run_probe(motion_set(32, 0), motion_set(2, 1), 2, "linear", budget=TINY)
    keys = tuple(str(i) for i in range(len(labels)))
    return replace(base, keys=keys, labels=torch.tensor(labels), view_logits=torch.tensor(logits), n_failed=failed)


def test_accuracies_by_hand() -> None:
    # 7 classes. Video 0: one sure view outvotes two unsure ones. Video 1: right in the 5 best. Video 2: wrong, class 0.
    none = [0.0] * 7
    sure, unsure = [0.0] * 5 + [9.0, 0.0], [0.1] + [0.0] * 6
    ranks = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    result = known_result([[sure, unsure, unsure], [ranks] * 3, [[-5.0] + none[1:]] * 3, [ranks] * 3], [5, 4, 0, 0], 3)
    assert result.predictions.tolist()[:2] == [5, 0]
    assert result.top1 == 0.5 and result.top5 == 0.75
    assert result.mean_class == pytest.approx((1.0 + 0.0 + 0.5) / 3)
    assert result.n_videos == 4 and result.n_failed == 3
    assert result.confusion().sum() == 4 and result.confusion()[5, 5] == 1 and result.confusion()[4, 0] == 1
    summary = result.summary()
    assert summary["n_videos"] == 4 and summary["n_failed"] == 3 and summary["views"] == 3
    low, high = result.ci95
    assert 0.0 <= low < 0.5 < high <= 1.0


def test_mean_class_accuracy_leaves_absent_classes_out() -> None:
    import numpy as np

    assert mean_class_accuracy(np.array([[0, 1], [0, 0], [0, 1], [5, 1]])) == pytest.approx((2 / 3 + 1.0) / 2)


def test_failed_files_are_counted_not_replaced() -> None:
    test = replace(motion_set(12, 1), failed=(("broken.mp4", "unreadable: no frames"),))
    result = run_probe(motion_set(32, 0), test, 2, "linear", budget=TINY)
    assert result.n_failed == 1 and result.n_videos == 12 and "broken.mp4" not in result.keys


def test_bad_input_is_named() -> None:
    train, test = motion_set(32, 0), motion_set(8, 1)
    with pytest.raises(InputError, match=r"labels of the test split run from 0 to 5, expected 0 to 1"):
        run_probe(train, replace(test, labels=test.labels * 5), 2, "linear", budget=TINY)
    with pytest.raises(InputError, match=r"video '0/0' is in both the train and the test split"):
        run_probe(train, train, 2, "linear", budget=TINY)
    with pytest.raises(InputError, match=r"the val split has no readable video \(0 failed\)"):
        run_probe(train, test, 2, "linear", budget=TINY, val=test.subset([]))
    with pytest.raises(InputError, match="the test split has levels .* expected those of train"):
        run_probe(train, replace(test, levels=((5, 8),)), 2, "linear", budget=TINY)
    with pytest.raises(InputError, match="the head's grid is 8, but the features were made on a grid of 4"):
        run_probe(train, test, 2, "linear", budget=TINY, options={"grid": 8})
    with pytest.raises(InputError, match="at least one learning rate"):
        ProbeBudget(rates=())
    assert train.levels == tuple(LEVELS)
