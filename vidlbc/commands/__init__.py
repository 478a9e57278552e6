"""The commands:  vidlbc COMMAND key=value ...;  python tools/NAME.py of a checkout is the same.

A command is a module with `main(config)` and the dataclass `Options` (vidlbc.run.options); `--help` prints its
docstring and its options. One more is a line below.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NoReturn

from omegaconf import DictConfig

from vidlbc.run.cli import BAD_INPUT, reader_left, run
from vidlbc.run.compose import load

COMMANDS = {
    "pretrain_video": "vidlbc.commands.pretrain_video",
    "pretrain_image": "vidlbc.commands.pretrain_image",
    "encode": "vidlbc.commands.encode",
    "decode": "vidlbc.commands.decode",
    "evaluate": "vidlbc.commands.evaluate",
    "shards": "vidlbc.commands.shards",
    "models": "vidlbc.commands.models",
    "demo": "vidlbc.commands.demo",
}
MORE = {
    "verify": "vidlbc.commands.verify",
    "pretrain_decoder": "vidlbc.commands.pretrain_decoder",
    "encode_shard": "vidlbc.commands.encode_shard",
    "offline": "vidlbc.commands.offline",
}
EXPERIMENTS = {
    "accuracy_curve": "vidlbc.experiments.accuracy_curve.command",
    "adaptive_ratio": "vidlbc.experiments.learning_by_compression.adaptive_ratio_command",
    "compare_blocks": "vidlbc.experiments.blocks.command",
    "compare_rates": "vidlbc.experiments.rates.command",
    "learn_by_compression": "vidlbc.experiments.learning_by_compression.command",
    "machine_perception": "vidlbc.experiments.machine_perception.command",
    "scalable": "vidlbc.experiments.scalable.command",
    "transfer": "vidlbc.experiments.transfer.command",
}
QUALITY = {
    "benchmark": "vidlbc.qa.benchmark.command",
    "fuzz": "vidlbc.qa.fuzz.command",
    "soak": "vidlbc.qa.soak.command",
}
_GROUPS = {"experiment": EXPERIMENTS, "qa": QUALITY}
_HELP = ("-h", "--help", "help")


def command_module(name: str) -> ModuleType:
    """The module of a command of any kind, by its name."""
    return importlib.import_module({**COMMANDS, **MORE, **EXPERIMENTS, **QUALITY}[name])


def run_command(name: str, argv: Sequence[str] | None = None, usage: str | None = None) -> NoReturn:
    """Run a command and exit. `argv`: default `sys.argv[1:]`; `usage`: how it is called, for `--help`."""
    module = command_module(name)
    arguments = list(sys.argv[1:] if argv is None else argv)
    run(module.main, module.Options, name, [*getattr(module, "GIVEN", ()), *arguments], usage=usage)


def compose(name: str, arguments: Sequence[str] = ()) -> DictConfig:
    """The config of a command, as its `main` gets it. Raises InputError."""
    return load(command_module(name).Options, name, arguments)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """`vidlbc COMMAND ...`, `vidlbc experiment NAME ...`, `vidlbc qa NAME ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    known: Mapping[str, str] = {**COMMANDS, **MORE}
    path = ["vidlbc"]
    if words and words[0] in _GROUPS:
        known = _GROUPS[words[0]]
        path.append(words.pop(0))
    if not words or words[0] in _HELP:
        try:
            print(_overview(path, known), flush=True)
        except BrokenPipeError:
            reader_left()
        sys.exit(0)
    name = words[0].replace("-", "_")
    if name not in known:
        listed = ", ".join(_typed(each) for each in known)
        groups = "" if len(path) > 1 else "; experiment NAME and qa NAME for the rest"
        print(
            f"error: {' '.join([*path, words[0]])}: no such command, expected one of {listed}{groups}", file=sys.stderr
        )
        sys.exit(BAD_INPUT)
    run_command(name, words[1:], usage=" ".join([*path, _typed(name)]))


def _typed(name: str) -> str:
    return name.replace("_", "-")


def _overview(path: Sequence[str], known: Mapping[str, str]) -> str:
    """Commands, a line each."""
    shown = COMMANDS if len(path) == 1 else known
    lines = [f"usage: {' '.join(path)} COMMAND key=value ...", ""]
    width = max(map(len, shown))
    for name in shown:
        purpose = (command_module(name).__doc__ or "").strip().partition("\n")[0]
        lines.append(f"  {_typed(name).ljust(width)}  {purpose}")
    if len(path) == 1:
        lines += ["", f"also: {', '.join(map(_typed, MORE))}"]
        for group, members in _GROUPS.items():
            lines.append(f"vidlbc {group} NAME: {', '.join(map(_typed, members))}")
    lines += ["", "COMMAND --help lists its options"]
    return "\n".join(lines)
