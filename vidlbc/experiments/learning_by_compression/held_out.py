"""Frames that RQ is measured on and the recogniser is checked with: the middle of pictures and of videos, unseen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidlbc.errors import InputError, VideoError
from vidlbc.experiments.learning_by_compression.evaluator import Marks
from vidlbc.experiments.learning_by_compression.ratio import FrameSet
from vidlbc.shards import read_annotations
from vidlbc.train.data.mixed_data import LabelTask
from vidlbc.train.data.mixed_sources import Entry, Listed, MixedSource, list_source, read_entry

# Frames read of a video, evenly spread; the middle one is kept.
_SPREAD = 3


@dataclass(frozen=True)
class HeldOutSource:
    """Pictures without labels (a folder, a pattern), or a list with classes, of which `split` is taken."""

    path: str
    split: str | None = None
    every: int = 1
    weight: float = 1.0

    @classmethod
    def of(cls, entry: str | Mapping[str, Any]) -> "HeldOutSource":
        """From a config: a path, or {path:, split:, every:, weight:}. Raises InputError."""
        if isinstance(entry, str):
            return cls(entry)
        try:
            return cls(**entry)
        except TypeError:
            raise InputError(f"data.val {entry!r}: expected a path, or {{path:, split:, every:, weight:}}") from None


def read_held_out(sources: Sequence[HeldOutSource], size: int, tasks: Sequence[LabelTask]) -> FrameSet:
    """One crop of `size` pixels, from the middle, of every file. Files that are smaller or unreadable are left out.

    Raises InputError where a source is missing, or none of its files gives a frame.
    """
    frames: list[np.ndarray] = []
    label: list[int] = []
    weight: list[float] = []
    task: list[int] = []
    names: list[str] = []
    for source in sources:
        listed, place = _listed(source, tasks)
        found = False
        for entry in listed.entries:
            try:
                pictures = read_entry(listed, entry, size)
            except (InputError, VideoError):
                continue
            found = True
            frames.append(_middle(pictures[len(pictures) // 2], size))
            names.append(entry.path)
            label.append(entry.label)
            weight.append(source.weight if entry.label >= 0 else 0.0)
            task.append(place if entry.label >= 0 else -1)
        if not found:
            raise InputError(f"data.val {source.path}: no file gives a frame of at least {size} pixels a side")
    if not frames:
        raise InputError("data.val: no source given, expected frames to measure RQ on")
    marks = Marks(torch.tensor(label), torch.tensor(weight), torch.tensor(task))
    return FrameSet(np.stack(frames), marks, tuple(names))


def _listed(source: HeldOutSource, tasks: Sequence[LabelTask]) -> tuple[Listed, int]:
    """The source's files, labels as those of a task, and which task; -1 is none."""
    if source.split is None:
        return list_source(MixedSource(source.path, every=source.every, frames_per_video=_SPREAD)), -1
    path = Path(source.path).expanduser()
    corpus = read_annotations(path).select(source.split)
    place = next((i for i, task in enumerate(tasks) if set(task.classes) == set(corpus.classes)), -1)
    if place < 0:
        raise InputError(f"data.val {source.path}: its classes are those of no labelled source of data.train")
    index = {name: tasks[place].classes.index(name) for name in corpus.classes}
    entries = tuple(
        Entry(i.path, -1 if i.label is None else index[corpus.classes[i.label]], i.start or 0, i.stop)
        for i in corpus.items[:: source.every]
    )
    # Labelled files are brought to size as those of the training are: things look as large as they were learned.
    as_trained = MixedSource(source.path, labels="full", frames_per_video=_SPREAD)
    return Listed(as_trained, path.name, corpus.form, Path(corpus.root), corpus.classes, entries), place


def _middle(picture: np.ndarray, size: int) -> np.ndarray:
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return np.ascontiguousarray(picture[top : top + size, left : left + size])
