"""Sources of mixed supervision: what a config's entry names, as a list of files with the labels that training may use.

    a path, or {path:, labels: full | weak | none, ...}
        --> picture set (vidlbc.data.picture_sets), annotation list or folder (vidlbc.shards), or plain files --> Listed

Only train splits are taken, labelled or not; a source that names no splits is taken whole.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.data.content import local_file
from vidlbc.data.corpus import is_video
from vidlbc.data.picture_sets import FORMS, detect_form, open_picture_set
from vidlbc.errors import InputError, VideoError
from vidlbc.shards import read_annotations
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures
from vidlbc.video import VideoReader

LABELS = ("full", "weak", "none")
# A crop of a labelled picture must show what the label names: its shorter side is brought down to so many crop sides.
_LABELLED_SIDE = 1.25
_FRAMES_LOOKED_AT = 512
_FRAMES_KEPT = 64


@dataclass(frozen=True)
class MixedSource:
    """Pictures and videos, with how far their labels are to be trusted.

    path: a folder, a list, a pattern or a picture set's root. labels: `full` (a label counts 1), `weak` (`weight`) or
    `none` (labels are not read). every: take one file in so many. frames_per_video: pictures taken from a video, evenly
    spread. share: of every batch, 0 to 1; None: by the root of the number of files, of what the others leave. flip:
    false where left and right tell classes apart. form: a picture set's form (`vidlbc.data.picture_sets.FORMS`),
    `files` for none, `auto` to detect it.
    """

    path: str
    labels: str = "none"
    weight: float = 0.5
    every: int = 1
    frames_per_video: int = 3
    share: float | None = None
    flip: bool = True
    form: str = "auto"

    @classmethod
    def of(cls, entry: str | Mapping[str, Any]) -> "MixedSource":
        """From a config: a path, or a mapping of the fields above. Raises InputError."""
        if isinstance(entry, str):
            return cls(entry)
        known = [field.name for field in fields(cls)]
        if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str) or set(entry) - set(known):
            raise InputError(f"data source {entry!r}: expected a path, or {{path: ...}} with any of {known[1:]}")
        return cls(**{str(key): value for key, value in entry.items()})

    def __post_init__(self) -> None:
        numbers = (int, float)
        rules: tuple[tuple[str, bool, str], ...] = (
            ("labels", self.labels in LABELS, "full, weak or none"),
            ("weight", _is(self.weight, numbers) and 0 <= self.weight <= 1, "a number from 0 to 1"),
            ("every", _is(self.every, int) and self.every >= 1, "an integer of at least 1"),
            ("frames_per_video", _is(self.frames_per_video, int) and self.frames_per_video >= 1, "at least 1"),
            ("share", self.share is None or (_is(self.share, numbers) and 0 < self.share <= 1), "above 0, at most 1"),
            ("flip", isinstance(self.flip, bool), "true or false"),
            ("form", self.form in ("auto", "files", *FORMS), f"auto, files, {', '.join(FORMS)}"),
        )
        for name, right, expected in rules:
            if not right:
                raise InputError(f"data source {self.path}: {name}={getattr(self, name)!r}, expected {expected}")


@dataclass(frozen=True)
class Entry:
    """One file and its class index, -1 where it has none; frames `[start, stop)` of a video."""

    path: str
    label: int = -1
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Listed:
    """A source's files below `root`; `name` is for reports, `form` says how they were listed."""

    source: MixedSource
    name: str
    form: str
    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]


def list_source(source: MixedSource) -> Listed:
    """The train split of a source. Raises InputError: nothing there, no file, or no labels though it says so."""
    path = Path(source.path).expanduser()
    form = source.form
    if form == "auto":
        form = (detect_form(path) if path.is_dir() else None) or "files"
    listed = _from_picture_set(source, path, form) if form != "files" else _from_files(source, path)
    if source.labels != "none" and not any(entry.label >= 0 for entry in listed.entries):
        expected = f"a source with class labels ({listed.form}: none)"
        raise InputError(f"data source {source.path}: labels={source.labels}, expected {expected}")
    return listed


def read_entry(listed: Listed, entry: Entry, size: int) -> list[np.ndarray]:
    """The uint8 (H, W, 3) pictures of one file, none smaller than `size`; of a video, evenly spread frames.

    Raises InputError or VideoError where nothing can be read or it is too small.
    """
    with tempfile.TemporaryDirectory(prefix="vidlbc-") as scratch:
        with local_file(listed.root, entry.path, Path(scratch) / "member") as file:
            if is_video(file.name):
                pictures = _frames(file, entry, listed.source.frames_per_video)
            else:
                pictures = read_pictures(file, 1)
    if min(pictures[0].shape[:2]) < size:
        raise InputError(f"{listed.root / entry.path}: smaller than {size} pixels a side")
    return [_brought_down(p, size) for p in pictures] if listed.source.labels != "none" else pictures


def _frames(file: Path, entry: Entry, count: int) -> list[np.ndarray]:
    """`count` frames, evenly spread over the clip (or its first 512 frames). Of the frames seen, every s-th is kept;
    s doubles when they are many, so that memory is bounded whatever the length."""
    stop = entry.start + _FRAMES_LOOKED_AT
    reader = VideoReader(file, start=entry.start, stop=stop if entry.stop is None else min(stop, entry.stop))
    kept: list[np.ndarray] = []
    seen, every = 0, 1
    for block in reader.blocks():
        for frame in block:
            if seen % every == 0:
                kept.append(frame.copy())
            seen += 1
            if len(kept) > max(_FRAMES_KEPT, count):
                kept, every = kept[::2], 2 * every
    if not kept:
        raise VideoError(f"{file}: {reader.verdict}")
    return [kept[i] for i in np.linspace(0, len(kept) - 1, min(count, len(kept))).astype(int)]


def _brought_down(picture: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    scale = _LABELLED_SIDE * size / min(height, width)
    if scale >= 1:
        return picture
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    return np.array(Image.fromarray(picture).resize(shape, Image.Resampling.LANCZOS))


def _from_picture_set(source: MixedSource, root: Path, form: str) -> Listed:
    found = open_picture_set(root, form, "train")
    labelled = source.labels != "none" and "label" in found.kinds
    if labelled and source.labels == "full" and found.weak:
        raise InputError(f"data source {source.path}: the labels of {form} are weak, expected labels: weak")
    entries = tuple(
        Entry(str(found.picture(i)), _index(found.label(i)) if labelled else -1)
        for i in range(0, len(found), source.every)
    )
    return Listed(source, root.resolve().name, form, Path(), found.classes if labelled else (), entries)


def _from_files(source: MixedSource, path: Path) -> Listed:
    if source.labels == "none":
        files = find_files([PictureSource(source.path, source.every)])
        return Listed(source, path.name, "files", Path(), (), tuple(Entry(str(file)) for file in files))
    corpus = read_annotations(path)
    items = (corpus.select("train") if corpus.splits else corpus).items
    if not items:
        raise InputError(f"data source {source.path}: no train split (splits found: {', '.join(corpus.splits)})")
    entries = tuple(Entry(i.path, _index(i.label), i.start or 0, i.stop) for i in items[:: source.every])
    root = Path(corpus.root)
    return Listed(source, root.resolve().name, corpus.form, root, corpus.classes, entries)


def _index(label: int | None) -> int:
    return -1 if label is None else label


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
