"""Classes by name: our own, which are listed, or `package.module:Class` of anybody's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from vidlbc.errors import InputError


def named_class(what: str, name: str, known: Mapping[str, str], base: type[Any]) -> type[Any]:
    """The class that `name` stands for. `known`: {name: "package.module:Class"}; `what`: for messages.

    Raises InputError where there is no such name, module or class, or where it is no `base`.
    """
    if name not in known and ":" not in name:
        raise InputError(f"unknown {what} {name!r}: expected one of {', '.join(known)}, or package.module:Class")
    found: Any = named_object(what, known.get(name, name))
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{what} {name!r}: expected a class of {base.__module__}:{base.__name__}")
    return found


def named_object(what: str, name: str) -> Any:
    """What `package.module:name` is. Raises InputError."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{what} {name!r}: cannot be loaded ({told})") from None
