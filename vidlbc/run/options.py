"""Options of a command: a dataclass whose fields hold type, default and help, once.

    @dataclass
    class Options:
        input: str = required("folder of videos")
        qp: int = option(32, "quality, 0 to 63")
        max_side: int | None = option(None, "longest side in pixels; null: as it is")
        train: TrainOptions = section(TrainOptions, "the loop")
        choices: ClassVar[dict[str, str]] = {"image_stage": "lbc"}      groups of configs/, and the choice in each

Types: str, int, float, bool, lists of these, `| None`; `Many`: one text, or a list of texts and mappings; Any: whatever
the text means. `null` is accepted where the type has None.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

MISSING = "???"


class _Many:
    """One text, or a list in brackets: folders, patterns, lists, {path: a, every: 8}."""


Many = str | list[Any] | _Many


def option(default: Any, help: str) -> Any:
    """A field with a default; lists and mappings are copied for each instance."""
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def given(help: str) -> Any:
    """A field that whoever makes the dataclass gives, in Python and as a section of options."""
    return dataclasses.field(metadata={"help": help})


def required(help: str) -> Any:
    """A field that has to be given."""
    return dataclasses.field(default=MISSING, metadata={"help": help})


def section(options: Callable[[], Any], help: str = "") -> Any:
    """A field that holds further options: a dataclass, or what makes one."""
    return dataclasses.field(default_factory=options, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Declared:
    """An option as its field says."""

    kind: Any
    help: str


def tree(options: type) -> dict[str, Any]:
    """The defaults, as nested mappings."""
    return dict(dataclasses.asdict(options()))


def declared(options: type, prefix: str = "") -> Iterator[tuple[str, Declared]]:
    """Every option by its dotted key, sections left out."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        key, kind = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from declared(kind, f"{key}.")
        else:
            yield key, Declared(kind, field.metadata["help"])


def choices_of(options: type) -> Mapping[str, str]:
    """{group of configs/: the choice that is made where none is given}."""
    return dict(getattr(options, "choices", {}))


def members(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of another type, itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def takes_null(kind: Any) -> bool:
    return type(None) in members(kind) or kind is Any


def is_many(kind: Any) -> bool:
    return _Many in members(kind)


def paths(value: Any) -> str | tuple[str, ...]:
    """What a `Many` of paths holds: one, or several."""
    return value if isinstance(value, str) else tuple(str(one) for one in value)


def words(kind: Any) -> str:
    """What is expected, for a message."""
    if is_many(kind):
        return "one path, or a list, as [a,b]"
    named = {str: ["a text"], int: ["an integer"], float: ["a number"], bool: ["true", "false"]}
    lists = {int: "a list of integers, as [1,2]", float: "a list of numbers, as [1,2]"}
    told: list[str] = []
    for member in members(kind):
        if get_origin(member) in (list, tuple):
            told.append(lists.get(get_args(member)[0], "a list, as [a,b]"))
        elif member in named:
            told += named[member]
        elif member is not type(None):
            told.append("a mapping, as {a: 1}")
    if type(None) in members(kind):
        told.append("null")
    return " or ".join(filter(None, [", ".join(told[:-1]), told[-1]]))


def fitted(value: Any, kind: Any) -> tuple[bool, Any]:
    """(whether `value` is of the type, the value: integers become numbers, and numbers that are whole integers)."""
    if kind is Any or value == MISSING:
        return True, value
    for member in members(kind):
        if member is type(None) and value is None:
            return True, None
        if member is _Many:
            continue
        if get_origin(member) in (list, tuple):
            if isinstance(value, (list, tuple)):
                items = [fitted(item, get_args(member)[0]) for item in value]
                if all(good for good, _ in items):
                    return True, [item for _, item in items]
        elif get_origin(member) is dict:
            if isinstance(value, Mapping):
                return True, value
        elif member is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                # Where null may stand too, 200 stays 200: such values name shards (vidlbc.shards.settings).
                return True, float(value) if kind is float else value
        elif member is int:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0:
                return True, int(value)
        elif isinstance(value, member):
            return True, value
    return False, value
