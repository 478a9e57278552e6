"""What is known on the node, in files of the root that each have one writer.

root/pack.json     by `pack`: plan, commit, which parts a step needs
root/parts/K       by start.py: part K is unpacked
root/call.json     by the first call: when it began, until when, on what
root/state.json    by the runner: what became of each step
root/out/STEP      by the step itself; root/out/STEP.log is what it printed
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError
from vidlbc.offline.plan import OfflinePlan, plan_of
from vidlbc.run.atomic_files import dump_json, write_atomic

WAITING, RUNNING, DONE, CUT, FAILED, SKIPPED = "waiting", "running", "done", "cut", "failed", "skipped"
ENDED = (DONE, CUT, FAILED, SKIPPED)


@dataclass
class Record:
    """Of a step. `attempt`: from 0; times: seconds since the epoch."""

    status: str = WAITING
    attempt: int = 0
    args: list[str] = field(default_factory=list)
    out: str = ""
    chosen: str | None = None
    started: float = 0.0
    ended: float = 0.0
    exit: int | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """The run as its first call made it. Times: seconds since the epoch."""

    began: float
    deadline: float
    device: str
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Root:
    """The folder on the node."""

    path: Path

    def pack(self) -> tuple[OfflinePlan, dict[str, list[int]], str]:
        """The plan, the parts that each step needs, the commit. Raises InputError."""
        place = self.path / "pack.json"
        try:
            values = json.loads(place.read_text())
            return plan_of(values["plan"], str(place)), values["needs"], values["commit"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{place}: no index of a pack ({error})") from None

    def has(self, parts: list[int]) -> bool:
        return all((self.path / "parts" / str(part)).is_file() for part in parts)

    def call(self) -> Call | None:
        place = self.path / "call.json"
        return Call(**json.loads(place.read_text())) if place.is_file() else None

    def write_call(self, call: Call) -> None:
        write_atomic(self.path / "call.json", dump_json(asdict(call), indent=1))

    def records(self, plan: OfflinePlan) -> dict[str, Record]:
        """By step, in the order of the plan."""
        place = self.path / "state.json"
        held = json.loads(place.read_text()) if place.is_file() else {}
        return {step.name: Record(**held.get(step.name, {})) for step in plan.steps}

    def write_records(self, records: Mapping[str, Record]) -> None:
        write_atomic(self.path / "state.json", dump_json({n: asdict(r) for n, r in records.items()}, indent=1))
