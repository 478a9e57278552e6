"""Cases by the number, in processes that may die: what does not end well is kept, with the command that replays it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event, Lock

from vidlbc.errors import InputError
from vidlbc.qa.fuzz.corpus import Corpus, make_corpus
from vidlbc.qa.fuzz.process import Worker
from vidlbc.qa.fuzz.targets import SHARES, make_case
from vidlbc.qa.fuzz.worker import Outcome
from vidlbc.run.atomic_files import dump_json, write_atomic

GOOD = ("decoded", "refused")
BAD = ("traceback", "slow", "memory", "crash")
_BLOCK = 100  # cases that a process is given at a time
_EVERY = 2000  # cases between two writes of fuzz.json


@dataclass(frozen=True)
class FuzzSettings:
    """Cases `first` to `first + count - 1` of `seed`. `seconds` and `times`: what a case may take, of the processor and
    of a valid input's memory; below `floor` bytes memory is not judged, beyond `headroom` it is refused by the system.
    """

    out: Path
    count: int
    first: int = 0
    seed: int = 0
    targets: tuple[str, ...] = tuple(SHARES)
    processes: int = 1
    seconds: float = 1.0
    times: float = 2.0
    floor: int = 32 << 20
    headroom: int = 1 << 30
    hang: float = 60.0
    max_pixels: int = 4096

    def __post_init__(self) -> None:
        """Raises InputError."""
        for name in ("count", "processes", "max_pixels", "headroom"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("first", "seed", "floor"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 0")
        for name in ("seconds", "times", "hang"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}={getattr(self, name)}: expected more than 0")
        unknown = [name for name in self.targets if name not in SHARES]
        if unknown or not self.targets:
            raise InputError(f"targets={list(self.targets)}: expected some of {', '.join(SHARES)}")


@dataclass
class Tally:
    """Of one target."""

    verdicts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*GOOD, *BAD), 0))
    seconds: float = 0.0  # the most that a case took
    bytes: int = 0

    @property
    def cases(self) -> int:
        return sum(self.verdicts.values())

    @property
    def findings(self) -> int:
        return sum(self.verdicts[name] for name in BAD)


Tallies = dict[str, Tally]


def run_fuzz(settings: FuzzSettings, on_cases: Callable[[int], None] = lambda count: None) -> Tallies:
    """Tallies by target, also in `out`/fuzz.json; inputs of findings in `out`/failures. Goes on where it was stopped.

    Which input a case is, is a function of (corpus, seed, number) alone, so that runs may be split by `first`. Raises
    InputError where `out` holds a run of other settings, VidlbcError where valid input does not pass.
    """
    corpus = make_corpus(settings.out / "corpus")
    tallies, done = _resumed(settings)
    blocks = iter(range(settings.first + done, settings.first + settings.count, _BLOCK))
    lock, stop = Lock(), Event()
    finished: dict[int, list[Outcome]] = {}

    def commit() -> None:
        """Add blocks to the sums in order, so that what is written stands for the first `done` cases."""
        nonlocal done
        while settings.first + done in finished:
            outcomes = finished.pop(settings.first + done)
            for outcome in outcomes:
                _add(tallies, outcome)
            written, done = done, done + len(outcomes)
            on_cases(len(outcomes))
            if written // _EVERY != done // _EVERY:
                _write(settings, tallies, done)

    def work() -> None:
        if done >= settings.count:
            return
        with Worker(corpus.folder, settings) as worker:
            while not stop.is_set() and (start := _next(blocks, lock)) is not None:
                numbers = range(start, min(start + _BLOCK, settings.first + settings.count))
                outcomes = [_kept(settings, corpus, judge(worker.run(n), worker.valid, settings)) for n in numbers]
                with lock:
                    finished[start] = outcomes
                    commit()

    on_cases(done)
    try:
        _in_threads(settings.processes, work, stop)
    finally:
        _write(settings, tallies, done)
    return tallies


def _in_threads(count: int, work: Callable[[], None], stop: Event) -> None:
    """Interrupted, or where one of them fails, the others end with the block that they have."""
    with ThreadPoolExecutor(count) as pool:
        try:
            for future in [pool.submit(work) for _ in range(count)]:
                future.result()
        finally:
            stop.set()


def judge(outcome: Outcome, valid: Outcome, settings: FuzzSettings) -> Outcome:
    """Its verdict also from what it took, beside what valid input takes at most."""
    if outcome.verdict not in GOOD:
        return outcome
    if outcome.seconds > max(settings.seconds, valid.seconds):
        text = f"{outcome.seconds:.2f} s of the processor (valid input: {valid.seconds:.2f} s): {outcome.text}"
        return replace(outcome, verdict="slow", text=text)
    if outcome.bytes > max(settings.floor, settings.times * valid.bytes):
        text = f"{outcome.bytes >> 20} MiB (valid input: {valid.bytes >> 20} MiB): {outcome.text}"
        return replace(outcome, verdict="memory", text=text)
    return outcome


def _next(blocks: Iterator[int], lock: Lock) -> int | None:
    with lock:
        return next(blocks, None)


def _kept(settings: FuzzSettings, corpus: Corpus, outcome: Outcome) -> Outcome:
    """The input of a finding is written down."""
    if outcome.verdict in GOOD:
        return outcome
    case = make_case(corpus, settings.seed, outcome.number, settings.targets)
    folder = settings.out / "failures" / f"{outcome.number:09d}-{case.target}-{outcome.verdict}"
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in case.files.items():
        write_atomic(folder / name, data or b"")
    command = (
        f"vidlbc qa fuzz out={settings.out}/replay first={outcome.number} count=1 seed={settings.seed}"
        f" targets=[{','.join(settings.targets)}] max_pixels={settings.max_pixels}"
    )
    removed = [name for name, data in case.files.items() if data is None]
    told = f"{outcome.verdict}\n{outcome.text}\noptions: {case.options}\nremoved: {removed}\nreplay: {command}\n"
    write_atomic(folder / "finding.txt", told.encode())
    return replace(outcome, target=case.target)


def _add(tallies: Tallies, outcome: Outcome) -> None:
    tally = tallies.setdefault(outcome.target, Tally())
    tally.verdicts[outcome.verdict] += 1
    tally.seconds = max(tally.seconds, outcome.seconds)
    tally.bytes = max(tally.bytes, outcome.bytes)


def _what(settings: FuzzSettings) -> dict[str, object]:
    """What a run that goes on must share with the one before."""
    names: Sequence[str] = ("first", "seed", "seconds", "times", "floor", "max_pixels")
    return {**{name: getattr(settings, name) for name in names}, "targets": list(settings.targets)}


def _resumed(settings: FuzzSettings) -> tuple[Tallies, int]:
    path = settings.out / "fuzz.json"
    if not path.is_file():
        return {}, 0
    stored = json.loads(path.read_text())
    if stored["settings"] != _what(settings) or stored["done"] > settings.count:
        raise InputError(f"{settings.out}: holds a run of other settings; choose another folder")
    return {name: Tally(**tally) for name, tally in stored["targets"].items()}, stored["done"]


def _write(settings: FuzzSettings, tallies: Tallies, done: int) -> None:
    rows = {name: asdict(tally) for name, tally in sorted(tallies.items())}
    data = {"settings": _what(settings), "done": done, "targets": rows}
    write_atomic(settings.out / "fuzz.json", dump_json(data, indent=1))
