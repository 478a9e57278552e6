"""Several folders, lists and videos as one corpus."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidlbc.data.annotations.lists import LabelMap
from vidlbc.data.corpus import Corpus, Item
from vidlbc.errors import InputError

_PATTERN = set("*?[")


def sources(given: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """One, or several. Raises InputError where there is none, or one is no path."""
    several = [given] if isinstance(given, str | os.PathLike) else list(given)
    for source in several:
        if not isinstance(source, str | os.PathLike) or not str(source):
            raise InputError(f"{source!r}: expected the path of a folder, a list or a video, or a pattern of such")
    if not several:
        raise InputError("no input: expected a folder of videos, an annotation list, or several")
    return several


def matches(source: str | Path) -> list[Path]:
    """The paths that a pattern matches, sorted; the path itself where there is one of that name, or it is no pattern.

    Raises InputError for a pattern without a match.
    """
    path = Path(source).expanduser()
    if path.exists() or not _PATTERN & set(str(source)):
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if not _hidden(name)]
    if not found:
        raise InputError(f"{source}: no file or folder matches")
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in Path(name).parts)


def read_files(files: Sequence[Path]) -> Corpus:
    """Videos by name; folders below the one that holds them all name classes, as in a folder of class folders."""
    paths = [Path(os.path.abspath(path)) for path in dict.fromkeys(files)]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    parts = ["/".join(path.parent.relative_to(root).parts) or None for path in paths]
    labels = LabelMap(parts, None, str(root))
    items = [
        Item(path.relative_to(root).as_posix(), labels(label, str(path)))
        for path, label in zip(paths, parts, strict=True)
    ]
    form = "videos by name, folders are classes" if labels.classes else "videos by name"
    return Corpus(tuple(items), labels.classes, form, str(root), str(root))


def joined(corpora: Sequence[Corpus]) -> Corpus:
    """The items of all; equal class names are one class. Raises InputError where some name classes by numbers alone."""
    root = Path(os.path.commonpath([os.path.abspath(corpus.root) for corpus in corpora]))
    named = [corpus for corpus in corpora if corpus.classes]
    numbered = [corpus for corpus in named if all(name.isdecimal() for name in corpus.classes)]
    if numbered and len(numbered) < len(named):
        other = next(corpus for corpus in named if corpus not in numbered)
        raise InputError(
            f"{numbered[0].source}: labels are numbers, those of {other.source} are names: expected one kind"
        )
    classes = max((corpus.classes for corpus in numbered), key=len, default=())
    if not numbered:
        classes = tuple(sorted({name for corpus in named for name in corpus.classes}))
    place = {name: index for index, name in enumerate(classes)}
    items: list[Item] = []
    for corpus in corpora:
        folder = Path(os.path.abspath(corpus.root)).relative_to(root)
        for item in corpus.items:
            label = None if item.label is None else place[corpus.classes[item.label]]
            items.append(replace(item, path=(folder / item.path).as_posix(), label=label))
    unique = tuple(dict.fromkeys(items))
    forms = ", ".join(dict.fromkeys(corpus.form for corpus in corpora))
    return Corpus(unique, classes, f"{len(corpora)} inputs: {forms}", str(root), str(root))
