"""A rehearsal on this machine: the commands as they are printed, in a folder that holds nothing else, with kills.

    OUT/packs   as `pack` writes them
    OUT/node    the node: the carried parts, and its root
    OUT/calls/N results of call N, as they would come home
    OUT/model   joined, loaded, and its symbols compared both ways

Between the first and the second call the runner is killed; the second call is killed half-way, and made again.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidlbc.errors import InputError, VidlbcError
from vidlbc.offline.commands import Command
from vidlbc.offline.join import join
from vidlbc.offline.measure import both_ways, read_clips, sides
from vidlbc.offline.packing import PackSettings, describe, make_packs
from vidlbc.offline.plan import OfflinePlan
from vidlbc.offline.runner import hold
from vidlbc.offline.state import Root
from vidlbc.run.tables import format_table

_CLIPS, _FRAMES, _QPS = 2, 4, (16, 40)


@dataclass(frozen=True)
class Made:
    """A call as it went. `took`: seconds."""

    what: str
    took: float
    limit: float
    told: str


def rehearse(plan: OfflinePlan, settings: PackSettings, out: Path, python: str) -> str:
    """What happened, in words. `plan`: with its calls, scaled; `python`: the node's `python3`.

    Raises InputError or VidlbcError where the chain breaks.
    """
    _empty(out)
    shortest = 60 * min(plan.calls)
    times = {"spare_s": round(0.15 * shortest, 1), "collect_s": round(0.25 * shortest, 1)}
    options = {**times, **settings.options, "device": "cpu"}
    node, root = out / "node", out / "node" / "root"
    packs = make_packs(plan, replace(settings, root=str(root), results="$OUT", options=options))
    node.mkdir()
    made: list[Made] = []
    for place, command in enumerate(packs.commands):
        carried = _carry(command, node)
        if place == 1:
            made.append(Made("runner killed", 0.0, 0.0, _kill_runner(Root(root))))
            made.append(_call(carried, node, python, out / "calls" / "killed", kill_at=30 * command.minutes))
        made.append(_call(carried, node, python, out / "calls" / str(place + 1)))
    run, step, _ = join(out / "calls", out / "model")
    clips = read_clips(settings.data, _CLIPS, _FRAMES)
    compared = both_ways(str(out / "model"), None, clips, _QPS, sides("cpu"))
    if any(way.differing for way in compared):
        raise VidlbcError(f"{sum(way.differing for way in compared)} symbols of {out / 'model'} differ")
    rows = [[one.what, f"{one.took:.1f}", f"{one.limit:.1f}" if one.limit else "", one.told] for one in made]
    symbols = sum(way.symbols for way in compared)
    return "\n".join(
        [
            describe(packs),
            format_table(rows, ["call", "seconds", "of", "last line"]),
            "",
            f"joined generation {run.generation.number}: step {step.name} in {out / 'model'}; loaded;"
            f" {symbols} symbols of {len(clips)} clips decoded both ways: 0 differ",
        ]
    )


def _empty(out: Path) -> None:
    own = {"packs", "node", "calls", "model"}
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if found - own:
        raise InputError(f"out={out}: holds {sorted(found - own)[0]}, which is of no rehearsal; choose another folder")
    for name in found:
        shutil.rmtree(out / name)
    out.mkdir(parents=True, exist_ok=True)


def _carry(command: Command, node: Path) -> Command:
    """The command as typed on the node, what it carries lying there."""
    if command.carry is None:
        return command
    there = node / "carried" / command.carry.name
    shutil.copytree(command.carry, there)
    return replace(command, text=command.text.replace(str(command.carry), str(there)), carry=there)


def _call(command: Command, node: Path, python: str, results: Path, kill_at: float | None = None) -> Made:
    results.mkdir(parents=True)
    began = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", command.text],
        cwd=node,
        env=_bare(results, python),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    limit = 60 * command.minutes
    try:
        printed, _ = process.communicate(timeout=kill_at or limit + 30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        if kill_at is None:
            raise VidlbcError(f"a call of {limit:.0f} s did not end by itself: {_last(printed)}") from None
        return Made("call killed", time.monotonic() - began, limit, _last(printed))
    if process.returncode:
        raise VidlbcError(f"a call failed with exit status {process.returncode}: {_last(printed)}")
    return Made("call", time.monotonic() - began, limit, _last(printed))


def _bare(results: Path, python: str) -> Mapping[str, str]:
    """The environment of a node: nothing of this checkout is importable."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSTARTUP")}
    return {**kept, "OUT": str(results), "PATH": f"{Path(python).absolute().parent}{os.pathsep}{os.environ['PATH']}"}


def _last(printed: str) -> str:
    lines: Sequence[str] = [line for line in printed.splitlines() if line.strip()] or ["nothing printed"]
    return next((line for line in lines if line.startswith("error: ")), lines[-1])[:120]


def _kill_runner(root: Root) -> str:
    """SIGKILL, as a node that runs out of memory would; its step is left behind, and must be ended by the next one."""
    with hold(root) as free:
        if free:
            return "it had ended"
    pid = int((root.path / "runner.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    return f"process {pid}"
