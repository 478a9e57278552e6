"""How well a medium is recognised: every test clip, by a ResNet of its own or by the linear probe; full and low-shot.

All results are, for every test clip, the share of seeds (and draws of examples) in which it was right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.machine_perception.copies import Copies
from vidlbc.experiments.machine_perception.encoder import HeadSettings
from vidlbc.experiments.machine_perception.linear import ridge_logits, standardised, summaries
from vidlbc.experiments.machine_perception.lowshot import LowShotSettings, clips_of, few_shot_correct
from vidlbc.experiments.machine_perception.media import Medium
from vidlbc.experiments.machine_perception.probe import Probe, ProbeSettings, fit_probe

Correct = NDArray[np.float64]


@dataclass(frozen=True)
class Recognition:
    """`novel`: labels of the novel classes; `out`: the folder that the user named; `copies`: of training clips, which
    heads train on beside the clips themselves (the linear probe does not)."""

    out: Path
    clips: ClipSet
    novel: Sequence[int]
    head: HeadSettings
    probe: ProbeSettings
    few: LowShotSettings
    copies: Copies

    @property
    def everything(self) -> list[int]:
        return list(range(len(self.clips.classes)))

    @property
    def base(self) -> list[int]:
        """Labels of the classes that are not novel."""
        return [label for label in self.everything if label not in self.novel]

    # -- the ResNet --------------------------------------------------------------------------------------------------

    def resnet(self, medium: Medium, folder: Path, head: HeadSettings | None = None) -> Correct:
        """Test clips of all classes, (n_test,); heads trained on all classes."""
        classes = self.everything
        test = self._of(classes, "test")
        asked = [*self._of(classes, "val"), *test]
        probes = self._probes(medium, folder, classes, asked, self.probe.seeds, head or self.head)
        return np.mean([_right(probe.of(test)[0], self._targets(test, classes)) for probe in probes], axis=0)

    def resnet_low_shot(self, medium: Medium, folder: Path) -> dict[int, Correct]:
        """Test clips of the novel classes by shots; heads trained on the other classes."""
        asked = [*self._of(self.base, "val"), *self._of(self.novel, "train"), *self._of(self.novel, "test")]
        return self._few(self._probes(medium, folder, self.base, asked, self.few.seeds, self.head))

    def _probes(
        self, medium: Medium, folder: Path, classes: list[int], asked: list[int], seeds: int, head: HeadSettings
    ) -> list[Probe]:
        """One a seed, at the learning rate that is best on val with the first seed."""
        if medium.is_pictures:
            head = replace(head, resnet=replace(head.resnet, stem="rgb"))
        train = self._of(classes, "train")
        copied = self.copies.of(train, len(self.clips))
        origins = [*train, *(int(self.copies.origin[row - len(self.clips)]) for row in copied)]
        training = (np.array([*train, *copied]), self._targets(origins, classes).numpy())

        def fitted(lr: float, seed: int) -> Probe:
            place = folder / f"lr{lr:g}-seed{seed}"
            return fit_probe(medium, head, training, len(classes), asked, self.probe, lr, seed, place, self.out)

        val = self._of(classes, "val")
        if len(self.probe.lrs) > 1 and not val:
            raise InputError("probe.lrs: several need a val split to choose on")
        lr = self.probe.lrs[0]
        if len(self.probe.lrs) > 1:
            targets = self._targets(val, classes)
            lr = min(self.probe.lrs, key=lambda lr: float(F.cross_entropy(fitted(lr, 0).of(val)[0], targets)))
        return [fitted(lr, seed) for seed in range(seeds)]

    # -- the linear probe --------------------------------------------------------------------------------------------

    def summary(self, medium: Medium, grid: Sequence[tuple[int, int]]) -> Tensor:
        """What the linear probe reads of every clip; `grid`: levels whose shape pictures are cut into."""
        return summaries(medium, grid, len(self.clips))

    def linear(self, summary: Tensor) -> tuple[Correct, float]:
        """As `resnet`, and the ridge chosen."""
        classes = self.everything
        train, val, test = (self._of(classes, split) for split in ("train", "val", "test"))
        features = standardised(summary, train)
        targets = torch.from_numpy(self.clips.labels)
        logits, ridge = ridge_logits(features, targets, train, val, test)
        return _right(logits, targets[test]), ridge

    def linear_low_shot(self, summary: Tensor) -> dict[int, Correct]:
        """As `resnet_low_shot`; the base classes give the statistics of the features alone."""
        features = standardised(summary, self._of(self.base, "train"))
        return self._few([Probe(tuple(range(len(features))), features, features)])

    def _few(self, probes: Sequence[Probe]) -> dict[int, Correct]:
        def mean(shots: int) -> Correct:
            each = [few_shot_correct(probe, self.clips, self.novel, shots, self.few) for probe in probes]
            return np.mean(each, axis=0)

        return {shots: mean(shots) for shots in self.few.shots}

    def _of(self, classes: Sequence[int], split: str) -> list[int]:
        return clips_of(self.clips, classes, split)

    def _targets(self, clips: Sequence[int], classes: Sequence[int]) -> Tensor:
        return torch.tensor([list(classes).index(int(self.clips.labels[i])) for i in clips])


def _right(logits: Tensor, targets: Tensor) -> Correct:
    return (logits.argmax(1) == targets).double().numpy()
