"""What a corpus is: files with what is known about them, read from any annotation family, converted from none."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from vidlbc.errors import InputError
from vidlbc.video.sequences import VIDEO_SUFFIXES

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
SPLITS = ("train", "val", "test")

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}


def split_name(text: str) -> str | None:
    """`train`, `val` or `test` for any of their usual spellings, else None."""
    return _SPLIT_NAMES.get(text.strip().lower())


def split_of_folder(name: str) -> str | None:
    """`split_name`, also of `videos_train` and `val_clips` (MMAction2), which are no classes."""
    words = [word for word in re.split(r"[_\-. ]+", name.strip().lower()) if word]
    kept = [word for word in words if word not in ("video", "videos", "clip", "clips", "rawvideos", "set", "data")]
    return split_name(kept[0]) if len(kept) == 1 else None


def is_video(name: str) -> bool:
    """Does the name end as video files do? Content is judged later, by decoding, and noted as a verdict."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Item:
    """One listed video, or a frame range of one.

    `path` is relative to the corpus' root (absolute where the file lies outside); a video inside a tar is written
    `archive.tar::member.mp4`. `label` indexes `Corpus.classes`; None is unlabelled. `group` is whoever must not be on
    both sides of a split (a person, a scene, a source video). Frames `[start, stop)`; None is the file's own end.
    """

    path: str
    label: int | None = None
    group: str | None = None
    split: str | None = None
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True)
class Corpus:
    """The items of a data set, its class names (index = label), and the annotation family they were read from."""

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    form: str
    root: str
    source: str

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that occur, in the order train, val, test."""
        present = {item.split for item in self.items}
        return tuple(name for name in SPLITS if name in present)

    def select(self, split: str) -> Corpus:
        """The same corpus with one split's items only (classes unchanged, so labels keep their meaning)."""
        return replace(self, items=tuple(item for item in self.items if item.split == split))

    def require(self, *splits: str) -> None:
        """Raise InputError unless each of `splits` has items and at least one of its files exists."""
        for split in splits:
            items = self.select(split).items
            if not items:
                found = ", ".join(self.splits) or "none"
                raise InputError(f"{self.source}: split '{split}' has no files (splits found: {found})")
            require_files(Path(self.root), items, f"{self.source}: split '{split}'")

    def label_map(self) -> str:
        """One line a class: index, name, items per split. Printed by the tools: a shifted label map is a silent bug."""
        if not self.classes:
            return f"{self.source} ({self.form}): {len(self.items)} videos, no labels"
        counts = Counter((item.label, item.split) for item in self.items)
        columns: tuple[str | None, ...] = self.splits or (None,)
        names = [name or "items" for name in columns]
        width = max(len("class"), *(len(name) for name in self.classes))
        lines = [f"{self.source} ({self.form}): {len(self.items)} videos, {len(self.classes)} classes"]
        lines.append(f"{'label':>6}  {'class':<{width}}" + "".join(f"{name:>8}" for name in names))
        for label, name in enumerate(self.classes):
            row = "".join(f"{counts[label, column]:>8}" for column in columns)
            lines.append(f"{label:>6}  {name:<{width}}{row}")
        if any(item.label is None for item in self.items):
            row = "".join(f"{counts[None, column]:>8}" for column in columns)
            lines.append(f"{'-':>6}  {'(no label)':<{width}}{row}")
        return "\n".join(lines)


def locate(root: str | Path, path: str) -> tuple[Path, str | None]:
    """The file on disk and, for `archive.tar::member`, the member's name; where it was `escaped`, as it is there."""
    archive, sep, member = path.partition(".tar::")
    file = Path(root) / (f"{archive}.tar" if sep else path)
    if "\\x" in str(file) and not file.exists():
        file = Path(as_stored(str(file)))
    return file, member if sep else None


def escaped(name: str) -> str:
    """A name from a disk or a tar as text that tables, JSON and lines hold: bytes that are not UTF-8, and control
    characters, become `\\xe9` and the like."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def as_stored(name: str) -> str:
    """What `escaped` gave the name for."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(name)).decode("utf-8", "surrogateescape")


def require_files(root: Path, items: tuple[Item, ...], where: str) -> None:
    """Raise InputError when not one of the files listed exists: the root is wrong, rather than a file missing."""
    if not any(locate(root, item.path)[0].exists() for item in items):
        raise InputError(f"{where}: none of its {len(items)} files exists (first: {locate(root, items[0].path)[0]})")


def checked(corpus: Corpus) -> Corpus:
    """The corpus, or InputError: empty, half split, nothing on disk, or a label that training never shows."""
    if not corpus.items:
        raise InputError(f"{corpus.source}: lists no videos")
    if escaped(corpus.root) != corpus.root:
        raise InputError(f"{escaped(corpus.root)}: the folder's own name is no plain UTF-8 text: expected another name")
    if any(escaped(text) != text for text in (*(item.path for item in corpus.items), *corpus.classes)):
        items = tuple(replace(item, path=escaped(item.path)) for item in corpus.items)
        corpus = replace(corpus, items=items, classes=tuple(map(escaped, corpus.classes)))
    unsplit = [item for item in corpus.items if item.split is None]
    if unsplit and len(unsplit) < len(corpus.items):
        raise InputError(f"{corpus.source}: {unsplit[0].path} has no split while other files have one")
    require_files(Path(corpus.root), corpus.items, corpus.source)
    trained = {item.label for item in corpus.items if item.split == "train"}
    if trained - {None}:
        for item in corpus.items:
            if item.split in ("val", "test") and item.label is not None and item.label not in trained:
                name = corpus.classes[item.label]
                raise InputError(f"{corpus.source}: label '{name}' is in {item.split} but not in train ({item.path})")
    return corpus
