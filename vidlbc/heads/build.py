"""Heads by name."""

from collections.abc import Sequence
from typing import Any

from vidlbc.errors import InputError
from vidlbc.heads.attentive import AttentiveHead
from vidlbc.heads.base import Head
from vidlbc.heads.linear import LinearHead
from vidlbc.heads.lstm import LSTMHead

_KINDS: dict[str, type[Head]] = {"linear": LinearHead, "attentive": AttentiveHead, "lstm": LSTMHead}
HEAD_KINDS = tuple(_KINDS)


def build_head(kind: str, levels: Sequence[tuple[int, int]], num_classes: int, **options: Any) -> Head:
    """A head of `kind` (linear, attentive, lstm) over `levels` [(channels, stride), ...], fine to coarse.

    Raises InputError for an unknown kind or an option that the kind does not have.
    """
    if kind not in _KINDS:
        raise InputError(f"unknown head '{kind}', expected one of: {', '.join(HEAD_KINDS)}")
    try:
        return _KINDS[kind](levels, num_classes, **options)
    except TypeError as error:
        raise InputError(f"head '{kind}': {error}") from error
