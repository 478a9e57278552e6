"""Dataclasses from JSON that anyone may have written: fields of their own types, text that paths and tables hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")


def typed(cls: Callable[..., T], data: dict[str, Any]) -> T:
    """`cls(**data)`. Raises TypeError for a field that is missing, unknown or of another type; ValueError by `cls`."""
    kinds = _kinds(cls)
    for name, value in dict(**data).items():
        if type(value) not in kinds.get(name, (type(value),)):
            raise TypeError(f"{cls.__name__} with {name}={value!r}"[:120])
        if isinstance(value, str):
            check_text(value)
    return cls(**data)


def check_text(text: str) -> None:
    """Raises ValueError for what is no text of a path or of a table: zeros, halves of surrogate pairs."""
    if b"\0" in text.encode():
        raise ValueError("text that holds a zero")


@cache
def _kinds(cls: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """The types that JSON may give for each field."""
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(cls).items()}
    return {name: (*kinds, int) if float in kinds else kinds for name, kinds in hints.items()}
