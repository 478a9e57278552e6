"""The probes of the accuracy curve, one an input and head, each kept once it is fitted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.codec.inputs import pick_device
from vidlbc.evaluate import FeatureSet, ProbeBudget, run_probe
from vidlbc.pipeline.settings import EvaluationSettings
from vidlbc.run.atomic_files import dump_json, write_atomic


@dataclass(frozen=True)
class Probes:
    """`heads` on every input with the budget of `settings`, evaluated on `split`.

    Chosen on val, or on held-out groups of train where val is what is evaluated or there is none.
    """

    out: Path
    heads: tuple[str, ...]
    settings: EvaluationSettings
    classes: tuple[str, ...]
    split: str
    seed: int
    device: str

    def missing(self, name: str) -> bool:
        """Is there an input `name` whose probes are not all fitted?"""
        return not all(self._path(name, head).is_file() for head in self.heads)

    def fit(self, name: str, features: Mapping[str, FeatureSet]) -> None:
        """Fit what is missing of `name`; `features` by split."""
        s = self.settings
        budget = ProbeBudget(epochs=s.epochs, checkpoints=min(4, s.epochs), rates=s.rates, decays=s.decays)
        for head in self.heads:
            path = self._path(name, head)
            if path.is_file():
                continue
            found = run_probe(
                features["train"],
                features[self.split],
                len(self.classes),
                head,
                val=None if self.split == "val" else features.get("val"),
                budget=budget,
                options=s.head_options,
                seed=self.seed,
                device=pick_device(self.device),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            found.write_views(path.with_suffix(".parquet"), self.classes)
            correct = dict(zip(found.keys, map(int, found.correct), strict=True))
            write_atomic(path, dump_json({**found.summary(), "correct": correct}, indent=1))

    def result(self, name: str, head: str) -> dict[str, Any]:
        """The summary of ProbeResult, and `correct`: a video's name to 1 or 0."""
        told: dict[str, Any] = json.loads(self._path(name, head).read_text())
        return told

    def _path(self, name: str, head: str) -> Path:
        return self.out / "probes" / f"{name}-{head}.json"
