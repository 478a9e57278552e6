"""The one door between a shell and the package: overrides in, a composed config out, every failure one line.

    configs/NAME.yaml + configs/GROUP/CHOICE.yaml --compose--> config --key=value--> config --> main(config)

Every command (vidlbc.commands) is run by `run(main, "NAME")`. Hydra only composes: no output folder, no logging.

    qp=40                  sets a value; its type must be that of the default
    temporal=lstm          picks a choice of a group (a folder of configs/)
    experiment=demo        lays configs/experiment/demo.yaml over the defaults, whose options alone it may set; new ones
                           only as mandatory (`???`)
    +key=value             adds a key that the config does not have
    verify                 as the first word: command=verify, of a tool that has several
    debug=true             shows the stack trace of an error;   --cfg prints the composed config;   --help lists all

Where the default is text, or must be given (`???`), the value arrives as the text typed, so that a folder called
`2024` or `a,b` needs no quoting; elsewhere Hydra's grammar reads it. `null` is accepted where the default is null, or
where the comment beside it in configs/ says what null means.

Exit status: 0; 2 for bad input; 1 for a defect (with its stack trace); 130 when interrupted. Under torchrun one process
tells, and all end so.
"""

from __future__ import annotations

import difflib
import errno
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidlbc.errors import InputError, VidlbcError
from vidlbc.run.cli_help import comments, describe
from vidlbc.run.cli_values import parse, typed
from vidlbc.run.composed import keys_of, options_of, parent_of
from vidlbc.run.configs import configs_folder

BAD_INPUT, DEFECT, INTERRUPTED = 2, 1, 130
EXPERIMENT = "experiment"
COMMAND = "command"
# What provides a module, where it is called otherwise.
_DISTRIBUTION = {"cv2": "opencv-python-headless", "PIL": "pillow", "pytorch_msssim": "pytorch-msssim"}


def run(
    main: Callable[[DictConfig], int | None],
    config_name: str,
    argv: Sequence[str] | None = None,
    config_dir: Path | None = None,
    usage: str | None = None,
) -> NoReturn:
    """Compose `configs/<config_name>.yaml` with the overrides in `argv` (default `sys.argv[1:]`), call `main`, exit.

    `config_dir` defaults to `configs/` beside the folder of the file that defines `main`, whatever the current folder,
    and where it has no such config, to the project's own. `usage`: how the command is called, for `--help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _pop_debug(arguments)
    folder = config_dir or _folder_of(main, config_name)
    try:
        if {"-h", "--help"} & set(arguments):
            rest = [argument for argument in arguments if argument not in ("-h", "--help")]
            print(describe(main, usage, folder, config_name, *load_with_choices(folder, config_name, rest)))
            sys.exit(0)
        if "--cfg" in arguments:
            arguments.remove("--cfg")
            print(OmegaConf.to_yaml(load_with_choices(folder, config_name, arguments)[0]), end="")
            sys.exit(0)
        sys.exit(main(load(folder, config_name, arguments)) or 0)
    except KeyboardInterrupt:
        _show_trace(debug)
        if _tells():
            print("\ninterrupted: run the same command to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        reader_left()
    except Exception as error:
        line = explain(error)
        if line is None:
            # A defect of ours: after hours on a cluster, the trace is worth more than a tidy line.
            if _tells():
                traceback.print_exc()
            sys.exit(DEFECT)
        _show_trace(debug)
        if _tells():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def reader_left() -> NoReturn:
    """The reader of our output left (`| head`): not an error; keep the interpreter from flushing into it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _folder_of(main: Callable[..., Any], config_name: str) -> Path:
    own = Path(inspect.getfile(main)).resolve().parent.parent / "configs"
    return own if (own / f"{config_name}.yaml").is_file() else configs_folder()


def _tells() -> bool:
    """Of the processes that torchrun has started, one tells what went wrong."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    from vidlbc.run.distributed import first_to_tell

    return first_to_tell()


def explain(error: Exception) -> str | None:
    """One line for an error that the user can mend; None for a defect."""
    text = " ".join(str(error).split())
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        place = f" (writing {error.filename})" if isinstance(error, OSError) and error.filename else ""
        return f"no space left on the disk{place}: free some, then run the same command to resume"
    if isinstance(error, VidlbcError):
        return text or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "vidlbc":
        module = error.name.partition(".")[0]
        install = f"pip install {_DISTRIBUTION.get(module, module)}"
        return f"the package {module} is needed for this and not installed: {install}"
    about_a_path = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    if isinstance(error, about_a_path) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OmegaConfBaseException):
        return f"configuration: {text}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch need not be imported to name it
        return f"out of GPU memory: use smaller batches or device=cpu ({text[:120]})"
    return None


def load(folder: Path, name: str, arguments: Sequence[str]) -> DictConfig:
    """Compose `folder/name.yaml` with `key=value` arguments.

    Raises InputError, one line, for an unknown key, a value of the wrong type, an unknown choice, or a mandatory value
    (`???`) that is missing.
    """
    config, choices = load_with_choices(folder, name, arguments)
    missing = [key for key in keys_of(config) if OmegaConf.is_missing(*parent_of(config, key))]
    if missing:
        meaning = comments(folder, name, choices).get(missing[0])
        raise InputError(f"missing value: give {missing[0]}=..." + (f" ({meaning})" if meaning else ""))
    return config


def load_with_choices(folder: Path, name: str, arguments: Sequence[str]) -> tuple[DictConfig, dict[str, str | None]]:
    """As `load`, but mandatory values may be missing; also the choice made in each group, {group: choice}."""
    if not (folder / f"{name}.yaml").is_file():
        raise InputError(f"{folder / name}.yaml: no such config")
    base, choices = _compose(folder, name, [])
    groups: list[str] = []
    values: list[tuple[str, str]] = []
    if _has(base, COMMAND) and arguments and arguments[0].isidentifier():
        arguments = [f"{COMMAND}={arguments[0]}", *arguments[1:]]
    for argument in arguments:
        key, text = _split(argument)
        bare = key.lstrip("+")
        if bare in choices or (options_of(folder, bare) and not _has(base, bare)):
            groups.append(_group_override(folder, bare, text, choices))
        else:
            values.append((key, text))
    if groups:
        base_choices = choices
        config, choices = _compose(folder, name, groups)
        _check_experiment(folder, name, config, choices, base_choices)
    else:
        config = base
    for key, text in values:
        nullable = text == "null" and _null_is_good(folder, name, choices, (config, base), key)
        _set(config, key, text, nullable, known=[*keys_of(config), *choices])
    return config, choices


def _compose(folder: Path, name: str, overrides: list[str]) -> tuple[DictConfig, dict[str, str | None]]:
    """The config, and the choice made in each of its groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            config = compose(name, overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        raise InputError(f"{name}.yaml: {' '.join(str(error).split())}") from error
    choices = {str(k): v for k, v in config.hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config, choices


def _check_experiment(
    folder: Path, name: str, config: DictConfig, choices: dict[str, str | None], base_choices: dict[str, str | None]
) -> None:
    """Raises InputError where the experiment is another tool's: what it sets would be there, and change nothing."""
    experiment = choices.get(EXPERIMENT)
    if experiment is None:
        return
    # The same config but for the experiment, which may itself choose in groups.
    others = [
        f"{'' if group in base_choices else '+'}{group}={'null' if choice is None else choice}"
        for group, choice in choices.items()
        if group != EXPERIMENT
    ]
    known = set(keys_of(_compose(folder, name, others)[0]))
    foreign = [k for k in keys_of(config) if k not in known and not OmegaConf.is_missing(*parent_of(config, k))]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise InputError(f"experiment={experiment} sets {shown}, which {name} does not have: is it another tool's?")


def _split(argument: str) -> tuple[str, str]:
    key, equals, text = argument.partition("=")
    if argument.startswith("-"):
        if argument in ("-m", "--multirun") or key == "--multirun":
            raise InputError(f"{argument} is not supported: run the command once for each value")
        hint = f"write {argument.lstrip('-')} without dashes" if equals else "options are key=value"
        raise InputError(f"{argument} is not an option: {hint} (--help lists all)")
    if not equals or not key.lstrip("+"):
        raise InputError(f"{argument!r} is not key=value (--help lists all options)")
    return key, text


def _group_override(folder: Path, group: str, choice: str, choices: dict[str, str | None]) -> str:
    options = options_of(folder, group.partition("@")[0])
    if choice not in options and choice != "null":
        expected = f"expected one of {', '.join(options)}{_near(choice, options)}"
        raise InputError(f"{group}={choice}: no such choice; {expected}")
    # A group that the config's own defaults list does not name (experiment=...) is appended to it.
    return f"{'' if group in choices else '+'}{group}={choice}"


def _null_is_good(
    folder: Path, name: str, choices: dict[str, str | None], configs: Sequence[DictConfig], key: str
) -> bool:
    """An experiment may have replaced a null by a number: the config without it counts too."""
    if any(_has(config, key) and _current(config, key) is None for config in configs):
        return True
    return "null" in comments(folder, name, choices).get(key, "").replace(":", " ").replace(";", " ").split()


def _set(config: DictConfig, key: str, text: str, may_be_null: bool, known: list[str]) -> None:
    add, key = key.startswith("+"), key.lstrip("+")
    if not add and not _has(config, key):
        raise InputError(f"unknown option {key!r} (in {key}={text}){_near(key, known) or '; --help lists all'}")
    if not _has(config, key):
        OmegaConf.update(config, key, parse(key, text), force_add=True)
        return
    OmegaConf.update(config, key, typed(key, text, _current(config, key), may_be_null), force_add=True)


def _has(config: DictConfig, key: str) -> bool:
    parent, last = parent_of(config, key)
    return isinstance(parent, DictConfig) and last in parent.keys()


def _current(config: DictConfig, key: str) -> Any:
    parent, last = parent_of(config, key)
    if OmegaConf.is_missing(parent, last):
        return "???"
    # An interpolation that needs a value not given yet accepts anything, like null.
    return OmegaConf.select(config, key, throw_on_resolution_failure=False)


def _near(word: str, known: Sequence[str]) -> str:
    last = {key.rpartition(".")[2]: key for key in reversed(known)}
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    near += [last[tail] for tail in difflib.get_close_matches(word.rpartition(".")[2], list(last), n=2, cutoff=0.75)]
    unique = list(dict.fromkeys(near))[:3]
    return f"; did you mean {' or '.join(unique)}?" if unique else ""


def _pop_debug(arguments: list[str]) -> bool:
    debug = False
    for argument in [a for a in arguments if a.lstrip("+").startswith("debug=")]:
        arguments.remove(argument)
        debug = argument.partition("=")[2].lower() in ("true", "1", "yes", "on")
    return debug


def _show_trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()
