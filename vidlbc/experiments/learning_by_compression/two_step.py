"""The two-step loop (Xie et al., section 3.3): hold CR and raise RQ, then hold RQ and raise CR, variant after variant.

    V1 hold --> V2 raise --> V2 hold --> V3 raise --> V3 hold --> ...        until RQ falls below the threshold

*hold* trains at the variant; *raise* passes from the variant before to it with asymmetric dropout: each step keeps the
first C'' channels of every level, encoder and decoder alike, C'' drawn between the two variants. A share of the steps
goes to the earlier variants, so that one set of weights decodes them all. What a phase does is a function of its
settings and step alone; its end is a file, so a run that is killed anywhere goes on to the same history.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidlbc.errors import InputError
from vidlbc.experiments.learning_by_compression.objective import CompressionLoss, Learner
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tensor_files import load_tensors, save_tensors
from vidlbc.train.data.mixed_data import MixedBatch
from vidlbc.train.loop import LoopSettings
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train

# Of a raise, the last part trains at the new variant alone: dropout only bridges the way to it.
_ARRIVED = 0.75


@dataclass(frozen=True)
class TwoStepSettings:
    """Steps of the first phase, of each raise and of each later hold; share of the steps on earlier variants."""

    first: int = 600
    raising: int = 150
    holding: int = 300
    keep_earlier: float = 0.4
    rq_threshold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("first", "raising", "holding"):
            if getattr(self, name) < 1:
                raise InputError(f"loop.{name}={getattr(self, name)}: expected at least 1 step")
        if not 0 <= self.keep_earlier < 1:
            raise InputError(f"loop.keep_earlier={self.keep_earlier}: expected a share, at least 0 and below 1")


@dataclass(frozen=True)
class Phase:
    """One phase: `kind` hold or raise; `offset`: steps of the phases before it; `earlier`: channels of the variants
    before it, shortest compression first."""

    index: int
    kind: str
    variant: str
    kept: tuple[int, ...]
    earlier: tuple[tuple[int, ...], ...]
    steps: int
    offset: int

    @property
    def name(self) -> str:
        return f"{self.index + 1:02d}-{self.variant}-{self.kind}"

    def channels(self, step: int, seed: int, keep_earlier: float) -> tuple[int, ...]:
        """Channels to keep at a step of this phase: a pure function of its arguments."""
        draw = random.Random(f"{seed}/{self.index}/{step}")
        if self.earlier and draw.random() < keep_earlier:
            return draw.choice(self.earlier)
        if self.kind == "raise" and step < _ARRIVED * self.steps:
            pairs = zip(self.kept, self.earlier[-1], strict=True)
            return tuple(draw.randint(low, high) for low, high in pairs)
        return self.kept


def plan(variants: Mapping[str, tuple[int, ...]], settings: TwoStepSettings) -> list[Phase]:
    """Every phase, in order. Raises InputError where a variant keeps more channels of a level than the one before."""
    phases: list[Phase] = []
    offset = 0
    earlier: tuple[tuple[int, ...], ...] = ()
    for name, kept in variants.items():
        if earlier and (any(k > e for k, e in zip(kept, earlier[-1], strict=True)) or kept == earlier[-1]):
            raise InputError(f"stage.variants: {name} {list(kept)} does not truncate the one before, {earlier[-1]}")
        kinds = [("raise", settings.raising), ("hold", settings.holding)] if earlier else [("hold", settings.first)]
        for kind, steps in kinds:
            phases.append(Phase(len(phases), kind, name, kept, earlier, steps, offset))
            offset += steps
        earlier += (kept,)
    return phases


@dataclass(frozen=True)
class PhaseObjective:
    """For vidlbc.train.loop.fit: Eq. 3 at the channels that the phase keeps at each step."""

    loss: CompressionLoss
    phase: Phase
    total: int
    seed: int
    keep_earlier: float

    def __call__(self, module: nn.Module, batch: MixedBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Learner)
        kept = self.phase.channels(step, self.seed, self.keep_earlier)
        done = self.phase.offset + step
        return self.loss(module, batch, kept, done, done / self.total)


@dataclass(frozen=True)
class TwoStep:
    """The loop. `measure(learner, variants, folder)` -> figures of every variant so far, with "rq" in each."""

    loss: CompressionLoss
    batches: Callable[[int], MixedBatch]
    measure: Callable[[Learner, Mapping[str, tuple[int, ...]], Path], dict[str, dict[str, float]]]
    settings: TwoStepSettings
    training: LoopSettings
    folder: Path

    def run(self, learner: Learner, variants: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Train `learner` through the phases; it ends with the weights of the last variant above the threshold.

        Returns {"phases": [...], "accepted": [names], "stopped": why}; FOLDER/history.json holds it at every phase's
        end. Raises InputError where the first variant is below the threshold already.
        """
        phases = plan(variants, self.settings)
        total = sum(phase.steps for phase in phases)
        history = self._history()
        accepted: list[str] = []
        stopped = "every variant is above the threshold"
        best: Path | None = None
        for phase in phases:
            record = next((entry for entry in history if entry["phase"] == phase.name), None)
            if record is None:
                record = self._phase(learner, phase, total, variants)
                history.append(record)
                write_atomic(self.folder / "history.json", dump_json({"phases": history}, indent=1))
                (self.folder / phase.name / "checkpoint.safetensors").unlink(missing_ok=True)
            self._load(learner, self.folder / phase.name)
            quality = record["measured"][phase.variant]["rq"]
            if phase.kind == "raise":
                continue
            if quality < self.settings.rq_threshold:
                stopped = f"{phase.variant}: RQ {quality:.3f} is below {self.settings.rq_threshold:g}"
                break
            accepted.append(phase.variant)
            best = self.folder / phase.name
        if best is None:
            steps = phases[0].steps
            raise InputError(f"loop.rq_threshold: {stopped} after {steps} steps; lower it to go on, or train longer")
        self._load(learner, best)
        outcome = {"phases": history, "accepted": accepted, "stopped": stopped}
        write_atomic(self.folder / "history.json", dump_json(outcome, indent=1))
        return outcome

    def _history(self) -> list[dict[str, Any]]:
        path = self.folder / "history.json"
        return json.loads(path.read_text())["phases"] if path.is_file() else []

    def _phase(
        self, learner: Learner, phase: Phase, total: int, variants: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        folder = self.folder / phase.name
        objective = PhaseObjective(self.loss, phase, total, self.training.seed, self.settings.keep_earlier)
        seed = 1000 * self.training.seed + phase.index
        settings = replace(self.training, budget=Budget(steps=phase.steps), seed=seed)
        title = f"{phase.variant} {phase.kind}"
        outcome = train(title, learner, objective, lambda s: self.batches(phase.offset + s), settings, folder)
        save_tensors(folder / "learner.safetensors", dict(learner.state_dict()), {})
        names = list(variants)[: len(phase.earlier) + 1]
        measured = self.measure(learner, {name: variants[name] for name in names}, folder)
        # No figure of the log: a mean since the last line of it differs where a run was killed in between.
        return {
            "phase": phase.name,
            "kind": phase.kind,
            "variant": phase.variant,
            "steps": phase.steps,
            "skipped": outcome.skipped,
            "measured": measured,
        }

    @staticmethod
    def _load(learner: Learner, folder: Path) -> None:
        tensors, _ = load_tensors(folder / "learner.safetensors")
        learner.load_state_dict(tensors)
