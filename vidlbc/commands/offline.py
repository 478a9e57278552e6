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
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.offline.plan import OfflinePlan, read_plan, scaled, with_calls
from vidlbc.run.configs import checkout, configs_folder
from vidlbc.run.options import option


@dataclass
class Options:
    """See `--help`."""

    command: str = option(
        "pack", "pack, run (on the node), join, dry (all of it here, scaled down) or measure; may be the first word"
    )
    plan: str | None = option(None, "a plan of configs/offline/, or a YAML file")
    data: str | None = option(None, "pack, dry: folder that the plan's sources lie in; measure: folder of clips")
    out: str | None = option(
        None, "pack: folder of packs; join: of the model; dry: of everything; measure: of metrics.json"
    )
    device: str = option("auto", "auto, cpu or cuda: of the node")
    part_mb: float | None = option(None, "MiB of a file: null is 60 for a pack's tar, 16 for results")
    parts: int = option(8, "run: files in the results folder, at most")
    total_mb: float = option(64.0, "run: MiB of them together; two generations fit, so that one is always whole")
    call_minutes: float = option(10.0, "minutes of a call (one command on the node); the plan goes on between calls")
    command_chars: int = option(2000, "characters of a command")
    root: str | None = option(None, "folder on the node that everything lives in; pack: null is /tmp/vidlbc")
    results: str | None = option(
        None,
        "run: folder that is brought home after each call, pack: as the node's shell is to read it, null "
        "is $OUT; join: what came home",
    )
    until: str | None = option(
        None,
        "run, first call: HH:MM, an ISO time, @SECONDS or +MINUTES at which the plan is cut; null: as the plan says",
    )
    called: str | None = option(None, "run: @SECONDS since the epoch at which the call began; null is now")
    collect_s: float = option(90.0, "run: seconds between two generations of results")
    spare_s: float = option(20.0, "run: seconds before the end of a call at which the last results are written")
    scale: float | None = option(
        None, "pack, dry: share of the plan's minutes that a rehearsal takes; null: the plan itself"
    )
    least_s: float = option(40.0, "with scale=: seconds of a step, at least")
    node_python: str | None = option(
        None, "dry: file of the Python that stands for the node's; null is the one that runs here"
    )
    wheels: str | None = option(
        None, "pack: folder of wheels for the node; an empty or missing one is filled by pip; null: none travel"
    )
    packages: list[str] = option(
        [
            "antlr4-python3-runtime==4.9.3",
            "hydra-core==1.3.8",
            "omegaconf==2.3.1",
            "constriction==0.5.0",
            "pytorch-msssim==1.0.0",
        ],
        "pack: those wheels; versions pinned",
    )
    python: str = option("3.12", "pack: the node's Python, for the wheels")
    platforms: list[str] = option(
        ["manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"],
        "pack: the node's platform tags, for the wheels",
    )
    step: str | None = option(None, "join: the step whose model it is; null: the last that left weights")
    log: str | None = option(None, "join: file to append the log entry to")
    model: str = option("default", "measure: shipped model or model folder")
    temporal: str | None = option(None, "measure: transformer, lstm or none; null is the model's own")
    what: list[str] = option(["symbols", "speeds", "precisions"], "measure: which")
    qps: list[int] = option(
        [8, 32, 56], "measure: one after another for symbols; all for precisions; the middle one for speeds"
    )
    clips: int = option(10, "measure: how many, evenly spread")
    frames: int = option(16, "measure: of each, at most")


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


def _plan(config: DictConfig) -> OfflinePlan:
    plan = with_calls(read_plan(config.plan, configs_folder() / "offline"), config.call_minutes)
    return plan if config.scale is None else scaled(plan, config.scale, config.least_s)


def pack(config: DictConfig) -> None:
    from vidlbc.offline.packing import describe, make_packs

    print(describe(make_packs(_plan(config), _pack_settings(config, Path(config.out)))))


def _pack_settings(config: DictConfig, out: Path):
    from vidlbc.offline.packing import PackSettings

    usual = compose("offline")
    return PackSettings(
        data=Path(config.data).resolve(),
        out=out,
        repo=_repo(),
        compose=compose,
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
