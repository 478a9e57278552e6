"""The commands to type on a node: one a call, each with the part that it carries."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidlbc.errors import InputError
from vidlbc.offline.pack import START, Part
from vidlbc.offline.plan import OfflinePlan


@dataclass(frozen=True)
class Command:
    """`carry`: the folder that travels with it, or None; `start`: minute of the plan."""

    text: str
    carry: Path | None
    start: float
    minutes: float


def commands(
    plan: OfflinePlan, parts: Sequence[Part], root: str, results: str, options: Mapping[str, object], most_chars: int
) -> list[Command]:
    """One for each of the plan's calls. `root`, `results`: as the node's shell is to read them; `options`: of
    `vidlbc offline run`. Raises InputError where a command is too long.
    """
    told = " ".join(shlex.quote(f"{key}={value}") for key, value in options.items())
    found, began = [], 0.0
    for number, minutes in enumerate(plan.calls):
        carry = parts[number].path.parent if number < len(parts) else None
        start = f"{shlex.quote(str(carry))}/{START}" if carry else f'"{root}"/{START}'
        # Double quotes: a variable of the node's shell, as $OUT, is filled in there.
        text = f'python3 {start} root="{root}" results="{results}" call_minutes={minutes:.4g} {told}'.rstrip()
        if len(text) > most_chars:
            told = f"a command of {len(text)} characters, more than command_chars={most_chars}"
            raise InputError(f"{told}: {text[:80]}...")
        found.append(Command(text, carry, began, minutes))
        began += minutes
    return found


def late(plan: OfflinePlan, parts: Sequence[Part]) -> list[str]:
    """What comes after the minute that it is wanted in: the step waits for it."""
    begins = [sum(plan.calls[:number]) for number in range(len(parts))]
    return [
        f"{part.path.name} comes with call {number + 1}, minute {begin:g}, but is wanted from minute "
        f"{part.needed_from:g} on: the step waits"
        for number, (part, begin) in enumerate(zip(parts, begins, strict=True))
        if begin > part.needed_from + 1e-9
    ]
