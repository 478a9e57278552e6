"""The lists that public action benchmarks ship: Kinetics, UCF101, HMDB51, Something-Something, Jester.

Read as distributed: DeepMind's Kinetics CSV, UCF101's `ucfTrainTestlist`, HMDB51's `testTrainMulti_7030_splits`,
20BN's JSON and CSV.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vidlbc.data.annotations.json_files import read_json, read_label_json
from vidlbc.data.annotations.lists import LabelMap, csv_rows, read_lines, split_from_file
from vidlbc.data.corpus import Corpus, Item, is_video, split_name
from vidlbc.errors import InputError

_HMDB_FILE = re.compile(r"^(?P<cls>.+)_test_split(?P<fold>\d+)\.txt$")
_UCF_FILE = re.compile(r"^(?P<split>train|test)list(?P<fold>\d+)\.txt$")
_HMDB_SPLIT = {"1": "train", "2": "test"}


class VideoIndex:
    """Finds a benchmark's videos under a root whatever the folders are called, by file name without suffix."""

    def __init__(self, root: Path) -> None:
        self._found: dict[str, list[str]] = {}
        for path in sorted(root.rglob("*")):
            if is_video(path.name) and path.is_file():
                self._found.setdefault(path.stem, []).append(path.relative_to(root).as_posix())

    def find(self, stem: str, folder: str = "") -> str | None:
        """The file's path relative to the root; of several, the one in a folder called like `folder`."""
        found = self._found.get(stem, [])
        for path in found:
            if folder and _plain(folder) in (_plain(part) for part in path.split("/")[:-1]):
                return path
        return found[0] if found else None


def _plain(name: str) -> str:
    """Class folders are written 'a_b', 'a b', or without '()' and quotes, depending on who downloaded them."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def read_kinetics(files: Sequence[Path], root: Path, source: Path) -> Corpus:
    """`label,youtube_id,time_start,time_end,split` -> `{id}_{start:06d}_{end:06d}.mp4` (or `{id}.mp4`)."""
    index = VideoIndex(root)
    rows = [(path, number, row) for path in files for number, row in csv_rows(path)]
    if not rows:
        raise InputError(f"{source}: empty list")
    labels = LabelMap((row.get("label") or None for _, _, row in rows), None, str(source))
    items = []
    for path, number, row in rows:
        where = f"{path} line {number}"
        try:
            video = row["youtube_id"]
            stem = f"{video}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}"
        except (KeyError, ValueError):
            raise InputError(f"{where}: expected youtube_id, time_start and time_end in seconds") from None
        name = row.get("label") or None
        split = split_name(row["split"]) if row.get("split") else split_from_file(path)
        if row.get("split") and split is None:
            raise InputError(f"{where}: unknown split '{row['split']}' (expected train, val or test)")
        wanted = f"{name.replace(' ', '_')}/{stem}.mp4" if name else f"{stem}.mp4"
        found = index.find(stem, name or "") or index.find(video, name or "") or wanted
        items.append(Item(found, labels(name, where), video, split))
    return Corpus(tuple(items), labels.classes, "Kinetics CSV", str(root), str(source))


def read_ucf101(folder: Path, root: Path, fold: int, only: Path | None = None) -> Corpus:
    """`classInd.txt` (1-based), `trainlist0N.txt` (labelled), `testlist0N.txt` (labels from the class folder)."""
    class_file = folder / "classInd.txt"
    if not class_file.is_file():
        raise InputError(f"{class_file}: missing; UCF101 split files need it to name the classes")
    numbered: dict[int, str] = {}
    for number, line in read_lines(class_file):
        parts = line.split(None, 1)
        if len(parts) != 2 or not parts[0].isdecimal():
            raise InputError(f"{class_file} line {number}: expected 'number class', found '{line.strip()[:80]}'")
        numbered[int(parts[0])] = parts[1].strip()
    order = sorted(numbered)
    classes = tuple(numbered[number] for number in order)
    index = VideoIndex(root)
    files = [only] if only else [folder / f"{kind}list{fold:02d}.txt" for kind in ("train", "test")]
    items = []
    for path in files:
        match = _UCF_FILE.match(path.name)
        if match is None or not path.is_file():
            raise InputError(f"{path}: no such split file (folds present: {', '.join(_folds(folder, _UCF_FILE))})")
        lines = read_lines(path)
        if not lines:
            raise InputError(f"{path}: empty list")
        for number, line in lines:
            where = f"{path} line {number}"
            head, _, tail = line.strip().rpartition(" ")
            name, given = (head, tail) if head and tail.isdecimal() else (line.strip(), None)
            folder_class = name.rpartition("/")[0].rpartition("/")[2]
            if folder_class not in classes:
                known = f"{len(classes)} classes of classInd.txt"
                raise InputError(f"{where}: unknown label '{folder_class}' (not among the {known})")
            if given is not None and numbered.get(int(given)) != folder_class:
                named = numbered.get(int(given), "nothing")
                raise InputError(
                    f"{where}: label {given} is '{named}' in classInd.txt, the folder says '{folder_class}'"
                )
            stem = Path(name).stem
            items.append(
                Item(
                    name if (root / name).is_file() else index.find(stem, folder_class) or name,
                    classes.index(folder_class),
                    re.sub(r"_c\d+$", "", stem),  # v_Class_g01_c03 -> v_Class_g01: clips of one source video
                    match["split"],
                )
            )
    return Corpus(tuple(items), classes, "UCF101 split files", str(root), str(only or folder))


def read_hmdb51(folder: Path, root: Path, fold: int) -> Corpus:
    """`<class>_test_split<N>.txt`: 1 is train, 2 is test, 0 is unused in this fold."""
    index = VideoIndex(root)
    rows = []
    for path in sorted(folder.iterdir()):
        match = _HMDB_FILE.match(path.name)
        if match and int(match["fold"]) == fold:
            rows += [(match["cls"], f"{path} line {number}", line.strip()) for number, line in read_lines(path)]
    if not rows:
        folds = ", ".join(_folds(folder, _HMDB_FILE))
        raise InputError(f"{folder}: no HMDB51 split files of fold {fold} (folds present: {folds})")
    classes = tuple(sorted({cls for cls, _, _ in rows}))
    items = []
    for cls, where, line in rows:
        name, _, mark = line.rpartition(" ")
        if mark not in ("0", "1", "2") or not name:
            raise InputError(f"{where}: expected 'video 0|1|2', found '{line[:80]}'")
        if mark == "0":
            continue
        stem = Path(name.strip()).stem
        found = index.find(stem, cls) or f"{cls}/{name.strip()}"
        items.append(Item(found, classes.index(cls), stem.split(f"_{cls}_")[0], _HMDB_SPLIT[mark]))
    return Corpus(tuple(items), classes, "HMDB51 split files", str(root), str(folder))


def _folds(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    found = {match["fold"] for path in folder.iterdir() if (match := pattern.match(path.name))}
    return sorted(found) or ["none"]


def read_something(files: Sequence[Path], root: Path, labels: Path | None, source: Path) -> Corpus:
    """Something-Something `[{"id", "template"}]` JSON and Jester `id;label` CSV, a file a split, and a labels file."""
    index = VideoIndex(root)
    rows: list[tuple[str, str | None, str | None, str]] = []
    form = "Something-Something JSON" if any(path.suffix == ".json" for path in files) else "Jester CSV"
    for path in files:
        entries = _json_entries(path) if path.suffix == ".json" else _jester_entries(path)
        if not entries:
            raise InputError(f"{path}: empty list")
        rows += [(name, label, split_from_file(path), where) for name, label, where in entries]
    classes = _class_names(labels) if labels else None
    mapped = LabelMap((label for _, label, _, _ in rows), classes, str(labels or source))
    items = tuple(
        Item(index.find(name) or f"{name}.webm", mapped(label, where), None, split)
        for name, label, split, where in rows
    )
    return Corpus(items, mapped.classes, form, str(root), str(source))


def _json_entries(path: Path) -> list[tuple[str, str | None, str]]:
    data = read_json(path)
    if not isinstance(data, list):
        raise InputError(f'{path}: expected a list of {{"id", "template"}}')
    entries = []
    for number, entry in enumerate(data):
        if not isinstance(entry, dict) or "id" not in entry:
            raise InputError(f'{path} entry {number}: expected {{"id", "template"}}')
        label = entry.get("template")  # "Holding [something]" is the class "Holding something" of labels.json
        label = label.replace("[", "").replace("]", "") if label else entry.get("label")
        entries.append((str(entry["id"]), label, f"{path} entry {number}"))
    return entries


def _jester_entries(path: Path) -> list[tuple[str, str | None, str]]:
    entries = []
    for number, line in read_lines(path):
        name, _, label = line.strip().partition(";")
        entries.append((name.strip(), label.strip() or None, f"{path} line {number}"))
    return entries


def _class_names(path: Path) -> list[str]:
    return read_label_json(path) if path.suffix == ".json" else [line.strip() for _, line in read_lines(path)]
