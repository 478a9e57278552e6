"""Options stand once: what a command gives by default is what its settings have by default, in Python too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf

from vidlbc import commands
from vidlbc.run.compose import load_with_choices
from vidlbc.run.composed import keys_of, parent_of
from vidlbc.run.options import Declared, declared, fitted, is_many

ALL = {**commands.COMMANDS, **commands.MORE, **commands.EXPERIMENTS, **commands.QUALITY}
WITH_SETTINGS = [name for name in ALL if hasattr(commands.command_module(name), "settings_of")]
# In Python no budget is a budget of nothing, and options of a network that are not given are those of its class.
OF_COMMANDS_ALONE = {"Budget.minutes", "Budget.steps"}
GIVEN_WHOLE = {"head_options", "options", "stage"}


def with_what_must_be_given(name: str) -> Any:
    options = commands.command_module(name).Options
    kinds = dict(declared(options))
    config, _ = load_with_choices(options, name, [])
    missing = [key for key in keys_of(config) if OmegaConf.is_missing(*parent_of(config, key))]
    if name == "learn_by_compression":
        missing += ["data.train", "data.val", "out"]
    given = [f"{key}=[a]" if is_many(kinds[key].kind) else f"{key}=a" for key in missing]
    if name == "transfer":  # its parts are there where they are asked for
        given += ["classes.sets=[{a: b}]", "boundaries.train=a", "boundaries.test=a", "data.segmentation=a"]
        given += ["super_resolution.train=a", "super_resolution.test=[{a: b}]"]
    return commands.compose(name, given)


def defaults(settings: Any) -> Iterator[tuple[str, Any, Any]]:
    """(field, its default, its value) of settings and those below them."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        if dataclasses.is_dataclass(default) and dataclasses.is_dataclass(value):
            for below in dataclasses.fields(value):
                yield f"{type(value).__name__}.{below.name}", getattr(default, below.name), getattr(value, below.name)
        elif dataclasses.is_dataclass(value):
            yield from defaults(value)
        elif default is not dataclasses.MISSING:
            yield f"{type(settings).__name__}.{field.name}", default, value


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_defaults_are_the_same_from_the_shell_and_in_python(name: str) -> None:
    settings = commands.command_module(name).settings_of(with_what_must_be_given(name))
    found = list(defaults(settings))
    assert len(found) > 10
    drifted = [
        (field, default, value)
        for field, default, value in found
        if default != value
        and field not in OF_COMMANDS_ALONE
        and not (field.partition(".")[2] in GIVEN_WHOLE and default == {})
    ]
    assert drifted == [], "\n".join(map(str, drifted))


@pytest.mark.parametrize("name", [name for name in ALL if name != "demo"])
def test_every_default_is_of_its_type_and_every_option_has_help(name: str) -> None:
    options = commands.command_module(name).Options
    found: dict[str, Declared] = dict(declared(options))
    assert found and [key for key, option in found.items() if not option.help] == []
    config = OmegaConf.to_container(load_with_choices(options, name, [])[0])
    for key, option in found.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        assert fitted(value, option.kind)[0], key


def test_a_drift_is_seen() -> None:
    @dataclasses.dataclass
    class Inner:
        steps: int = 400

    @dataclasses.dataclass
    class Outer:
        inner: Inner = dataclasses.field(default_factory=Inner)
        seed: int = 0

    assert [d for d in defaults(Outer(Inner(2000), 1)) if d[1] != d[2]] == [
        ("Inner.steps", 400, 2000),
        ("Outer.seed", 0, 1),
    ]
