"""The config of a command: its options' defaults, the choices made in groups, an experiment, and values as typed.

Hydra composes; every value is then checked against the type that its option declares (vidlbc.run.options).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.run.cli_values import parse, typed, typed_like
from vidlbc.run.composed import current, has, keys_of, options_of, parent_of
from vidlbc.run.configs import configs_folder
from vidlbc.run.options import Declared, choices_of, declared, fitted, tree, words

EXPERIMENT = "experiment"
COMMAND = "command"
Choices = dict[str, str | None]


def load(options: type, name: str, arguments: Sequence[str], folder: Path | None = None) -> DictConfig:
    """The config of `options` with `key=value` arguments; `name` is the command's, for messages. `folder`: of groups.

    Raises InputError, one line, for an unknown key, a value of the wrong type, an unknown choice, or a mandatory value
    (`???`) that is missing.
    """
    config, _ = load_with_choices(options, name, arguments, folder)
    missing = [key for key in keys_of(config) if OmegaConf.is_missing(*parent_of(config, key))]
    if missing:
        meaning = dict(declared(options)).get(missing[0])
        raise InputError(f"missing value: give {missing[0]}=..." + (f" ({meaning.help})" if meaning else ""))
    return config


def load_with_choices(
    options: type, name: str, arguments: Sequence[str], folder: Path | None = None
) -> tuple[DictConfig, Choices]:
    """As `load`, but mandatory values may be missing; also the choice made in each group, {group: choice}."""
    folder = folder or configs_folder()
    kinds = dict(declared(options))
    config, choices = _compose(options, name, folder, [])
    groups: list[str] = []
    values: list[tuple[str, str]] = []
    if has(config, COMMAND) and arguments and arguments[0].isidentifier():
        arguments = [f"{COMMAND}={arguments[0]}", *arguments[1:]]
    for argument in arguments:
        key, text = _split(argument)
        group = _group_of(key.lstrip("+"), choices)
        if group is None:
            values.append((key, text))
        else:
            groups.append(_group_override(folder, group, text, choices))
    if groups:
        before = choices
        config, choices = _compose(options, name, folder, groups)
        _check_experiment(options, name, folder, config, choices, before)
    for key, text in values:
        _set(config, key, text, kinds, known=[*keys_of(config), *map(_shown, choices)])
    _check_types(config, kinds)
    return config, choices


def _compose(options: type, name: str, folder: Path, overrides: list[str]) -> tuple[DictConfig, Choices]:
    """The config, and the choice made in each of its groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    defaults: list[Any] = [{group: choice} for group, choice in choices_of(options).items()]
    stored = f"vidlbc {name}"
    ConfigStore.instance().store(stored, OmegaConf.create({"defaults": [*defaults, "_self_"], **tree(options)}))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            config = compose(stored, overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error
    choices: Choices = {str(k): v for k, v in config.hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config, choices


def _check_experiment(
    options: type, name: str, folder: Path, config: DictConfig, choices: Choices, before: Choices
) -> None:
    """Raises InputError where the experiment is another tool's: what it sets would be there, and change nothing."""
    experiment = choices.get(EXPERIMENT)
    if experiment is None:
        return
    # The same config but for the experiment, which may itself choose in groups.
    others = [
        f"{'' if group in before else '+'}{group}={'null' if choice is None else choice}"
        for group, choice in choices.items()
        if group != EXPERIMENT
    ]
    known = set(keys_of(_compose(options, name, folder, others)[0]))
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


def _shown(group: str) -> str:
    """A group as it is typed: `head@eval.head`, the choice for eval.head, is typed eval.head."""
    return group.partition("@")[2] or group


def _group_of(key: str, choices: Choices) -> str | None:
    """The group that a key names, if it names one of this command's."""
    if key == EXPERIMENT:
        return key
    return next((group for group in choices if key in (group, _shown(group))), None)


def _group_override(folder: Path, group: str, choice: str, choices: Choices) -> str:
    options = options_of(folder, group)
    if choice not in options and choice != "null":
        expected = f"expected one of {', '.join(options)}{near(choice, options)}"
        raise InputError(f"{_shown(group)}={choice}: no such choice; {expected}")
    # A group that the command's own choices do not name (experiment=...) is appended to them.
    return f"{'' if group in choices else '+'}{group}={choice}"


def _set(config: DictConfig, key: str, text: str, kinds: Mapping[str, Declared], known: list[str]) -> None:
    add, key = key.startswith("+"), key.lstrip("+")
    if not has(config, key):
        if not add:
            raise InputError(f"unknown option {key!r} (in {key}={text}){near(key, known) or '; --help lists all'}")
        value = parse(key, text)
    elif key in kinds:
        value = typed(key, text, kinds[key].kind, current(config, key))
    else:
        value = typed_like(key, text, current(config, key))  # of a choice, or below an option that is a mapping
    OmegaConf.update(config, key, value, force_add=True)


def _check_types(config: DictConfig, kinds: Mapping[str, Declared]) -> None:
    """What an experiment sets is of its option's type, as what is typed is. Raises InputError."""
    for key, option in kinds.items():
        if not has(config, key) or OmegaConf.is_missing(*parent_of(config, key)):
            continue
        value = current(config, key)
        if value is None and OmegaConf.is_interpolation(*parent_of(config, key)):
            continue  # it stands on a value that is missing
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        good, fit = fitted(plain, option.kind)
        if not good:
            raise InputError(f"{key}={plain}: expected {words(option.kind)}")
        if type(fit) is not type(plain):
            OmegaConf.update(config, key, fit)


def near(word: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` for a word that is close to a known one, else nothing."""
    last = {key.rpartition(".")[2]: key for key in reversed(known)}
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    close += [last[tail] for tail in difflib.get_close_matches(word.rpartition(".")[2], list(last), n=2, cutoff=0.75)]
    unique = list(dict.fromkeys(close))[:3]
    return f"; did you mean {' or '.join(unique)}?" if unique else ""
