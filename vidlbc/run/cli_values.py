"""What the text behind `key=` means: a value of the type of the option's default, see `vidlbc.run.cli`."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError


def typed(key: str, text: str, default: Any, may_be_null: bool) -> Any:
    """`text` as a value of the type of `default`. Raises InputError that names what was expected."""
    if isinstance(default, str):  # "???" too
        if text == "null" and may_be_null:
            return None
        if default == "???" and text.startswith("[") and text.endswith("]"):
            return parse(key, text)  # several inputs
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if default is None:
        try:
            value = parse(key, text)
        except InputError:
            return text  # a path with characters of Hydra's grammar in it
        return text if type(value).__name__.endswith("Sweep") else value
    if isinstance(default, DictConfig):
        inside = ", ".join(f"{key}.{name}" for name in list(default)[:6])
        raise InputError(f"{key}={text}: {key} is a section; set one of {inside}")
    value = parse(key, text)
    if value is None and may_be_null:
        return None
    if isinstance(default, bool):
        kind, good = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        kind, good = "an integer", not isinstance(value, bool) and isinstance(value, (int, float)) and value % 1 == 0
        value = int(value) if good else value
    elif isinstance(default, float):
        kind, good = "a number", not isinstance(value, bool) and isinstance(value, (int, float))
        value = float(value) if good else value
    else:
        numbers = len(default) > 0 and all(isinstance(item, (int, float)) for item in default)
        kind = "a list of numbers, as [1,2]" if numbers else "a list, as [a,b]"
        good = isinstance(value, list) and not (numbers and any(not isinstance(i, (int, float)) for i in value))
        default = OmegaConf.to_container(default)
    if not good:
        raise InputError(f"{key}={text}: expected {kind} (default {default})")
    return value


def parse(key: str, text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"value={text}").value()
    except HydraException as error:
        raise InputError(f"{key}={text}: cannot read the value; quote it: {key}=\"'{text}'\"") from error
