"""Corpora that no list describes: class folders, split folders, flat folders, and WebDataset tars of videos."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vidlbc.data.annotations.lists import LabelMap, split_from_file, written_label
from vidlbc.data.corpus import VIDEO_SUFFIXES, Corpus, Item, is_video, split_of_folder
from vidlbc.errors import InputError
from vidlbc.video.sequences import is_animated_webp, numbered_pictures


def read_folder(root: Path) -> Corpus:
    """`root/split/class/video`, `root/class/video`, `root/split/video` or `root/video`, told apart by names.

    Raises InputError when there are no videos, when a split's folder holds none, or a folder beside train and another
    split is none.
    """
    everything = videos_under(root)
    # Beside video files, folders of pictures are their thumbnails or frames taken out of them.
    files = any(is_video(path.name) and not path.is_dir() for path in everything)
    kept = [path for path in everything if not (files and path.is_dir())]

    def under(folder: Path) -> list[Path]:
        return [path for path in kept if path.is_relative_to(folder)]

    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {path: name for path in folders if (name := split_of_folder(path.name))}
    others = [path for path in folders if path not in splits and under(path)] if splits else []
    if others and "train" in splits.values() and len(set(splits.values())) > 1:
        named = ", ".join(path.name for path in splits)
        raise InputError(f"{others[0]}: holds videos beside the splits {named}, and is none: expected it elsewhere")
    if splits and not others:
        rows = []
        for path, split in sorted(splits.items(), key=lambda pair: pair[0].name):
            found = under(path)
            if not found:
                raise InputError(f"{path}: split '{split}' has no files")
            rows += [(video, video.relative_to(path).parts[:-1], split) for video in found]
        form = "root/split/class/video folders" if any(parts for _, parts, _ in rows) else "root/split/video folders"
    else:
        rows = [(video, video.relative_to(root).parts[:-1], "") for video in kept]
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
    """Every video below `folder`, sorted: known suffixes, files without one whose content is not text, folders of
    numbered pictures, animated WebP.

    Links to folders are followed, but for one that leads to a folder it lies in.
    """
    found = []
    for path in _files_under(folder, frozenset()):
        if path.is_dir() or is_video(path.name) or (not path.suffix and _is_binary(path)):
            found.append(path)
        elif path.suffix.lower() == ".webp" and is_animated_webp(path):
            found.append(path)
    return sorted(found)


def _files_under(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    at = folder.stat()
    if (at.st_dev, at.st_ino) in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and numbered_pictures(path):
            yield path
        elif path.is_dir():
            yield from _files_under(path, above | {(at.st_dev, at.st_ino)})
        elif path.is_file():
            yield path


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
        videos: list[str] = []
        labels: dict[str, str] = {}
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    suffix = member.name.rpartition(".")[2].lower()
                    if is_video(member.name):
                        videos.append(member.name)
                    elif suffix in ("cls", "json"):
                        file = tar.extractfile(member)
                        where = f"{archive}: {member.name}"
                        text = _label_of(file.read(), suffix, where) if file else None
                        stem = member.name.rpartition(".")[0]
                        if text is not None and (suffix == "cls" or stem not in labels):
                            labels[stem] = text
        except tarfile.TarError as error:
            raise InputError(f"{archive}: damaged tar ({error})") from None
        if not videos:
            raise InputError(f"{archive}: holds no videos (expected members KEY.mp4, KEY.cls or KEY.json)")
        name = archive.relative_to(root).as_posix()
        split = next((found for part in Path(name).parts[:-1] if (found := split_of_folder(part))), None)
        split = split or split_from_file(archive)
        for video, label in _paired(videos, labels, archive):
            rows.append((f"{name}::{video}", label, split, f"{archive}: {video}"))
    mapped = LabelMap.of_lines(((label, where) for _, label, _, where in rows), None, str(source))
    items = tuple(Item(path, mapped(label, where), None, split) for path, label, split, where in rows)
    return Corpus(items, mapped.classes, "WebDataset tars", str(root), str(source))


def _paired(videos: list[str], labels: dict[str, str], archive: Path) -> Iterator[tuple[str, str | None]]:
    """Each video and its label: of the same name but for the suffix, else of the same key as WebDataset has it, which
    is the name up to its first dot. Raises InputError where that key has two videos.
    """
    by_key = {_key(stem): text for stem, text in labels.items()}
    counts = Counter(_key(video) for video in videos)
    for video in sorted(videos):
        stem = video.rpartition(".")[0]
        key = _key(video)
        if stem not in labels and key in by_key and counts[key] > 1:
            raise InputError(f"{archive}: {counts[key]} videos of key '{key}', which has one label: expected one video")
        yield video, labels.get(stem, by_key.get(key))


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.split('.', 1)[0]}"


def _label_of(data: bytes, suffix: str, where: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == "cls":
        return written_label(text, where)
    try:
        meta = json.loads(text)
    except json.JSONDecodeError:
        return None
    label = meta.get("label") if isinstance(meta, dict) else None
    if isinstance(label, list):
        label = label[0] if len(label) == 1 else json.dumps(label)
    known = isinstance(label, (str, int, float)) and not isinstance(label, bool)
    return written_label(str(label), where) if known else None
