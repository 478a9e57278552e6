"""Training crops from fully labelled, weakly labelled and unlabelled sources in one run.

    sources --list_source--> files --read--> uint8 pictures in memory --sampler(step)--> MixedBatch

Every batch holds its sources in their shares: position i of B samples falls at (i + u) / B of the cumulative shares, so
a source's count is within one of share * B (systematic sampling). What a step sees is a pure function of (seed, rank,
step). A source larger than its part of the memory is visited pool after pool.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import InputError, VideoError
from vidlbc.train.data.mixed_sources import Entry, Listed, MixedSource, list_source, read_entry

__all__ = ["MixedBatch", "MixedSampler", "MixedSource", "LabelTask"]

_TOLD = 3


@dataclass(frozen=True)
class LabelTask:
    """A classification that labelled sources pose; sources with the same class names share one."""

    name: str
    classes: tuple[str, ...]


class MixedBatch(NamedTuple):
    """frames (B, 3, S, S) float in [0, 1]; qp (B,) int64; label (B,) int64, -1 none; weight (B,) float: of the task's
    loss, 1 full, the source's own if weak, 0 none; task (B,) int64 into `MixedSampler.tasks`, -1 none."""

    frames: Tensor
    qp: Tensor
    label: Tensor
    weight: Tensor
    task: Tensor


@dataclass(frozen=True)
class _Pool:
    """Pictures in memory: `entry[i]` is what picture i was read from; drawn in proportion to the steps of `bounds`."""

    pictures: list[np.ndarray]
    entry: list[Entry]
    bounds: np.ndarray
    whole: bool


class MixedSampler:
    """`sampler(step)` -> MixedBatch. `tasks` are known before anything is read; `skipped` holds what cannot be read."""

    def __init__(
        self,
        sources: Sequence[MixedSource],
        size: int,
        batch: int,
        num_qp: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        *,
        pool_mb: int = 4096,
        steps_per_pool: int = 10_000,
        on_read: Callable[[int, int], None] | None = None,
    ):
        """`size`: pixels of a crop's side; `on_read(done, total)` is called after each file of a pool, of all files.

        Raises InputError for a source that is missing, empty or not as its entry says, and for shares that do not fit.
        """
        if not sources:
            raise InputError("data sources: none given, expected at least one")
        for name, value in (("size", size), ("batch", batch), ("pool_mb", pool_mb), ("steps_per_pool", steps_per_pool)):
            if value < 1:
                raise InputError(f"{name}={value}: expected at least 1")
        self.size, self.batch, self.num_qp, self.device = size, batch, num_qp, device
        self.seed, self.rank = seed, rank
        self.pool_mb, self.steps_per_pool, self.on_read = pool_mb, steps_per_pool, on_read
        self.listed = tuple(list_source(source) for source in sources)
        self.tasks, self._labels, self._task = _tasks_of(self.listed)
        self.shares = _shares_of(self.listed)
        self.skipped: dict[str, str] = {}
        self._pools: list[_Pool | None] = [None] * len(self.listed)
        self._index = [-1] * len(self.listed)

    def __call__(self, step: int) -> MixedBatch:
        draw = random.Random(f"{self.seed}/{self.rank}/{step}")
        start, bounds = draw.random(), np.cumsum(self.shares)
        crops: list[np.ndarray] = []
        label, weight, task = [], [], []
        for i in range(self.batch):
            at = min(int(np.searchsorted(bounds, (i + start) / self.batch, "right")), len(self.listed) - 1)
            crop, index = self._sample(at, self._pool_of(at, step), draw)
            source = self.listed[at].source
            crops.append(crop)
            label.append(index)
            weight.append(0.0 if index < 0 else source.weight if source.labels == "weak" else 1.0)
            task.append(self._task[at] if index >= 0 else -1)
        qp = [draw.randrange(self.num_qp) for _ in range(self.batch)]
        frames = torch.from_numpy(np.stack(crops)).to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        return MixedBatch(
            frames,
            torch.tensor(qp, device=self.device),
            torch.tensor(label, device=self.device),
            torch.tensor(weight, device=self.device),
            torch.tensor(task, device=self.device),
        )

    def describe(self) -> str:
        """One line a source: its form, files, share of a batch and task. For the tools to print before a run."""
        lines = []
        for listed, share, task in zip(self.listed, self.shares, self._task, strict=True):
            s = listed.source
            labels = "no labels" if task < 0 else f"{s.labels} labels of '{self.tasks[task].name}'"
            lines.append(f"{s.path} ({listed.form}): {len(listed.entries)} files, {share:.0%} of a batch, {labels}")
        return "\n".join(lines)

    def _sample(self, at: int, pool: _Pool, draw: random.Random) -> tuple[np.ndarray, int]:
        source, size = self.listed[at].source, self.size
        found = int(np.searchsorted(pool.bounds, draw.random() * pool.bounds[-1], "right"))
        picture, entry = pool.pictures[found], pool.entry[found]
        top = draw.randrange(picture.shape[0] - size + 1)
        left = draw.randrange(picture.shape[1] - size + 1)
        crop = picture[top : top + size, left : left + size]
        if source.flip and draw.random() < 0.5:
            crop = crop[:, ::-1]
        if source.labels == "none" and source.flip and draw.random() < 0.5:
            crop = crop.transpose(1, 0, 2)
        return crop, self._labels[at][entry.label] if entry.label >= 0 else -1

    def _pool_of(self, at: int, step: int) -> _Pool:
        pool, index = self._pools[at], step // self.steps_per_pool
        if pool is None or not (pool.whole or index == self._index[at]):
            pool = self._pools[at] = self._read(at, index)
            self._index[at] = index
        return pool

    def _read(self, at: int, index: int) -> _Pool:
        """Files in random order until the source's part of the memory is full; kept in the listed order."""
        listed = self.listed[at]
        order = list(range(len(listed.entries)))
        random.Random(f"{self.seed}/{self.rank}/{at}/{index}").shuffle(order)
        read: dict[int, list[np.ndarray]] = {}
        free = self.pool_mb * 2**20 * self.shares[at]
        failed: dict[str, str] = {}
        for place in order:
            if free <= 0:
                break
            entry = listed.entries[place]
            try:
                read[place] = read_entry(listed, entry, self.size)
            except (InputError, VideoError) as error:
                read[place] = []
                failed[str(listed.root / entry.path)] = str(error)
            free -= sum(picture.nbytes for picture in read[place])
            if self.on_read is not None:
                self.on_read(len(read), len(order))
        pictures = [picture for place in sorted(read) for picture in read[place]]
        if not pictures:
            reasons = "".join(f"; {reason}" for reason in list(failed.values())[:2])
            path, total = listed.source.path, len(order)
            raise InputError(f"data source {path}: none of {total} files gives {self.size} pixels a side{reasons}")
        self._tell(listed, failed)
        entries = [listed.entries[place] for place in sorted(read) for _ in read[place]]
        # Large unlabelled pictures are drawn more often: a crop of them shows less. Labelled ones were brought to size.
        by_area = listed.source.labels == "none"
        sizes = [float(p.shape[0] * p.shape[1]) ** 0.5 if by_area else 1.0 for p in pictures]
        return _Pool(pictures, entries, np.cumsum(sizes), len(read) == len(order))

    def _tell(self, listed: Listed, failed: dict[str, str]) -> None:
        """Each file that cannot be read is told once, by rank 0; past a few, their number says enough."""
        new = {path: reason for path, reason in failed.items() if path not in self.skipped}
        self.skipped.update(new)
        if self.rank:
            return
        for reason in list(new.values())[:_TOLD]:
            print(f"left out: {reason}", file=sys.stderr)
        if len(new) > _TOLD:
            print(f"left out: {len(new) - _TOLD} more files of {listed.source.path}", file=sys.stderr)


def _tasks_of(listed: Sequence[Listed]) -> tuple[tuple[LabelTask, ...], list[list[int]], list[int]]:
    """The tasks; for each source, its labels as indices of its task's classes, and its task (-1: none)."""
    tasks: list[LabelTask] = []
    labels: list[list[int]] = []
    chosen: list[int] = []
    for source in listed:
        if not source.classes:
            labels.append([])
            chosen.append(-1)
            continue
        same = next((i for i, task in enumerate(tasks) if sorted(task.classes) == sorted(source.classes)), None)
        if same is None:
            names = [task.name for task in tasks]
            count = sum(name.rpartition("-")[0] == source.name or name == source.name for name in names)
            tasks.append(LabelTask(source.name if not count else f"{source.name}-{count + 1}", source.classes))
            same = len(tasks) - 1
        known = tasks[same].classes
        labels.append([i if known[i] == name else known.index(name) for i, name in enumerate(source.classes)])
        chosen.append(same)
    return tuple(tasks), labels, chosen


def _shares_of(listed: Sequence[Listed]) -> list[float]:
    """Shares of a batch, adding up to 1. Raises InputError where the given ones cannot."""
    given = sum(source.source.share or 0.0 for source in listed)
    roots = [len(source.entries) ** 0.5 if source.source.share is None else 0.0 for source in listed]
    if any(roots) and given >= 1 or not any(roots) and abs(given - 1) > 1e-6:
        expected = "less than 1, as others have none" if any(roots) else "1; leave one out to let it have the rest"
        raise InputError(f"data sources: their shares add up to {given:g}, expected {expected}")
    return [s.source.share or (1 - given) * root / sum(roots) for s, root in zip(listed, roots, strict=True)]
