"""The SLURM launcher: an array job whose tasks are shards, and a job after it that writes the manifest.

    plan --write_scripts--> OUT/manifest/slurm/encode.sh --sbatch--> task k: shards [k n, (k + 1) n)
                            OUT/manifest/slurm/gather.sh --sbatch, after it--> manifest

A task is `vidlbc encode-shard shards=OUT task=K`: it reads the plan, holds the folder together with the other tasks,
and encodes in a process of its own, which a file may kill. Any launcher goes on where tasks failed.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidlbc.errors import InputError, ShardError
from vidlbc.run.atomic_files import write_atomic
from vidlbc.shards.encode import ShardReport, encode_shard, is_done, load_codec
from vidlbc.shards.launchers.local import LocalEngine
from vidlbc.shards.launchers.progress import metered
from vidlbc.shards.launchers.run import LoadCodec, plan_at_hand, work_off
from vidlbc.shards.layout import MANIFEST, clean_stale, exclusive, shared
from vidlbc.shards.manifest import Manifest, write_manifest
from vidlbc.shards.plan import Plan
from vidlbc.shards.resume import begin
from vidlbc.shards.sources import OpenReader, open_video


@dataclass(frozen=True)
class SlurmSettings:
    """Options of sbatch for a task; None leaves the cluster's default. `limit`: tasks that run at a time.

    `extra`: whole lines of the script after the options, `#SBATCH ...` or commands such as `module load`.
    """

    shards_per_task: int = 1
    partition: str | None = None
    time: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    memory: str | None = None
    limit: int | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("shards_per_task", "cpus", "gpus", "limit"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"slurm.{name}={value}: expected a whole number of at least 1")
        for name, value in (("partition", self.partition), ("time", self.time), ("memory", self.memory)):
            if value is not None and (not str(value) or len(str(value).split()) != 1):
                raise InputError(f"slurm.{name}={value!r}: expected one word, as sbatch takes it")
        if any("\n" in line for line in self.extra):
            raise InputError("slurm.extra: expected a list of single lines")


@dataclass(frozen=True)
class Scripts:
    """What `write_scripts` wrote, and how many shards and tasks are to do."""

    encode: Path
    gather: Path
    shards: int
    tasks: int

    @property
    def commands(self) -> tuple[str, str]:
        """What submits them, for a shell."""
        encode, gather = shlex.quote(str(self.encode)), shlex.quote(str(self.gather))
        return f"job=$(sbatch --parsable {encode})", f'sbatch --dependency=afterany:"${{job%%;*}}" {gather}'


def write_scripts(plan: Plan, settings: SlurmSettings, device: str = "auto") -> Scripts | None:
    """Begin the plan's folder and write the scripts for what is not done; None where everything is.

    Raises ShardError when the folder holds another run, or one is at work in it.
    """
    out = Path(plan.output).resolve()
    with exclusive(out):
        clean_stale(out)
        plan = begin(plan)
        todo = [index for index in range(len(plan.shards)) if not is_done(plan, index)]
        if not todo:
            return None
        folder = out / MANIFEST / "slurm"
        tasks = sorted({index // settings.shards_per_task for index in todo})
        command = [sys.executable, "-m", "vidlbc", "encode-shard", f"shards={out}"]
        each = [f"per_task={settings.shards_per_task}", f"device={device}"]
        array = _ranges(tasks) + (f"%{settings.limit}" if settings.limit else "")
        options = {"array": array, "output": folder / "%a.log", "open-mode": "append", **_options(settings)}
        encode = _script("vidlbc-encode", options, settings.extra, [*command, *each, "task="], "$SLURM_ARRAY_TASK_ID")
        plain = [line for line in settings.extra if not line.startswith("#SBATCH")]
        queue = {"partition": settings.partition} if settings.partition else {}
        options = {"output": folder / "gather.log", "open-mode": "append", **queue}
        gather = _script("vidlbc-gather", options, plain, command)
        write_atomic(folder / "encode.sh", encode.encode())
        write_atomic(folder / "gather.sh", gather.encode())
        return Scripts(folder / "encode.sh", folder / "gather.sh", len(todo), len(tasks))


def submit(scripts: Scripts) -> tuple[str, str]:
    """Submit both; returns the jobs' ids. Raises InputError where there is no sbatch, or it refuses."""
    if shutil.which("sbatch") is None:
        raise InputError(
            f"launcher=slurm: no sbatch on this machine; {scripts.encode} is written: submit it where there is one,"
            " or give slurm.submit=false"
        )
    job = _sbatch(str(scripts.encode))
    return job, _sbatch(f"--dependency=afterany:{job}", str(scripts.gather))


def watch(plan: Plan, job: str, *, seconds: float = 10.0, bar: bool = True) -> int:
    """Show the array's progress until its job has left the queue; returns how many shards are not done then."""
    todo, earlier = [], []
    for index in range(len(plan.shards)):
        if is_done(plan, index):
            earlier.append(encode_shard(plan, index))
        else:
            todo.append(index)
    with metered(plan, earlier, bar) as meter:
        queued = True
        while todo and queued:
            queued = _queued(job)  # asked before the shards are looked at: what ends meanwhile is seen
            finished = {index for index in todo if is_done(plan, index)}
            for index in finished:
                meter.finished(replace(encode_shard(plan, index), skipped=False))
            todo = [index for index in todo if index not in finished]
            meter.show(todo)
            if todo and queued:
                time.sleep(seconds)
    return len(todo)


def _queued(job: str) -> bool:
    """Is any task of `job` waiting or running? A controller that does not answer for a moment counts as yes."""
    done = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True)
    return bool(done.stdout.strip()) if done.returncode == 0 else "Invalid job id" not in done.stderr


def encode_task(
    output: str | Path,
    task: int,
    per_task: int = 1,
    device: str = "auto",
    *,
    load: LoadCodec = load_codec,
    open_reader: OpenReader = open_video,
    bar: bool = True,
) -> list[ShardReport]:
    """One task of the array: shards `[task per_task, (task + 1) per_task)` of the plan in `output`; a report each.

    Any number may run at a time; a shard that another has in work is waited for. Raises ShardError where there is no
    plan, the task is outside it, or another launcher holds the folder.
    """
    for name, value, least in (("task", task, 0), ("per_task", per_task, 1)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name}={value}: expected a whole number of at least {least}")
    plan = plan_at_hand(output)
    indices = range(len(plan.shards))[task * per_task : (task + 1) * per_task]
    if not indices:
        last = (len(plan.shards) - 1) // per_task
        raise ShardError(f"task {task}: the plan of {output} has tasks 0 to {last}, of {per_task} shards each")
    with shared(Path(output)):
        engine = LocalEngine(1, device, load=load, open_reader=open_reader)
        return work_off(plan, indices, engine, begun=indices, bar=bar)


def gather_finished(output: str | Path) -> Manifest:
    """Write the manifest of a folder whose tasks are over. Raises ShardError, naming a shard, when some are missing."""
    plan = Plan.load(output)
    with exclusive(Path(output)):
        return write_manifest(plan)


def _options(settings: SlurmSettings) -> dict[str, object]:
    wanted = {
        "partition": settings.partition,
        "time": settings.time,
        "cpus-per-task": settings.cpus,
        "gpus-per-task": settings.gpus,
        "mem": settings.memory,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _script(
    name: str, options: dict[str, object], extra: Iterable[str], command: Sequence[str], variable: str = ""
) -> str:
    lines = ["#!/bin/bash", f"#SBATCH --job-name={name}"]
    lines += [f"#SBATCH --{option}={_sbatch_quoted(str(value))}" for option, value in options.items()]
    lines += [*extra, f"exec {shlex.join(command)}{variable}"]
    return "\n".join(lines) + "\n"


def _sbatch_quoted(value: str) -> str:
    """sbatch splits its lines at blanks, and knows double quotes."""
    return f'"{value}"' if len(value.split()) != 1 else value


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3,7,9-10`: rising numbers as an array's list."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _sbatch(*arguments: str) -> str:
    done = subprocess.run(["sbatch", "--parsable", *arguments], capture_output=True, text=True)
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        hint = "; the cluster's MaxArraySize bounds its tasks: raise slurm.shards_per_task" if "rray" in told else ""
        raise InputError(f"sbatch {arguments[-1]}: {told}{hint}")
    return done.stdout.strip().partition(";")[0]
