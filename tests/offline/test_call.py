"""Calls on the node: the runner lives on between them, results come home from each; and what a call refuses."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.offline.plans import args, logged, make_plan, make_root
from vidlbc.errors import InputError
from vidlbc.offline.call import CallSettings, make_call
from vidlbc.offline.plan import OfflinePlan
from vidlbc.offline.results import Limits, newest
from vidlbc.offline.runner import hold
from vidlbc.offline.state import DONE, Root

REPO = Path(__file__).resolve().parents[2]


def settings(root: Root, results: Path, **changes: Any) -> CallSettings:
    usual = {"device": "cpu", "called": time.time(), "over_s": 600.0, "spare_s": 1.0, "collect_s": 600.0}
    return CallSettings(root.path, results, Limits(1 << 20, 8, 8 << 20), **{**usual, **changes})


def two_steps() -> OfflinePlan:
    return make_plan({"name": "a", "until": 5, "args": args(100)}, {"name": "b", "until": 9, "args": args(2)})


@pytest.mark.slow
def test_a_call_ends_in_time_and_the_next_one_attaches(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    plan = two_steps()
    root = make_root(tmp_path / "root", plan, time.time())
    (root.path / "call.json").unlink()  # which the first call writes
    # The first is over as soon as the runner is at work.
    assert not make_call(settings(root, tmp_path / "first", over_s=1.2))
    printed = capsys.readouterr().out
    assert "torch: " in printed and "exact sums: yes" in printed and "results: 0.0 MiB" in printed
    with hold(root) as free:
        assert not free
    pid = int((root.path / "runner.pid").read_text())
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGKILL)
    # The second finds no runner, and starts one that goes on.
    assert make_call(settings(root, tmp_path / "second", collect_s=0.2))
    assert [record.status for record in root.records(plan).values()] == [DONE, DONE]
    assert logged(root, "a")[-1] == 100
    first, second = newest(tmp_path / "first"), newest(tmp_path / "second")
    assert first.run == second.run and second.number > first.number
    assert second.files["b/log.jsonl"].count(b"\n") == 2
    with hold(root, wait_s=20.0) as free:  # and the runner ends
        assert free
    # One after the end brings the results once more.
    assert make_call(settings(root, tmp_path / "third"))
    assert newest(tmp_path / "third").files.keys() == second.files.keys()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device": "cuda"}, "device 'cuda' was asked for, but torch finds no CUDA GPU"),
        ({"deadline": 1.0}, "until: the deadline is in the past"),
        ({"over_s": 0.5}, "no time is left"),
    ],
)
def test_what_a_call_refuses_is_told_before_anything_starts(tmp_path, monkeypatch, changes, told):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    root = make_root(tmp_path / "root", two_steps(), time.time())
    (root.path / "call.json").unlink()
    with pytest.raises(InputError) as caught:
        make_call(settings(root, tmp_path / "results", **changes))
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (root.path / "state.json").exists()


def test_a_root_without_a_pack_is_told(tmp_path):
    with pytest.raises(InputError, match="pack.json: no index of a pack"):
        make_call(settings(Root(tmp_path), tmp_path / "results"))


def test_a_deadline_cuts_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr("vidlbc.offline.call._start_runner", lambda root: None)
    root = make_root(tmp_path / "root", two_steps(), time.time())
    (root.path / "call.json").unlink()
    now = time.time()
    with pytest.raises(Exception, match="the runner ended 3 times before its plan"):
        make_call(settings(root, tmp_path / "results", called=now, deadline=now + 100))
    call = root.call()
    assert call is not None and (call.began, call.deadline) == (now, now + 100)
