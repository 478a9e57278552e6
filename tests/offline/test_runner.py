"""The runner: steps in order, failures and overruns recorded, killed at arbitrary moments and gone on with."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.offline.plans import args, logged, make_plan, make_root
from vidlbc.offline.runner import Runner, figure
from vidlbc.offline.state import CUT, DONE, FAILED, SKIPPED, Record, Root


def run(root: Root) -> dict[str, Record]:
    Runner(root).run()
    return root.records(root.pack()[0])


def test_steps_run_in_order_and_a_failing_one_does_not_stop_the_next(tmp_path):
    plan = make_plan(
        {"name": "good", "args": args(3)},
        {"name": "bad", "args": args(3, fail=2)},
        {"name": "built_on", "args": [*args(2), "init={good}"]},
        {"name": "lacking", "args": [*args(2), "init={bad}"]},
    )
    records = run(make_root(tmp_path / "root", plan, time.time()))
    assert [record.status for record in records.values()] == [DONE, FAILED, DONE, FAILED]
    assert records["bad"].reasons == ["attempt 1: exit status 3: error: it cannot go on"]
    assert records["built_on"].args[-1] == f"init={tmp_path}/root/out/good"
    assert records["lacking"].reasons == ["step bad left no model"]


@pytest.mark.slow
def test_a_step_that_overruns_is_stopped_and_one_that_has_no_time_is_skipped(tmp_path):
    steps = [{"name": name, "args": args(ticks)} for name, ticks in (("long", 10**6), ("late", 1), ("last", 1))]
    plan = make_plan(*steps)
    # Some seconds are left of the first minute.
    root = make_root(tmp_path / "root", plan, time.time() - 56)
    records = run(root)
    assert records["long"].status == CUT and records["late"].status == DONE
    assert logged(root, "long")

    gone = make_root(tmp_path / "gone", plan, time.time() - 150)
    records = run(gone)
    assert [record.status for record in records.values()] == [SKIPPED, SKIPPED, DONE]
    assert records["late"].reasons == ["its time was over"]


def test_until_is_told_so_much_earlier_as_the_end_of_a_step_takes(tmp_path):
    began = time.time()
    plan = make_plan({"name": "a", "until": 2, "closing": 0.5, "args": [*args(1), "until={until}", "on={device}"]})
    records = run(make_root(tmp_path / "root", plan, began))
    assert records["a"].args[-2:] == [f"until=@{began + 90:.0f}", "on=cpu"]


def test_another_attempt_is_made_with_changed_arguments(tmp_path):
    plan = make_plan({"name": "a", "args": args(3, fail=1), "otherwise": [["fail=2"], ["fail=none"]]})
    records = run(make_root(tmp_path / "root", plan, time.time()))
    assert records["a"].status == DONE and records["a"].attempt == 2
    assert records["a"].out.endswith("/out/a.3") and len(records["a"].reasons) == 2


@pytest.mark.slow
def test_no_other_attempt_where_most_of_the_time_is_over(tmp_path):
    plan = make_plan({"name": "a", "args": args(10**6, fail=200), "otherwise": [["fail=none"]]})
    # It fails after two seconds at least, and no more than as many are left of the minute then.
    records = run(make_root(tmp_path / "root", plan, time.time() - 56.5))
    assert records["a"].attempt == 0 and records["a"].status != DONE


def test_of_several_attempts_the_last_with_weights_counts(tmp_path):
    stay = {"name": "a", "args": args(3, fail=2, average=1), "otherwise": [["fail=1", "average="]]}
    root = make_root(tmp_path / "root", make_plan(stay), time.time())
    record = run(root)["a"]
    assert (record.attempt, record.out) == (1, f"{root.path}/out/a")
    assert record.reasons[-1].startswith("no model: ")  # the stand-in's are no weights of a network


@pytest.mark.parametrize(
    ("by", "best", "chosen", "told"),
    [
        ("cost", "min", "b", "cost: a 2, b 1.5"),
        ("cost", "max", "a", "cost: a 2, b 1.5"),
        ("psnr", "min", "a", "no psnr of a, b: the first was taken"),
    ],
)
def test_a_step_takes_over_what_the_best_trial_varied(tmp_path, by, best, chosen, told):
    trials = [
        {"name": name, "args": args(2, cost=cost), "variant": [f"network={name}"]}
        for name, cost in (("a", 2), ("b", 1.5))
    ]
    plan = make_plan(*trials, {"name": "c", "args": args(1), "choose": {"by": by, "of": ["a", "b"], "best": best}})
    records = run(make_root(tmp_path / "root", plan, time.time()))
    assert records["c"].chosen == chosen and records["c"].args[-1] == f"network={chosen}"
    assert records["c"].reasons == [told]


def test_a_figure_is_the_last_one_that_is_whole(tmp_path):
    (tmp_path / "training").mkdir()
    lines = ['{"qp8": {"bpp": 2}}', '{"qp8": {"bpp": 1}}', '{"qp8": {"b']
    (tmp_path / "training" / "validation.jsonl").write_text("\n".join(lines))
    (tmp_path / "training" / "log.jsonl").write_text('{"loss": 3}\n')
    assert figure(tmp_path, "qp8.bpp") == 1 and figure(tmp_path, "loss") == 3 and figure(tmp_path, "psnr") is None
    (tmp_path / "metrics.json").write_text('{"symbols": [{"differing": 4}], "qp8": {"bpp": 9}}')
    assert figure(tmp_path, "symbols.differing") == 4 and figure(tmp_path, "qp8.bpp") == 1


def test_a_step_is_over_when_its_file_is_there(tmp_path):
    plan = make_plan({"name": "a", "done": "finished", "args": args(2, stay=1)})
    records = run(make_root(tmp_path / "root", plan, time.time()))
    assert records["a"].status == DONE and at_work(tmp_path) == []


def test_a_step_waits_for_its_data(tmp_path):
    plan = make_plan({"name": "a", "args": args(1)}, {"name": "never", "args": args(1)})
    root = make_root(tmp_path / "root", plan, time.time() - 118.5, {"a": [0], "never": [0, 1]})
    records = run(root)
    assert records["never"].status == SKIPPED and records["never"].reasons == ["its data never came"]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_leaves_nobody_behind(tmp_path):
    """The trainer counts and resumes its count: every number is there, and none starts below another."""
    draw = random.Random(15)
    plan = make_plan(*[{"name": name, "args": args(40)} for name in ("a", "b", "c")])
    root = make_root(tmp_path / "root", plan, time.time())
    kills = 0
    while any(not record.ended for record in root.records(plan).values()):
        pid = os.fork()
        if pid == 0:
            Runner(root).run()
            os._exit(0)
        time.sleep(draw.uniform(0.05, 0.4 + 0.1 * kills))
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
    records = root.records(plan)
    assert kills >= 2 and all(record.status == DONE for record in records.values())
    for name in "abc":
        assert sorted(set(logged(root, name))) == list(range(1, 41))
        starts = (root.path / "out" / name / "starts").read_text().split()
        assert starts[0] == "0" and [int(tick) for tick in starts] == sorted(map(int, starts))
    assert at_work(tmp_path) == []


def at_work(folder: Path) -> list[str]:
    """Processes whose command names the folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in place.read_bytes():
                found.append(place.parent.name)
        except OSError:
            continue  # it has ended
    return found
