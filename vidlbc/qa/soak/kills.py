"""Kill encoding runs at random moments, by SIGKILL, and count what is lost. vidlbc qa soak kills runs it.

    undisturbed run --> OUT/calm
    run, kill, run, kill, ..., run --> OUT/killed, compared with it after every kill and at the end

A run is vidlbc encode in a process of its own, with one encoding process or several. A kill hits the launcher, or one
of its workers, whose launcher then goes on until it is killed as well, or ends.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidlbc.errors import InputError, VidlbcError
from vidlbc.qa.soak.kill_counts import Calm, KillCounts, done_shards, stage_of
from vidlbc.qa.soak.victims import wait_until_gone, workers_of
from vidlbc.run.atomic_files import dump_json, write_atomic

LAUNCHER, WORKER = "launcher", "worker"
_START_S = 600.0
_AHEAD = 3  # shards that are finished before a kill, at most
_AT_TABLE = 0.3  # share of the kills that wait for a table: putting files into place takes a few per cent of the time
_TABLE_S = 0.01


@dataclass(frozen=True)
class KillSettings:
    """`options`: of vidlbc encode, key=value; `processes`: those of a run, drawn at random."""

    input: str
    out: Path
    options: tuple[str, ...] = ()
    count: int = 100
    processes: tuple[int, ...] = (1, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError."""
        if not self.processes:
            raise InputError("processes=[]: expected at least one number")
        for name, value in (("count", self.count), *(("processes", number) for number in self.processes)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}={value}: expected whole numbers of at least 1")


def run_kills(settings: KillSettings, on_kill: Callable[[], None] = lambda: None) -> KillCounts:
    """Kill `count` times, then let a run end; `on_kill` is called after each. `out`/kills.json holds what is returned.

    Victims and moments are drawn from `seed`; what they meet is chance. Raises InputError where `out` holds an earlier
    soak or there are fewer than 3 shards, VidlbcError where a run ends in an error, which no kill explains.
    """
    quiet, out = settings.out / "calm", settings.out / "killed"
    if quiet.exists() or out.exists():
        raise InputError(f"out={settings.out} holds an earlier soak; choose another folder")
    settings.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    _end(_start(settings, quiet, 1), settings)
    calm = Calm.of(quiet)
    if calm.shards < 3:
        raise InputError(f"input={settings.input}: {calm.shards} shards; expected at least 3, so that work is left")
    counts, draw = KillCounts(calm.shards, sum(calm.clips.values())), random.Random(settings.seed)
    while (left := settings.count - sum(counts.kills.values())) > 0:
        counts.runs += 1
        stale = _work_in(out)
        process = _start(settings, out, draw.choice(settings.processes))
        try:
            _wait_for_work(process, out, stale)
            # One worker a run: a file in whose hand a second one dies would be blamed, and be left out of the shard.
            for victim in [WORKER, LAUNCHER] if left > 1 and draw.random() < 0.5 else [LAUNCHER]:
                _wait_for_moment(process, out, calm.shard_seconds, draw)
                hit = _kill(process, victim, draw)
                if hit:
                    counts.kills[hit, stage_of(out, calm.shards)] += 1
                    calm.check(out, counts)
                    on_kill()
            _end(process, settings)
        finally:
            process.kill()
        calm.check(out, counts)
        if len(done_shards(out)) > calm.shards - 2:
            counts.take_away(out, draw)
    counts.runs += 1
    _end(_start(settings, out, max(settings.processes)), settings)
    calm.compare(out, counts)
    counts.seconds = round(time.monotonic() - began, 1)
    write_atomic(settings.out / "kills.json", dump_json(counts.as_json(), indent=1))
    return counts


def _start(settings: KillSettings, out: Path, processes: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "vidlbc",
        "encode",
        f"input={settings.input}",
        f"output={out}",
        f"processes={processes}",
    ]
    with open(_log(settings), "wb") as log:  # a pipe that nobody reads would fill, and stop the run
        return subprocess.Popen([*command, *settings.options], stdout=subprocess.DEVNULL, stderr=log)


def _log(settings: KillSettings) -> Path:
    return settings.out / "run.log"


def _end(process: subprocess.Popen[bytes], settings: KillSettings) -> None:
    """Wait for a run. Raises VidlbcError where it ends in anything but success or our kill."""
    if process.wait() not in (0, -signal.SIGKILL):
        told = (_log(settings).read_text(errors="replace").strip().splitlines() or [""])[-1]
        raise VidlbcError(f"an encoding run ended with exit status {process.returncode}: {told}")


def _work_in(out: Path) -> set[tuple[str, int, int]]:
    """Shards in work, such that one that is begun again is another."""
    found = set()
    for path in out.glob(".[0-9]*.tmp"):
        with suppress(FileNotFoundError):
            state = path.stat()
            found.add((path.name, state.st_ino, state.st_mtime_ns))
    return found


def _wait_for_work(process: subprocess.Popen[bytes], out: Path, stale: set[tuple[str, int, int]]) -> None:
    """Until a run has begun a shard: the imports before that are not what is to be interrupted.

    `stale`: what an earlier run left there.
    """
    until = time.monotonic() + _START_S
    while process.poll() is None and not _work_in(out) - stale:
        if time.monotonic() > until:
            raise VidlbcError(f"{out}: no shard was begun within {_START_S:.0f} s")
        time.sleep(0.001)


def _wait_for_moment(process: subprocess.Popen[bytes], out: Path, shard_seconds: float, draw: random.Random) -> None:
    """A random moment: a few shards later, and then anywhere in the work on one, or while its files get their names."""

    def wait(there: Callable[[], bool]) -> None:
        while process.poll() is None and not there():
            time.sleep(0.0005)

    wanted = len(done_shards(out)) + draw.randrange(_AHEAD + 1)
    wait(lambda: len(list(out.glob("[0-9]*_stats.json"))) >= wanted)
    if draw.random() < _AT_TABLE:
        wait(lambda: any((work / f"{work.name[1:-4]}.parquet").exists() for work in out.glob(".[0-9]*.tmp")))
        time.sleep(draw.uniform(0, _TABLE_S))
    else:
        time.sleep(draw.uniform(0, shard_seconds))


def _kill(process: subprocess.Popen[bytes], victim: str, draw: random.Random) -> str | None:
    """Returns what was hit; None where the run is over, or has no worker."""
    workers = workers_of(process.pid)
    if process.poll() is not None or (victim == WORKER and not workers):
        return None
    if victim == LAUNCHER:
        process.kill()
        process.wait()
        wait_until_gone(workers)  # they end with their parent
        return LAUNCHER
    pid = draw.choice(workers)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return WORKER
    return None
