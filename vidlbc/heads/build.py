"""Heads by name, or as `package.module:Class`."""

from collections.abc import Sequence
from typing import Any

from vidlbc.errors import InputError
from vidlbc.heads.base import Head
from vidlbc.run.plugins import named_class

_KINDS = {
    "linear": "vidlbc.heads.linear:LinearHead",
    "attentive": "vidlbc.heads.attentive:AttentiveHead",
    "lstm": "vidlbc.heads.lstm:LSTMHead",
}
HEAD_KINDS = tuple(_KINDS)


def build_head(kind: str, levels: Sequence[tuple[int, int]], num_classes: int, **options: Any) -> Head:
    """A head of `kind` (linear, attentive, lstm, or package.module:Class) over `levels` [(channels, stride), ...], fine
    to coarse.

    Raises InputError for an unknown kind or an option that the kind does not have.
    """
    head = named_class("head", kind, _KINDS, Head)
    try:
        return head(levels, num_classes, **options)
    except TypeError as error:
        raise InputError(f"head '{kind}': {error}") from error
