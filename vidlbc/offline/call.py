"""One call on the node: check, start the runner or attach to it, bring results home until the call is nearly over.

first call:   check --> call.json --> runner in its own session --+
any call:                                                        +--> results every so often --> the last, a table
"""

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec.inputs import pick_device
from vidlbc.codec.prior.grid import check_device
from vidlbc.errors import InputError, VidlbcError, one_line
from vidlbc.evaluate.report.environment import environment
from vidlbc.offline.collect import collect
from vidlbc.offline.results import Limits
from vidlbc.offline.runner import end_of, hold
from vidlbc.offline.state import ENDED, Call, Root
from vidlbc.run.tables import format_table

_POLL_S = 0.5
_TRIES = 3  # a runner that dies at once, again and again, will not do better


@dataclass(frozen=True)
class CallSettings:
    """`called`: epoch seconds when the call began; `over_s`: seconds after it when the command must have ended;
    `spare_s`: of them for the last results. `deadline`: epoch seconds for the whole plan, or None: its own minutes.
    """

    root: Path
    results: Path
    limits: Limits
    device: str
    called: float
    over_s: float
    spare_s: float = 20.0
    collect_s: float = 90.0
    deadline: float | None = None


def make_call(settings: CallSettings) -> bool:
    """Whether the plan is over. Raises InputError for what stands in the way, before anything is started."""
    if settings.over_s <= settings.spare_s:
        raise InputError(f"call_minutes={settings.over_s / 60:g}, spare_s={settings.spare_s:g}: no time is left")
    root = Root(settings.root)
    call = root.call() or _first(settings, root)
    leave = settings.called + settings.over_s - settings.spare_s
    collected, tries = time.time(), 0
    while not (over := _is_over(root)):
        if not _runner_lives(root):
            if tries == _TRIES:
                raise VidlbcError(f"the runner ended {_TRIES} times before its plan: see {root.path / 'runner.log'}")
            tries += 1
            _start_runner(root)
        if time.time() >= leave:
            break
        if time.time() - collected >= settings.collect_s:
            collected = time.time()
            _collect(root, settings)
        time.sleep(_POLL_S)
    _collect(root, settings)
    _tell(root, call)
    return over


def _tell(root: Root, call: Call) -> None:
    """Where the plan is, as a table."""
    plan, needs, _ = root.pack()
    rows = [
        [step.name, f"{(end_of(step, call) - call.began) / 60:.1f}", record.status, _took(record), _told(record)]
        for step, record in zip(plan.steps, root.records(plan).values(), strict=True)
    ]
    print(format_table(rows, ["step", "until", "status", "minutes", ""], _title(call, plan.minutes)))
    late = [name for name, parts in needs.items() if not root.has(parts)]
    if late:
        print(f"parts {sorted({part for name in late for part in needs[name]})} are not here yet: {', '.join(late)}")


def _first(settings: CallSettings, root: Root) -> Call:
    device = pick_device(settings.device)
    deadline = settings.called + 60 * root.pack()[0].minutes
    if settings.deadline is not None:
        if settings.deadline <= time.time():
            raise InputError("until: the deadline is in the past")
        deadline = min(deadline, settings.deadline)
    checked = _environment(device)
    call = Call(settings.called, deadline, str(device), checked)
    root.write_call(call)
    for name, value in checked.items():
        print(f"{name}: {value}")
    return call


def _environment(device: torch.device) -> dict[str, Any]:
    """Versions and what they compute. Sums that are not exact are told, not refused: training needs none."""
    try:
        check_device(device)
        exact = "yes"
    except VidlbcError as error:
        exact = f"NO: {error}"
    found = {"host": platform.node(), "cuda": torch.version.cuda, "exact sums": exact}
    return {key: value for key, value in environment(device).items() if key not in ("command", "commit")} | found


def _runner_lives(root: Root) -> bool:
    with hold(root) as free:
        return not free


def _start_runner(root: Root) -> None:
    command = [sys.executable, "-m", "vidlbc.offline.runner", str(root.path)]
    with open(root.path / "runner.log", "ab") as log:
        subprocess.run(command, cwd=root.path / "code", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)


def _is_over(root: Root) -> bool:
    plan, _, _ = root.pack()
    return all(record.status in ENDED for record in root.records(plan).values())


def _collect(root: Root, settings: CallSettings) -> None:
    try:
        told = f"{collect(root, settings.results, settings.limits) / 2**20:.1f} MiB"
    except Exception as error:  # the run goes on, and the generation before is still there
        told = f"not written: {type(error).__name__}: {one_line(error)}"
    print(f"{time.strftime('%H:%M:%S')} results: {told}", flush=True)


def _took(record: Any) -> str:
    until = record.ended or time.time()
    return f"{(until - record.started) / 60:.1f}" if record.started else ""


def _told(record: Any) -> str:
    parts: Sequence[str] = [f"as {record.chosen}"] if record.chosen else []
    return "; ".join([*parts, *record.reasons])[:100]


def _title(call: Call, minutes: float) -> str:
    now = (time.time() - call.began) / 60
    return f"minute {now:.1f} of {min(minutes, (call.deadline - call.began) / 60):.1f}, on {call.device}"
