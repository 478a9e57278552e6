"""One display for every launcher: files done and failed, frames a second, time left; and the log of runs."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from vidlbc.run.atomic_files import full_disk_as_error
from vidlbc.run.progress import progress_bar
from vidlbc.run.stage_clock import STAGES
from vidlbc.shards.claims import Claim, read_claim
from vidlbc.shards.encode import ShardReport
from vidlbc.shards.layout import MANIFEST, ShardFiles
from vidlbc.shards.plan import Plan


class Meter:
    """Sums finished shards and those in work. The rate and the time left count this run only."""

    def __init__(self, plan: Plan, bar: tqdm, shown: int) -> None:
        self._plan = plan
        self._bar = bar
        self._shown = shown
        self._began = time.monotonic()
        self._files = self._failed = self._frames = self._new = 0

    def finished(self, report: ShardReport) -> None:
        """Shard `report.index` is done."""
        self._files += report.files
        self._failed += report.failed
        self._frames += 0 if report.skipped else report.frames
        self._new += 0 if report.skipped else report.files
        self.update(())

    def show(self, shards: Iterable[int]) -> None:
        """Other processes are at work on `shards`: what their notes say."""
        notes = (read_claim(ShardFiles(Path(self._plan.output), index)) for index in shards)
        self.update([note for note in notes if note])

    def update(self, live: Collection[Claim]) -> None:
        """Redraw, with what is unfinished."""
        files = self._files + sum(note.files for note in live)
        failed = self._failed + sum(note.failed for note in live)
        frames = self._frames + sum(note.frames for note in live)
        rate = frames / max(1e-9, time.monotonic() - self._began)
        left = self._left(live, frames)
        about = f", about {tqdm.format_interval(left / rate)} left" if rate and left is not None else ""
        self._bar.set_postfix_str(f"{failed} failed, {rate:.1f} frames/s{about}", refresh=False)
        self._bar.update(files - self._shown)
        self._shown = files

    def _left(self, live: Collection[Claim], frames: int) -> int | None:
        """Frames: what the headers of files in work promise, and for files that nobody began the mean of the others."""
        expected = self._frames + sum(note.expected for note in live)
        known = self._new + sum(note.files + len(note.sources) for note in live)
        if not expected or not known:
            return None
        waiting = len(self._plan.sources) - self._files - sum(note.files + len(note.sources) for note in live)
        return max(0, expected + round(waiting * expected / known) - frames)


@contextmanager
def metered(plan: Plan, earlier: Collection[ShardReport], shown: bool) -> Iterator[Meter]:
    """A meter that starts with the shards of earlier runs."""
    done = sum(report.files for report in earlier)
    # A video may last longer than all others together: the time left is told by frames, never by videos.
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} videos [{elapsed}{postfix}]"
    options = {"desc": "encode", "bar_format": shape, "disable": not shown}
    with progress_bar(total=len(plan.sources), initial=done, **options) as bar:
        meter = Meter(plan, bar, done)
        for report in earlier:
            meter.finished(report)
        yield meter


def log_run(plan: Plan, report: ShardReport) -> None:
    """Timings live here and nowhere else: everything else in the folder is the same on every machine."""
    path = Path(plan.output) / MANIFEST / "runs.jsonl"
    with full_disk_as_error(Path(plan.output)), open(path, "a", encoding="utf-8") as log:
        fcntl.lockf(log, fcntl.LOCK_EX)  # a network file system appends for several machines only so
        log.write(json.dumps({"time": time.time(), **asdict(report)}) + "\n")
        log.flush()


class TimeSpent(NamedTuple):
    """Frames encoded, seconds by the clock that it took (of processes side by side, the sum), and seconds of work by
    stage (see vidlbc.run.stage_clock)."""

    frames: int
    seconds: float
    stages: dict[str, float]


def time_spent(plan: Plan) -> TimeSpent:
    """Over all runs that made this folder, for rates that survive a resume."""
    path = Path(plan.output) / MANIFEST / "runs.jsonl"
    frames, seconds, stages = 0, 0.0, dict.fromkeys(STAGES, 0.0)
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            frames, seconds = frames + int(entry["frames"]), seconds + float(entry["seconds"])
            for name, spent in entry.get("stages", {}).items():
                stages[name] = stages.get(name, 0.0) + float(spent)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # the last line of a killed run
    return TimeSpent(frames, seconds, stages)
