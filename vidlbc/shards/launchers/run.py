"""What launchers share: one run a folder, what is done and to do, the display, the log, the manifest at the end.

    Plan --launch--> Job --engine--> encode_shard(plan, i), somewhere --> reports --> runs.jsonl, manifest

An engine is a function from a job to the reports of its shards, as they are finished. None of them decides a byte.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vidlbc.errors import ShardError
from vidlbc.shards.encode import ShardReport, encode_shard, is_done
from vidlbc.shards.launchers.progress import Meter, log_run, metered
from vidlbc.shards.layout import clean_stale, exclusive
from vidlbc.shards.manifest import Manifest, write_manifest
from vidlbc.shards.plan import Plan
from vidlbc.shards.resume import begin
from vidlbc.shards.sources import ClipCodec

LoadCodec = Callable[[Plan, str], ClipCodec]


@dataclass(frozen=True)
class Job:
    """Shards to encode. `begun`: those that an earlier run had in work when it was killed, perhaps by one of them."""

    plan: Plan
    todo: tuple[int, ...]
    begun: frozenset[int]
    meter: Meter


Engine = Callable[[Job], Iterator[ShardReport]]


def launch(plan: Plan, engine: Engine, *, bar: bool = True) -> tuple[Manifest, list[ShardReport]]:
    """Encode every shard of `plan` that is not done, by `engine`; returns the manifest and a report a shard, in order.

    Resumes whatever was left, whichever engine left it. Raises ShardError when the folder holds another run, is in use,
    or its disk is full, and whatever the engine raises.
    """
    out = Path(plan.output)
    with exclusive(out):
        begun = clean_stale(out)
        plan = begin(plan)
        reports = work_off(plan, range(len(plan.shards)), engine, begun, bar=bar)
        return write_manifest(plan), reports


def work_off(
    plan: Plan, indices: Iterable[int], engine: Engine, begun: Iterable[int] = (), *, bar: bool = True
) -> list[ShardReport]:
    """Encode those of the shards `indices` that are not done; a report each, in order. The caller holds the folder."""
    todo = []
    reports = []
    for index in indices:
        if is_done(plan, index):
            reports.append(encode_shard(plan, index))
        else:
            todo.append(index)
    with metered(plan, reports, bar) as meter:
        if todo:
            for report in engine(Job(plan, tuple(todo), frozenset(begun), meter)):
                log_run(plan, report)
                meter.finished(report)
                reports.append(report)
    return sorted(reports, key=lambda report: report.index)


def plan_at_hand(output: str | Path) -> Plan:
    """The plan of a folder, as a worker on another machine sees it.

    Raises ShardError where the folder or the videos are not to be seen from here: each file would be unreadable.
    """
    plan = Plan.load(output)
    missing = next((part.root for part in plan.parts if not Path(part.root).exists()), None)
    if missing is not None:
        raise ShardError(f"{missing}: not found on {platform.node()}; every machine must see videos and shards")
    return plan
