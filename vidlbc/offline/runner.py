"""The process on the node that runs a plan's steps, in a session of its own: calls come and go, it stays.

    python -m vidlbc.offline.runner ROOT

A step is a command of this project. One that fails, or is still at work when its time is over, is recorded, and the
next one starts. A runner that was killed is started again by the next call, and goes on: training resumes from its
checkpoint.
"""

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vidlbc.errors import InputError, VidlbcError, one_line
from vidlbc.offline import process, weights
from vidlbc.offline.plan import Choice, OfflinePlan, Step, fill, merged, placeholders
from vidlbc.offline.state import CUT, DONE, ENDED, FAILED, RUNNING, SKIPPED, Call, Record, Root
from vidlbc.run.atomic_files import write_atomic

_POLL_S = 0.5
_AT_WORK = "at-work"


@contextmanager
def hold(root: Root, wait_s: float = 0.0) -> Iterator[BinaryIO | None]:
    """The lock, where this process is the only runner, else None; the kernel frees it however one dies.

    `wait_s`: who only looks whether there is a runner holds the lock for a moment too.
    """
    until = time.monotonic() + wait_s
    with open(root.path / ".runner", "a+b") as lock:
        while not (free := _locked(lock)) and time.monotonic() < until:
            time.sleep(0.05)
        yield lock if free else None


def _locked(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Runner:
    """Runs what is left of the plan of `root`."""

    def __init__(self, root: Root):
        call = root.call()
        if call is None:
            raise InputError(f"{root.path}: no call was made here; `vidlbc offline run` starts the runner")
        self.root, self.call = root, call
        self.plan, self.needs, _ = root.pack()
        self.records = root.records(self.plan)

    def run(self) -> None:
        process.stop_left(self.root.path)
        for step in self.plan.steps:
            record = self.records[step.name]
            if record.status not in ENDED:
                try:
                    self._step(step, record)
                except Exception as error:  # whatever it is, the steps behind it get their time
                    record.status = FAILED
                    record.reasons.append(f"{type(error).__name__}: {one_line(error)}")
                record.ended = time.time()
                self._write()

    def _step(self, step: Step, record: Record) -> None:
        end = end_of(step, self.call)
        record.started = record.started or time.time()
        if not self._arrived(step, end):
            record.status = CUT if record.out else SKIPPED
            here = self.root.has(self.needs[step.name])
            record.reasons.append("its time was over" if here else "its data never came")
        elif step.choose is not None and record.chosen is None:
            record.chosen, told = choose(step.choose, self.records)
            record.reasons.append(told)
        while record.status not in ENDED:
            left = end - 60 * step.closing - time.time()
            if left <= 0 and any("until" in placeholders(text) for text in step.args):
                record.status = CUT if record.out else SKIPPED
                record.reasons.append("its training time was over")
                break
            began = time.time()
            status = self._attempt(step, record, end)
            spent, left = time.time() - began, end - 60 * step.closing - time.time()
            # Anew where most of the time is left: what was trained until then is worth more than a short run.
            again = status == FAILED and record.attempt < len(step.otherwise) and left > spent
            if again:
                record.attempt += 1
            else:
                record.status = status
        self._finish(step, record)

    def _arrived(self, step: Step, end: float) -> bool:
        while time.time() < end and not self.root.has(self.needs[step.name]):
            time.sleep(_POLL_S)
        return time.time() < end

    def _attempt(self, step: Step, record: Record, end: float) -> str:
        out = self._out(step, record.attempt)
        record.out = str(out)
        record.args = arguments(self.plan, step, record, self._values(step, out, end))
        lacking = [name for text in record.args for name in placeholders(text)]
        if lacking:
            record.reasons.append(f"step {lacking[0]} left no model")
            return FAILED
        tool, *words = step.run.split()
        first = [tool] if tool == "-m" else [str(self.root.path / "code" / tool)]
        command = [sys.executable, *first, *words, *record.args]
        log = self.root.path / "out" / f"{step.name}.log"
        record.status = RUNNING
        self._write()
        started = process.start(command, self.root.path, log)
        mark = None if step.done is None else out / step.done
        over = (lambda: False) if mark is None else mark.is_file
        record.exit = process.wait(started, end, over)
        if record.exit is None:
            return DONE if over() else CUT
        if record.exit:
            record.reasons.append(f"attempt {record.attempt + 1}: exit status {record.exit}: {last_line(log)}")
        return FAILED if record.exit else DONE

    def _out(self, step: Step, attempt: int) -> Path:
        return self.root.path / "out" / (f"{step.name}.{attempt + 1}" if attempt else step.name)

    def _values(self, step: Step, out: Path, end: float) -> dict[str, str]:
        """What the placeholders stand for; names of steps that left no model are missing."""
        values = {
            "data": str(self.root.path / "data"),
            "out": str(out),
            "device": self.call.device,
            "until": f"@{max(end - 60 * step.closing, 0):.0f}",
        }
        for other in self.plan.steps[: self.plan.steps.index(step)]:
            left = Path(self.records[other.name].out or ".")
            if not weights.trains(other.run) or weights.is_model(other.run, left):
                values[other.name] = str(weights.model_folder(other.run, left))
        return values

    def _finish(self, step: Step, record: Record) -> None:
        """A model of a training that was stopped or failed, of its last attempt that left weights: what is next builds
        on it."""
        if not weights.trains(step.run) or not record.out:
            return
        outs = [self._out(step, attempt) for attempt in range(record.attempt, -1, -1)]
        record.out = str(next((out for out in outs if weights.has_weights(step.run, out)), outs[0]))
        try:
            made_of = weights.finish(step.run, Path(record.out))
        except (VidlbcError, ArithmeticError, KeyError, OSError, ValueError) as error:
            record.reasons.append(f"no model: {one_line(error)}")
            return
        if made_of is not None:
            record.reasons.append(f"stopped before its end: the model is that of step {made_of}")

    def _write(self) -> None:
        self.root.write_records(self.records)


def end_of(step: Step, call: Call) -> float:
    """Seconds since the epoch."""
    return min(call.began + 60 * step.until, call.deadline)


def arguments(plan: OfflinePlan, step: Step, record: Record, values: Mapping[str, str]) -> list[str]:
    """Those of the attempt, filled in; what has no value stays in braces."""
    variant = next((other.variant for other in plan.steps if other.name == record.chosen), step.variant)
    args = merged(step.args, variant)
    if record.attempt:
        args = merged(args, step.otherwise[record.attempt - 1])
    return [fill(text, values) for text in args]


def choose(choice: Choice, records: Mapping[str, Record]) -> tuple[str, str]:
    """The best step, and why; where none left a figure, the first."""
    figures = {name: figure(Path(records[name].out), choice.by) for name in choice.of if records[name].out}
    known = {name: value for name, value in figures.items() if value is not None}
    if not known:
        return choice.of[0], f"no {choice.by} of {', '.join(choice.of)}: the first was taken"
    best = (min if choice.best == "min" else max)(known, key=lambda name: known[name])
    return best, f"{choice.by}: {', '.join(f'{name} {value:g}' for name, value in known.items())}"


def figure(out: Path, by: str) -> float | None:
    """The last `by` that a training validated or logged, else that of metrics.json; dots go into sections, of a list
    the last."""
    training = out / "training"
    rows = [
        *_rows(out / "metrics.json", whole=True),
        *_rows(training / "log.jsonl"),
        *_rows(training / "validation.jsonl"),
    ]
    found = [value for row in rows if isinstance(value := _inside(row, by), int | float)]
    return float(found[-1]) if found else None


def _rows(path: Path, whole: bool = False) -> list[Any]:
    """JSON of the file, or of each line; what a killed process left half written is nothing."""
    if not path.is_file():
        return []
    rows = []
    for text in [path.read_text()] if whole else path.read_text().splitlines():
        with suppress(ValueError):
            rows.append(json.loads(text))
    return rows


def _inside(row: Any, by: str) -> Any:
    for key in by.split("."):
        row = row[-1] if isinstance(row, list) and row else row
        row = row.get(key) if isinstance(row, dict) else None
    return row


def last_line(log: Path) -> str:
    """The last that a step printed, errors first."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines[-20:] if line.startswith("error: ")]
    return ([*errors, *lines[-1:]] or ["nothing printed"])[0][:300]


def main() -> None:
    """Returns as soon as the runner is at work, in a session of its own: whoever started it may end."""
    root = Root(Path(sys.argv[1]))
    if sys.argv[2:] == [_AT_WORK]:
        Runner(root).run()
        return
    with hold(root, wait_s=2.0) as lock:
        if lock:
            # A new process, which gets the lock; no fork: a copy lacks the libraries' threads, and waits for them at
            # its end.
            command = [sys.executable, "-m", "vidlbc.offline.runner", sys.argv[1], _AT_WORK]
            at_work = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()], start_new_session=True
            )
            write_atomic(root.path / "runner.pid", f"{at_work.pid}\n".encode())
            at_work.returncode = 0  # nobody waits for it here


if __name__ == "__main__":
    main()
