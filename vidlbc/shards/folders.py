"""Corpora that no list describes: class folders, split folders, flat folders, and WebDataset tars of videos."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

from vidlbc.errors import InputError
from vidlbc.shards.corpus import VIDEO_SUFFIXES, Corpus, Item, is_video, split_name
from vidlbc.shards.lists import LabelMap


def read_folder(root: Path) -> Corpus:
    """`root/split/class/video`, `root/class/video`, `root/split/video` or `root/video`, told apart by names.

    Raises InputError when there are no videos, or when a split's folder holds none.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {path: name for path in folders if (name := split_name(path.name))}
    if splits and len(splits) == len([path for path in folders if path in splits or videos_under(path)]):
        rows = []
        for path, split in sorted(splits.items(), key=lambda pair: pair[0].name):
            found = videos_under(path)
            if not found:
                raise InputError(f"{path}: split '{split}' has no files")
            rows += [(video, video.relative_to(path).parts[:-1], split) for video in found]
        form = "root/split/class/video folders" if any(parts for _, parts, _ in rows) else "root/split/video folders"
    else:
        rows = [(video, video.relative_to(root).parts[:-1], "") for video in videos_under(root)]
        form = "root/class/video folders" if any(parts for _, parts, _ in rows) else "flat folder"
    if not rows:
        raise InputError(f"{root}: no videos{_what_instead(root)}")
    labels = LabelMap(("/".join(parts) or None for _, parts, _ in rows), None, str(root))
    items = tuple(
        Item(video.relative_to(root).as_posix(), labels("/".join(parts) or None, str(video)), None, split or None)
        for video, parts, split in rows
    )
    return Corpus(items, labels.classes, form, str(root), str(root))


def videos_under(folder: Path) -> list[Path]:
    """Every video below `folder`, sorted: known suffixes, and files without one whose content is not text."""
    found = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
            continue
        if is_video(path.name) or (not path.suffix and _is_binary(path)):
            found.append(path)
    return found


def _is_binary(path: Path) -> bool:
    with open(path, "rb") as file:
        return b"\0" in file.read(4096)


def _what_instead(root: Path) -> str:
    suffixes = Counter(path.suffix.lower() for path in root.rglob("*") if path.is_file())
    if not suffixes:
        return " (the folder is empty)"
    suffix, count = suffixes.most_common(1)[0]
    return f" (it holds {count} '{suffix}' files; expected {', '.join(sorted(VIDEO_SUFFIXES)[:8])}, ...)"


def read_tars(archives: list[Path], root: Path, source: Path) -> Corpus:
    """WebDataset or video2dataset tars: `KEY.mp4` with `KEY.cls`, or `label` in `KEY.json`; folders name splits.

    Raises InputError for an archive that is damaged or holds no videos.
    """
    rows: list[tuple[str, str | None, str | None, str]] = []
    for archive in archives:
        videos: dict[str, str] = {}
        labels: dict[str, str] = {}
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    stem, _, suffix = member.name.rpartition(".")
                    if not member.isfile():
                        continue
                    if is_video(member.name):
                        videos[stem] = member.name
                    elif suffix in ("cls", "json"):
                        file = tar.extractfile(member)
                        text = _label_of(file.read(), suffix) if file else None
                        if text is not None and (suffix == "cls" or stem not in labels):
                            labels[stem] = text
        except tarfile.TarError as error:
            raise InputError(f"{archive}: damaged tar ({error})") from None
        if not videos:
            raise InputError(f"{archive}: holds no videos (expected members KEY.mp4, KEY.cls or KEY.json)")
        name = archive.relative_to(root).as_posix()
        split = next((found for part in Path(name).parts[:-1] if (found := split_name(part))), None)
        rows += [(f"{name}::{video}", labels.get(stem), split, str(archive)) for stem, video in sorted(videos.items())]
    mapped = LabelMap((label for _, label, _, _ in rows), None, str(source))
    items = tuple(Item(path, mapped(label, where), None, split) for path, label, split, where in rows)
    return Corpus(items, mapped.classes, "WebDataset tars", str(root), str(source))


def _label_of(data: bytes, suffix: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == "cls":
        return text or None
    try:
        meta = json.loads(text)
    except json.JSONDecodeError:
        return None
    label = meta.get("label") if isinstance(meta, dict) else None
    return str(label) if isinstance(label, (str, int)) and not isinstance(label, bool) else None
