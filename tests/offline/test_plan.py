"""Plans: what is read, what is refused in one line, how a rehearsal is scaled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.offline.plans import make_plan
from vidlbc.errors import InputError
from vidlbc.offline.plan import fill, merged, plan_of, read_plan, scaled, with_calls

PLANS = Path(__file__).resolve().parents[2] / "configs" / "offline"


def test_a_plan_survives_json():
    plan = make_plan(
        {"name": "a", "variant": ["x=1"]},
        {"name": "b", "choose": {"by": "val.loss", "of": ["a"]}, "otherwise": [["y=2"]], "args": ["m={a}"]},
        lists={"l.csv": {"train": ["clips"]}},
        small={"tools/pretrain_image.py": ["z=3"]},
    )
    assert plan_of(plan.as_json(), "again") == plan


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run": "rm -rf"}, "run='rm -rf', expected tools/NAME.py or -m MODULE"),
        ({"until": 0.5}, "until=0.5, but the step before it ends at 1"),
        ({"until": "soon"}, "until='soon', expected a number of minutes"),
        ({"name": "data"}, "expected a name of its own"),
        ({"name": "first"}, "expected a name of its own"),
        ({"args": ["model={secnd}"]}, "{secnd} in model={secnd} is no earlier step"),
        ({"args": "out={out}"}, "expected a list of texts"),
        ({"choose": {"by": "val", "of": ["other"]}}, "chooses other: expected names of earlier steps"),
        ({"choose": {"by": "val", "of": ["first"], "best": "most"}}, "best=most, expected min or max"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_wrong_step_is_told_in_one_line(changes, told):
    with pytest.raises(InputError) as caught:
        make_plan({"name": "first"}, {"name": "second", **changes})
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_minutes_must_hold_the_steps():
    with pytest.raises(InputError, match="minutes=1, expected at least 2, where its last step ends"):
        make_plan({"name": "a"}, {"name": "b"}, minutes=1)


def test_a_missing_plan_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"plan=hour: no such plan or file \(plans: .*half_hour"):
        read_plan("hour", PLANS)
    (tmp_path / "broken.yaml").write_text("steps: [")
    with pytest.raises(InputError, match="not a plan in YAML"):
        read_plan(str(tmp_path / "broken.yaml"), PLANS)


def test_arguments_are_merged_by_key_and_filled():
    assert merged(["a=1", "word", "b=2"], ["b=3", "c=4"]) == ["a=1", "word", "b=3", "c=4"]
    assert fill("[{path: '{data}/x', every: 2},{later}]", {"data": "/d"}) == "[{path: '/d/x', every: 2},{later}]"


def test_calls_are_the_plans_own_or_as_few_as_there_can_be():
    plan = make_plan({"name": "a"}, minutes=25)
    assert plan.calls == pytest.approx((25 / 3,) * 3)
    with pytest.raises(InputError, match="expected each at most call_minutes=10"):
        make_plan({"name": "a"}, calls=[12])
    with pytest.raises(InputError, match="enough together"):
        make_plan({"name": "a", "until": 9}, calls=[2, 2])


def test_a_rehearsal_keeps_order_and_the_calls_place():
    plan = make_plan(
        {"name": "a", "until": 10, "closing": 1},
        {"name": "b", "until": 12, "closing": 0.1},
        minutes=13,
        calls=[5, 6, 2],
        small={"tools/pretrain_image.py": ["train.batch=1"]},
    )
    small = scaled(plan, 0.1, 30)
    assert [step.until for step in small.steps] == pytest.approx([1.0, 1.5])  # a tenth; at least 30 s
    assert small.minutes == pytest.approx(1.6)
    # The second call began in the middle of a, the third in the middle of b.
    assert small.calls == pytest.approx((0.5, 0.75, 0.35))
    assert all(step.closing >= 0.2 for step in small.steps) and small.steps[0].args == ("train.batch=1",)
    for wrong in (0, -1):
        with pytest.raises(InputError):
            scaled(plan, wrong, 30)


def test_whole_minutes_need_no_more_calls_than_they_fill():
    assert len(with_calls(make_plan({"name": "a"}, minutes=30), 10).calls) == 3
