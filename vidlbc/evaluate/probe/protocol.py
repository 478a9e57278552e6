"""The probe protocol: V-JEPA 2's attentive probe without its known flaws.

    train --by group--> fit part | holdout        or: train | the corpus's own val split
        fit part: all (rate, decay) members at once  -->  holdout: choose (rate, decay, epochs)
    fit part + holdout: one head with the choice  -->  test: every view once, averaged per video

V-JEPA 2's evaluation picks the best of 20 probes on the data that it reports, replaces unreadable videos by random
others, and pads the validation set. Here the test split is touched once, after every choice; an unreadable file is
counted and left out; no view is missing or repeated.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidlbc.errors import InputError
from vidlbc.evaluate.probe.features import FeatureSet
from vidlbc.evaluate.probe.fit import ProbeBudget, fit_members, normalise, one_thread, view_logits
from vidlbc.evaluate.probe.holdout import split_by_group
from vidlbc.evaluate.probe.result import ProbeResult, video_probabilities
from vidlbc.heads import Head, build_head


def run_probe(
    train: FeatureSet,
    test: FeatureSet,
    num_classes: int,
    kind: str = "attentive",
    *,
    val: FeatureSet | None = None,
    holdout_fraction: float = 0.2,
    budget: ProbeBudget | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ProbeResult:
    """Choose, refit and test one head. The same seed gives the same result.

    The choice is made on `val` where given, else on a holdout of `train` by group; the refit uses both parts.
    `options` go to `build_head`. Raises InputError for labels outside [0, num_classes), a video in two splits, and
    features with other levels.
    """
    budget = budget or ProbeBudget()
    _check(train, test, val, num_classes)
    with one_thread():
        return _run(train, test, num_classes, kind, val, holdout_fraction, budget, dict(options or {}), seed, device)


def _run(
    train: FeatureSet,
    test: FeatureSet,
    num_classes: int,
    kind: str,
    val: FeatureSet | None,
    holdout_fraction: float,
    budget: ProbeBudget,
    options: dict[str, Any],
    seed: int,
    device: torch.device | str,
) -> ProbeResult:
    started = time.perf_counter()
    if val is not None:
        fit, held, name = train, val, f"the val split ({len(val)} videos)"
    else:
        fit_at, held_at = split_by_group(train.groups, train.labels.tolist(), holdout_fraction, seed)
        fit, held = train.subset(fit_at), train.subset(held_at)
        groups = {group or key for group, key in zip(held.groups, held.keys, strict=True)}
        name = f"{len(held)} videos of {len(groups)} groups of the train split"
    make = _Maker(kind, train, num_classes, options, seed, device)

    trials = choose(make, fit, held, budget, seed, device)
    # The lowest loss, not the highest top-1: on a few dozen videos top-1 moves in steps of percents.
    best = min(trials, key=lambda t: t["loss"])

    whole = _joined(fit, held)
    (head,) = fit_members(
        [make(whole)],
        [(best["rate"], best["decay"])],
        whole,
        budget,
        epochs=int(best["epochs"]),
        seed=seed,
        device=device,
    )
    logits = view_logits(head, test, device)
    return ProbeResult(
        kind=kind,
        head=head.cpu(),
        keys=test.keys,
        labels=test.labels,
        view_logits=logits,
        chosen={k: best[k] for k in ("rate", "decay", "epochs")},
        trials=tuple(trials),
        holdout=name,
        n_train=len(whole),
        n_holdout=len(held),
        n_failed=len(test.failed),
        parameters=sum(p.numel() for p in head.parameters()),
        seconds=time.perf_counter() - started,
        seed=seed,
    )


class _Maker:
    """Builds the same initial head each time, normalised for the data that it will be fitted to."""

    def __init__(
        self,
        kind: str,
        like: FeatureSet,
        num_classes: int,
        options: dict[str, Any],
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.kind, self.levels, self.grid = kind, like.levels, like.grid
        grid = options.pop("grid", like.grid)
        if grid != like.grid:
            raise InputError(f"the head's grid is {grid}, but the features were made on a grid of {like.grid}")
        self.num_classes, self.options, self.seed, self.device = num_classes, options, seed, device

    def __call__(self, data: FeatureSet) -> Head:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = build_head(self.kind, self.levels, self.num_classes, grid=self.grid, **self.options)
        normalise(head, data)
        return head.to(self.device)


def choose(
    make: _Maker, fit: FeatureSet, held: FeatureSet, budget: ProbeBudget, seed: int, device: torch.device | str
) -> list[dict[str, float]]:
    """Every (rate, decay, epochs) with its top-1 and loss on the holdout."""
    trials: list[dict[str, float]] = []

    def read(epoch: int, averaged: list[Head]) -> None:
        if epoch not in budget.checkpoint_epochs:
            return
        for (rate, decay), head in zip(budget.members, averaged, strict=True):
            top1, loss = holdout_score(view_logits(head, held, device), held.labels)
            trials.append(dict(rate=rate, decay=decay, epochs=epoch, top1=top1, loss=loss))

    first = make(fit)
    heads = [first] + [make(fit) for _ in budget.members[1:]]
    fit_members(heads, budget.members, fit, budget, epochs=budget.epochs, seed=seed, device=device, on_epoch=read)
    return trials


def holdout_score(logits_NVK: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """(top-1, loss) per video. The loss is taken at the temperature that suits these logits best, so that a head is not
    punished for being too sure: the choice is about what it ranks first, not about calibration."""
    top1 = (video_probabilities(logits_NVK).argmax(1) == labels_N).double().mean()
    losses = [F.nll_loss(video_probabilities(logits_NVK * s).clamp_min(1e-9).log(), labels_N) for s in _SHARPNESS]
    return float(top1), float(min(losses))


_SHARPNESS = tuple(2.0 ** (k / 2) for k in range(-8, 9))


def _joined(fit: FeatureSet, held: FeatureSet) -> FeatureSet:
    """Both parts, whatever their numbers of views: the views of the part with fewer are cycled."""
    if fit.views == held.views:
        return fit.joined(held)
    views = max(fit.views, held.views)
    return _with_views(fit, views).joined(_with_views(held, views))


def _with_views(data: FeatureSet, views: int) -> FeatureSet:
    return replace(data, tokens=data.tokens[:, torch.arange(views) % data.views])


def _check(train: FeatureSet, test: FeatureSet, val: FeatureSet | None, num_classes: int) -> None:
    parts = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    seen: dict[str, str] = {}
    for name, part in parts.items():
        if not len(part):
            raise InputError(f"the {name} split has no readable video ({len(part.failed)} failed)")
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= num_classes:
            raise InputError(f"labels of the {name} split run from {low} to {high}, expected 0 to {num_classes - 1}")
        if part.levels != train.levels or part.grid != train.grid:
            raise InputError(f"the {name} split has levels {part.levels}, expected those of train: {train.levels}")
        for key in part.keys:
            if seen.setdefault(key, name) != name:
                raise InputError(f"video '{key}' is in both the {seen[key]} and the {name} split")
