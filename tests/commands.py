"""Commands as documents show them."""

from collections.abc import Sequence


def spoken(words: Sequence[str]) -> tuple[str, list[str]]:
    """The words after `vidlbc` -> the command's name, as its config is called, and its arguments."""
    rest = list(words[1:] if words[0] in ("experiment", "qa") else words)
    return rest[0].replace("-", "_"), rest[1:]
