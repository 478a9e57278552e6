"""What came home of a run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError
from vidlbc.offline import weights
from vidlbc.offline.plan import OfflinePlan, Step, plan_of
from vidlbc.offline.results import Generation, newest
from vidlbc.offline.state import Record


@dataclass(frozen=True)
class Run:
    """What came home. `state`: state.json."""

    generation: Generation
    state: dict[str, Any]
    plan: OfflinePlan

    @property
    def records(self) -> dict[str, Record]:
        return {name: Record(**values) for name, values in self.state["records"].items()}

    def files(self, prefix: str) -> dict[str, bytes]:
        """{rest of the name: bytes} of the files below `prefix`."""
        files = self.generation.files.items()
        return {name.removeprefix(prefix): data for name, data in files if name.startswith(prefix)}

    def has_weights(self, step: Step) -> bool:
        part = "image_stage" if step.run == weights.IMAGE else "temporal"
        average = f"{step.name}/average.safetensors" in self.generation.files
        return average or bool(self.files(f"{step.name}/model/{part}/"))


def read_run(results: Path) -> Run:
    """Raises InputError where no whole generation is there."""
    generation = newest(results)
    try:
        state = json.loads(generation.files["state.json"])
        return Run(generation, state, plan_of(state["plan"], "state.json"))
    except (KeyError, ValueError) as error:
        raise InputError(f"results={results}: generation {generation.number} holds no state ({error})") from None
