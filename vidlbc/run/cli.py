"""The one door between a shell and the package: overrides in, a composed config out, every failure one line.

    Options (vidlbc.run.options) + configs/GROUP/CHOICE.yaml --compose--> config --key=value--> config --> main(config)

Every command (vidlbc.commands) is run by `run(main, Options, "NAME")`. Hydra only composes: no output folder, no log.

    qp=40                  sets a value; its type must be that of the option
    temporal=lstm          picks a choice of a group (a folder of configs/)
    experiment=demo        lays configs/experiment/demo.yaml over the defaults, whose options alone it may set; new ones
                           only as mandatory (`???`)
    +key=value             adds a key that the config does not have
    verify                 as the first word: command=verify, of a tool that has several
    debug=true             shows the stack trace of an error;   --cfg prints the composed config;   --help lists all

A value is what the option's type says: where that is text, the value is the text typed, so that a folder called `2024`
or `a,b` needs no quoting; elsewhere Hydra's grammar reads it. `null` is accepted where the type has None.

Exit status: 0; 2 for bad input; 1 for a defect (with its stack trace); 130 when interrupted. Under torchrun one process
tells, and all end so.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidlbc.errors import VidlbcError
from vidlbc.run.cli_help import describe
from vidlbc.run.compose import load, load_with_choices
from vidlbc.run.configs import configs_folder

BAD_INPUT, DEFECT, INTERRUPTED = 2, 1, 130
# What provides a module, where it is called otherwise.
_DISTRIBUTION = {"cv2": "opencv-python-headless", "PIL": "pillow", "pytorch_msssim": "pytorch-msssim"}


def run(
    main: Callable[[DictConfig], int | None],
    options: type,
    name: str,
    argv: Sequence[str] | None = None,
    folder: Path | None = None,
    usage: str | None = None,
) -> NoReturn:
    """Compose the command's options with the overrides in `argv` (default `sys.argv[1:]`), call `main`, exit.

    `name`: the command's, for messages; `folder`: of groups and experiments, by default the project's configs/;
    `usage`: how the command is called, for `--help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _pop_debug(arguments)
    folder = folder or configs_folder()
    try:
        if {"-h", "--help"} & set(arguments):
            rest = [argument for argument in arguments if argument not in ("-h", "--help")]
            print(describe(main, usage, options, folder, *load_with_choices(options, name, rest, folder)))
            sys.exit(0)
        if "--cfg" in arguments:
            arguments.remove("--cfg")
            print(OmegaConf.to_yaml(load_with_choices(options, name, arguments, folder)[0]), end="")
            sys.exit(0)
        sys.exit(main(load(options, name, arguments, folder)) or 0)
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
    if isinstance(error, ImportError) and "requires NumPy 2" in text:
        return f"{text}: pip install 'pyarrow<26', or 'numpy>=2' where CompressAI is not needed"
    about_a_path = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    if isinstance(error, about_a_path) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OmegaConfBaseException):
        return f"configuration: {text}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch need not be imported to name it
        return f"out of GPU memory: use smaller batches or device=cpu ({text[:120]})"
    return None


def _pop_debug(arguments: list[str]) -> bool:
    debug = False
    for argument in [a for a in arguments if a.lstrip("+").startswith("debug=")]:
        arguments.remove(argument)
        debug = argument.partition("=")[2].lower() in ("true", "1", "yes", "on")
    return debug


def _show_trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()
