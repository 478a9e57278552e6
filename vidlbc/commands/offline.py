"""Training on a machine that reaches nothing: tars go there, weights come back (docs/offline.md).

vidlbc offline pack plan=half_hour data=DATA out=PACKS     at home: tars, and the commands to type there
python3 PACKS/0/start.py root=FOLDER results=FOLDER                 on the node, by itself: unpack, then `run`
vidlbc offline join results=FOLDER out=MODEL               at home: a model folder, its card, a log entry
vidlbc offline dry plan=half_hour data=DATA out=FOLDER     all of it here, scaled down, with kills between
vidlbc offline measure model=default data=CLIPS out=FOLDER one device against another, speeds, bf16
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from vidlbc.errors import InputError
from vidlbc.offline.plan import Plan, read_plan, scaled, with_calls
from vidlbc.run.cli import load
from vidlbc.run.configs import checkout, configs_folder

_PACK_MB, _RESULTS_MB = 60.0, 16.0
# Options that the printed commands hand on to `run`, where they are not what it takes by itself.
_HANDED_ON = ("device", "parts", "total_mb", "collect_s", "spare_s")


def main(config: DictConfig) -> None:
    commands: dict[str, tuple[Callable[[DictConfig], None], tuple[str, ...]]] = {
        "pack": (pack, ("plan", "data", "out")),
        "run": (run_call, ("root", "results")),
        "join": (join, ("results", "out")),
        "dry": (dry, ("plan", "data", "out")),
        "measure": (measure, ("data", "out")),
    }
    if config.command not in commands:
        raise InputError(f"command={config.command}: expected one of {', '.join(commands)}")
    command, needed = commands[config.command]
    for key in needed:
        if config[key] is None:
            raise InputError(f"missing value: {config.command} needs {key}=...")
    command(config)


def _plan(config: DictConfig) -> Plan:
    plan = with_calls(read_plan(config.plan, configs_folder() / "offline"), config.call_minutes)
    return plan if config.scale is None else scaled(plan, config.scale, config.least_s)


def pack(config: DictConfig) -> None:
    from vidlbc.offline.packing import describe, make_packs

    print(describe(make_packs(_plan(config), _pack_settings(config, Path(config.out)))))


def _pack_settings(config: DictConfig, out: Path):
    from vidlbc.offline.packing import PackSettings

    usual = load(configs_folder(), "offline", [])
    return PackSettings(
        data=Path(config.data).resolve(),
        out=out,
        repo=_repo(),
        wheels=None if config.wheels is None else Path(config.wheels),
        packages=tuple(config.packages),
        python=str(config.python),
        platforms=tuple(config.platforms),
        part=int((config.part_mb or _PACK_MB) * 2**20),
        command_chars=config.command_chars,
        root=config.root or "/tmp/vidlbc",
        results=config.results or "$OUT",
        options={name: config[name] for name in _HANDED_ON if config[name] != usual[name]},
    )


def _repo() -> Path:
    """What a pack carries code from. Raises InputError where there is only an installed package."""
    repo = checkout()
    if repo is None:
        raise InputError("offline pack and dry carry a checkout of vidlbc along: run them in one")
    return repo


def run_call(config: DictConfig) -> None:
    from vidlbc.offline.call import CallSettings, make_call
    from vidlbc.offline.results import Limits

    limits = Limits(int((config.part_mb or _RESULTS_MB) * 2**20), config.parts, int(config.total_mb * 2**20))
    settings = CallSettings(
        root=Path(config.root).resolve(),
        results=Path(config.results).resolve(),
        limits=limits,
        device=config.device,
        called=time.time() if config.called is None else float(str(config.called).removeprefix("@")),
        over_s=60 * config.call_minutes,
        spare_s=config.spare_s,
        collect_s=config.collect_s,
        deadline=_deadline(config.until),
    )
    print("the plan is over" if make_call(settings) else "the plan goes on: make the next call")


def _deadline(until: str | None) -> float | None:
    from vidlbc.train.schedule import time_of_day

    return None if until is None else time_of_day(str(until), option="until")


def join(config: DictConfig) -> None:
    from vidlbc.offline.join import join as join_results

    log = None if config.log is None else Path(config.log)
    run, step, entry = join_results(Path(config.results), Path(config.out), config.step, log)
    print(entry)
    if run.generation.passed_over:
        print(f"note: passed over: {run.generation.passed_over}")
    if run.generation.left_out:
        print(f"did not fit: {', '.join(run.generation.left_out)}")
    print(f"model: {config.out}, step {step.name}, generation {run.generation.number}   use it: model={config.out}")


def dry(config: DictConfig) -> None:
    from vidlbc.offline.rehearsal import rehearse

    out = Path(config.out).resolve()
    print(rehearse(_plan(config), _pack_settings(config, out / "packs"), out, config.node_python or sys.executable))


def measure(config: DictConfig) -> None:
    from vidlbc.offline.measure import MeasureSettings, measure_all, table

    settings = MeasureSettings(
        config.model,
        config.temporal,
        Path(config.data),
        Path(config.out),
        config.device,
        tuple(config.qps),
        config.clips,
        config.frames,
        tuple(config.what),
    )
    print(table(measure_all(settings)))
