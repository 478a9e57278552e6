"""Low-shot recognition of novel classes (Codevilla et al., arXiv 2111.02249, section 3.4 and Table 4), on clips.

    base classes    an encoder informed by them alone, a head trained on them, then both frozen
    novel classes   k examples each --frozen features--> a ridge classifier --> test clips of the novel classes

The paper fine-tunes the last layers of a detector on k examples (TFA, arXiv 2003.06957); here the last layer is fitted
in closed form, so that nothing is left to choose. Draws of examples are the same for every medium.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.machine_perception.probe import Probe
from vidlbc.run.options import option


@dataclass(frozen=True)
class LowShotSettings:
    """`novel`: how many classes, evenly spread over the list of classes, or their names; `draws` of examples."""

    novel: int | tuple[str, ...] = option(
        6, "how many classes, evenly spread over the list, or their names; 0 leaves it out"
    )
    shots: tuple[int, ...] = option((1, 2, 3, 5, 10), "examples a class")
    draws: int = option(20, "of examples, the same for every medium")
    ridge: float = option(0.1, "of the classifier on the frozen features")
    seeds: int = option(1, "heads, trained on the other classes, whose answers are averaged")

    def __post_init__(self) -> None:
        if not all(isinstance(k, int) and k > 0 for k in self.shots) or self.draws < 1 or self.seeds < 1:
            raise InputError("low_shot: expected shots, draws and seeds of at least 1")
        if self.ridge <= 0:
            raise InputError(f"low_shot.ridge={self.ridge}: expected more than 0")


def novel_classes(clips: ClipSet, wanted: int | tuple[str, ...]) -> list[int]:
    """Labels of the novel classes. Raises InputError for an unknown class or too many."""
    count = len(clips.classes)
    if isinstance(wanted, int):
        if not 0 <= wanted <= count - 2:
            raise InputError(f"low_shot.novel={wanted}: expected 0 to {count - 2}, two fewer than the classes")
        return [int((i + 0.5) * count / wanted) for i in range(wanted)]
    unknown = [name for name in wanted if name not in clips.classes]
    if unknown or len(wanted) > count - 2:
        wrong = f"unknown class {unknown[0]!r}" if unknown else f"{len(wanted)} classes"
        raise InputError(f"low_shot.novel: {wrong}, expected at most {count - 2} of {', '.join(clips.classes)}")
    return sorted(clips.classes.index(name) for name in wanted)


def few_shot_correct(
    probe: Probe, clips: ClipSet, novel: Sequence[int], shots: int, s: LowShotSettings
) -> NDArray[np.float64]:
    """Share of the draws in which each novel test clip is recognised, (n_test,), in the order of `clips_of`.

    Raises InputError where a class has fewer than `shots` training clips.
    """
    train = [[int(i) for i in clips_of(clips, [label], "train")] for label in novel]
    for label, members in zip(novel, train, strict=True):
        if len(members) < shots:
            name = clips.classes[label]
            raise InputError(f"low_shot.shots={shots}: class {name} has {len(members)} training clips")
    test = clips_of(clips, novel, "test")
    wanted = torch.tensor([list(novel).index(int(clips.labels[i])) for i in test])
    asked = F.normalize(probe.of(test)[1], dim=1)
    right = torch.zeros(len(test), dtype=torch.float64)
    for draw in range(s.draws):
        rng = np.random.default_rng([shots, draw])
        chosen = [int(i) for members in train for i in rng.choice(members, shots, replace=False)]
        targets = torch.arange(len(novel)).repeat_interleave(shots)
        support = F.normalize(probe.of(chosen)[1], dim=1)
        right += ridge_scores(support, targets, asked, s.ridge).argmax(1) == wanted
    return (right / s.draws).numpy()


def clips_of(clips: ClipSet, classes: Sequence[int], split: str) -> list[int]:
    """Indices of the clips of some classes in a split."""
    return [i for i, name in enumerate(clips.splits) if name == split and int(clips.labels[i]) in set(classes)]


def ridge_scores(support: Tensor, targets: Tensor, asked: Tensor, ridge: float) -> Tensor:
    """Scores (m, classes) of a ridge regression on one-hot targets, centred on the support (n, D); asked (m, D)."""
    x, mean = support.double(), support.double().mean(0)
    y = F.one_hot(targets).double()
    x = x - mean
    dual = torch.linalg.solve(x @ x.T + ridge * torch.eye(len(x), dtype=x.dtype), y - y.mean(0))
    return (asked.double() - mean) @ (x.T @ dual) + y.mean(0)
