"""From a plan to packs and the commands to type: what `pack` does, and what it tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidlbc.errors import InputError
from vidlbc.offline.commands import Command, commands, late
from vidlbc.offline.pack import Packed, pack
from vidlbc.offline.plan import OfflinePlan
from vidlbc.offline.sources import Compose
from vidlbc.offline.wheels import find_wheels
from vidlbc.run.tables import format_table


@dataclass(frozen=True)
class PackSettings:
    """`part`: bytes of a tar; `options`: of `vidlbc offline run`; the others as in vidlbc.commands.offline."""

    data: Path
    out: Path
    repo: Path
    compose: Compose
    wheels: Path | None
    packages: tuple[str, ...]
    python: str
    platforms: tuple[str, ...]
    part: int
    command_chars: int
    root: str
    results: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Packs:
    """What `make_packs` made."""

    plan: OfflinePlan
    packed: Packed
    wheels: int
    commands: tuple[Command, ...]


def make_packs(plan: OfflinePlan, settings: PackSettings) -> Packs:
    """`plan`: with its calls (plan.with_calls). Raises InputError for whatever stands in the way."""
    if not settings.data.is_dir():
        raise InputError(f"data={settings.data}: no such folder")
    wheels = []
    if settings.wheels is not None:
        wheels = find_wheels(settings.wheels, list(settings.packages), settings.python, list(settings.platforms))
    packed = pack(plan, settings.data, wheels, settings.out, settings.repo, settings.compose, settings.part)
    typed = commands(plan, packed.parts, settings.root, settings.results, settings.options, settings.command_chars)
    return Packs(plan, packed, len(wheels), tuple(typed))


def describe(packs: Packs) -> str:
    """Sizes, checksums, what is late, and the commands."""
    packed = packs.packed
    rows = [[str(part.path), f"{part.bytes / 2**20:.2f}", part.sha256[:16]] for part in packed.parts]
    title = f"plan {packs.plan.name}, {packs.plan.minutes:g} minutes, {packs.wheels} wheels, commit {packed.commit}"
    lines = [format_table(rows, ["part", "MiB", "sha256"], title)]
    if packed.changed:
        lines.append(f"note: {packed.changed} tracked files differ from the commit; they travel as they are")
    lines += [f"note: {told}" for told in late(packs.plan, packed.parts)]
    before = 0.0
    rows = []
    for step in packs.plan.steps:
        rows.append([step.name, f"{before:.2f} - {step.until:.2f}", step.run])
        before = step.until
    lines += ["", format_table(rows, ["step", "minutes", "runs"]), ""]
    for number, command in enumerate(packs.commands):
        carried = f"carry {command.carry}" if command.carry else "carry nothing"
        until = command.start + command.minutes
        lines += [f"# call {number + 1}, minutes {command.start:.1f} to {until:.1f}; {carried}", command.text, ""]
    return "\n".join(lines)
