"""What the text behind `key=` means: a value of the type that the option declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.run.options import fitted, is_many, members, takes_null, words


def typed(key: str, text: str, kind: Any, default: Any) -> Any:
    """`text` as a value of type `kind`. Raises InputError that names what was expected."""
    if isinstance(default, DictConfig) and kind is not Any:
        raise _a_section(key, text, default)
    if text == "null" and takes_null(kind):
        return None
    if is_many(kind):
        listed = text.startswith("[") and text.endswith("]") and not Path(text).exists()
        return parse(key, text) if listed else _unquoted(text)
    if kind is Any:
        return _loosely(key, text)
    if str in members(kind) and not any(member in (int, float, bool) for member in members(kind)):
        return _unquoted(text)
    good, value = fitted(parse(key, text), kind)
    if good:
        return value
    if str in members(kind):
        return _unquoted(text)
    shown = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
    told = "" if shown is None else f" (default {shown})"
    raise InputError(f"{key}={text}: expected {words(kind)}{told}")


def typed_like(key: str, text: str, default: Any) -> Any:
    """`text` as a value of the type of `default`, where no type is declared: options of a choice."""
    if isinstance(default, DictConfig):
        raise _a_section(key, text, default)
    if default is None:
        return None if text == "null" else _loosely(key, text)
    if OmegaConf.is_config(default):
        numbers = len(default) > 0 and all(isinstance(item, (int, float)) for item in default)
        kind = list[float] if numbers else list[Any]
        value = parse(key, text)
        if not fitted(value, kind)[0]:
            raise InputError(f"{key}={text}: expected {words(kind)} (default {OmegaConf.to_container(default)})")
        return value  # as typed: whole numbers stay whole
    return typed(key, text, type(default), default)


def _a_section(key: str, text: str, section: DictConfig) -> InputError:
    inside = ", ".join(f"{key}.{name}" for name in list(section)[:6])
    return InputError(f"{key}={text}: {key} is a section; set one of {inside}")


def _loosely(key: str, text: str) -> Any:
    """A number, a list, ..., where the text is one, else the text."""
    try:
        value = parse(key, text)
    except InputError:
        return text  # a path with characters of Hydra's grammar in it
    return text if type(value).__name__.endswith("Sweep") else value


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def parse(key: str, text: str) -> Any:
    """What Hydra's grammar makes of `text`. Raises InputError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"value={text}").value()
    except HydraException as error:
        raise InputError(f"{key}={text}: cannot read the value; quote it: {key}=\"'{text}'\"") from error
