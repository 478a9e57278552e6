"""Text lists: `path label` lines (V-JEPA, VideoMAE, MMAction2, PyTorchVideo) and `path,label,group,split` CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vidlbc.errors import InputError
from vidlbc.shards.corpus import VIDEO_SUFFIXES, Corpus, Item, is_video, split_name

# Everything up to the last video suffix is the path, so paths may hold spaces and labels may too.
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES, key=len, reverse=True))
_LINE = re.compile(rf"^(?P<path>.*(?:{_SUFFIX}))(?:\s*(?:::|,|\s)\s*(?P<label>.*))?$", re.IGNORECASE)

_CLASS_FILES = ("classes.txt", "class_names.txt", "labels.txt", "label_map.txt", "labels.json", "classes.json")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of every line that is not blank. Raises InputError when the file is not UTF-8 text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text list (byte {error.start} is not UTF-8)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    return [(number, line) for number, line in lines if line.strip()]


class LabelMap:
    """Turns labels as written into indices: by a class list where there is one, else by the numbers or sorted names.

    Numbers stay the numbers they are (class names '0', '1', ...), so that a list that lacks a class, or starts at 1,
    never shifts the others.
    """

    def __init__(self, written: Iterable[str | None], classes: Sequence[str] | None, source: str) -> None:
        seen = {text for text in written if text is not None}
        self.source = source
        if classes:
            self.classes = tuple(classes)
        elif seen and all(text.isdecimal() for text in seen):
            top = max(int(text) for text in seen)
            if top > 1_000_000:
                raise InputError(f"{source}: label {top} is too large for a class number (at most 1000000)")
            self.classes = tuple(str(number) for number in range(top + 1))
        else:
            self.classes = tuple(sorted(seen))
        self._index = {name: index for index, name in enumerate(self.classes)}

    def __call__(self, text: str | None, where: str) -> int | None:
        """The index of a label as written at `where`. Raises InputError for a label outside the class list."""
        if text is None:
            return None
        if text in self._index:
            return self._index[text]
        if text.isdecimal() and int(text) < len(self.classes):
            return int(text)
        raise InputError(f"{where}: unknown label '{text}' (not among the {len(self.classes)} classes known)")


def find_classes(folder: Path) -> list[str] | None:
    """Class names from a class list that lies in `folder` (one name a line, `0 name` lines, or JSON), if any."""
    for name in _CLASS_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix == ".json":
            from vidlbc.shards.benchmarks import read_label_json

            return read_label_json(path)
        lines = [line.strip() for _, line in read_lines(path)]
        numbered = [re.match(r"^(\d+)[\s,]+(.+)$", line) for line in lines]
        if lines and all(numbered):
            pairs = sorted((int(match[1]), match[2]) for match in numbered if match)
            return [name for _, name in pairs]
        if lines and not any(is_video(line.split()[0]) or _LINE.match(line) for line in lines):
            return lines
    return None


def parse_line(line: str) -> tuple[str, str | None] | None:
    """(path, label as written or None) of one `path label` line; None when the line has no such form."""
    match = _LINE.match(line.strip())
    if match:
        label = (match["label"] or "").strip()
        return match["path"], (label if label not in ("", "-1") else None)
    # A path without a known suffix counts only with a class number behind it.
    for separator in ("::", ",", None):
        parts = line.strip().rsplit(separator, 1)
        if len(parts) == 2 and re.fullmatch(r"-1|\d+", parts[1].strip()):
            return parts[0].strip(), (None if parts[1].strip() == "-1" else parts[1].strip())
    return None


def is_path_list(path: Path) -> bool:
    """Do the file's first lines read as `path label`?"""
    lines = read_lines(path)[:20]
    return bool(lines) and all(parse_line(line) for _, line in lines)


def read_path_lists(lists: Sequence[tuple[Path, str | None]], root: Path, source: Path) -> Corpus:
    """`path label` lists, one file a split. Raises InputError for an empty list or a line of another form."""
    rows: list[tuple[str, str | None, str | None, str]] = []
    for path, split in lists:
        lines = read_lines(path)
        if not lines:
            raise InputError(f"{path}: empty list")
        for number, line in lines:
            parsed = parse_line(line)
            if parsed is None:
                raise InputError(f"{path} line {number}: expected 'path label', found '{line.strip()[:80]}'")
            rows.append((*parsed, split, f"{path} line {number}"))
    labels = LabelMap((label for _, label, _, _ in rows), find_classes(lists[0][0].parent), str(source))
    items = tuple(Item(path, labels(label, where), None, split) for path, label, split, where in rows)
    return Corpus(items, labels.classes if _any_label(items) else (), "path label list", str(root), str(source))


def csv_header(path: Path) -> list[str]:
    """The first row's cells, lower case: what tells the CSV families apart."""
    lines = read_lines(path)[:1]
    return [cell.strip().lower() for cell in next(csv.reader([lines[0][1]]))] if lines else []


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by lower-case column name) of a CSV with a header."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        for row in reader:
            yield reader.line_num, {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)}


def read_table(path: Path, root: Path) -> Corpus:
    """`path[,label][,group][,split][,start][,stop]` CSV, columns in any order (`start`, `stop` in frames).

    Raises InputError, with the line, for an empty table, a missing path, an unknown label or split, a bad number.
    """
    rows = list(csv_rows(path))
    if not rows:
        raise InputError(f"{path}: empty list")
    labels = LabelMap((row.get("label") or None for _, row in rows), find_classes(path.parent), str(path))
    default = split_from_file(path)
    items = []
    for number, row in rows:
        where = f"{path} line {number}"
        if not row.get("path"):
            raise InputError(f"{where}: no path")
        split = row.get("split") or None
        if split is not None and split_name(split) is None:
            raise InputError(f"{where}: unknown split '{split}' (expected train, val or test)")
        label = row.get("label") or None
        items.append(
            Item(
                row["path"],
                labels(None if label == "-1" else label, where),
                row.get("group") or None,
                split_name(split) if split else default,
                _frame(row.get("start"), where),
                _frame(row.get("stop"), where),
            )
        )
    return Corpus(tuple(items), labels.classes, "path,label,group,split CSV", str(root), str(path))


def split_from_file(path: Path) -> str | None:
    """The split that a list's name tells: `train.csv`, `kinetics_val_list.txt`, `jester-v1-validation.csv`."""
    found = {split_name(re.sub(r"(list)?\d*$", "", word)) for word in re.split(r"[^a-zA-Z0-9]+", path.stem)} - {None}
    return found.pop() if len(found) == 1 else None


def _frame(text: str | None, where: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"{where}: '{text}' is not a frame number")
    return int(text)


def _any_label(items: Iterable[Item]) -> bool:
    return any(item.label is not None for item in items)
