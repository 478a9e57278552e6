"""Text lists: `path label` lines (V-JEPA, VideoMAE, MMAction2, PyTorchVideo); tables of `path,label,group,split`, as
CSV, with semicolons or tabs, or as JSON lines, by these or other usual names of columns.

Every row is read as it is meant, or an error names its line: a label that is cut, shifted or swallowed looks like any
other.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.data.annotations.json_files import read_label_json
from vidlbc.data.corpus import VIDEO_SUFFIXES, Corpus, Item, is_video, split_name, split_of_folder
from vidlbc.errors import InputError
from vidlbc.run.options import option

# Everything up to the last video suffix is the path, so paths may hold spaces and labels may too.
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES, key=len, reverse=True))
_LINE = re.compile(rf"^(?P<path>.*(?:{_SUFFIX}))(?:\s*(?:::|,|;|\s)\s*(?P<label>.*))?$", re.IGNORECASE)

_DELIMITERS = ",;\t|"
# What others call the columns; the first that a table has counts.
_COLUMNS = {
    "path": ("path", "file_name", "filename", "video", "video_path", "filepath", "file_path", "file", "video_name"),
    "label": ("label", "class", "category", "class_name", "label_name", "action", "target"),
    "split": ("split", "subset", "partition"),
}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called where no usual name fits, and what parts them."""

    path: str | None = option(None, "column of the videos' paths; null: path, file_name, filename, video, ...")
    label: str | None = option(None, "column of the labels; null: label, class, category, ...")
    group: str | None = option(None, "column of who must not be on both sides of a split; null: group")
    split: str | None = option(None, "column of the splits; null: split, subset, partition")
    delimiter: str | None = option(None, "what parts the columns, one character or tab; null: the one that fits")

    def __post_init__(self) -> None:
        if self.delimiter is not None and self.delimiter not in ("tab", "\\t") and len(self.delimiter) != 1:
            raise InputError(f"columns.delimiter={self.delimiter!r}: expected one character, or tab")

    @property
    def delimiters(self) -> str:
        """Those to try."""
        given = "\t" if self.delimiter in ("tab", "\\t") else self.delimiter
        return _DELIMITERS if given is None else given

    def named(self, cells: list[str], where: str) -> list[str]:
        """The cells of a header with our names. Raises InputError where a column that was named is not there."""
        found = [cell.strip().lower() for cell in cells]
        for name in ("path", "label", "group", "split"):
            given = getattr(self, name)
            if given is not None:
                if given.strip().lower() not in found:
                    raise InputError(
                        f"{where}: no column '{given}' (columns.{name}): there are {', '.join(cells)[:200]}"
                    )
                found = [f"(other) {cell}" if cell == name else cell for cell in found]
                found[found.index(given.strip().lower())] = name
            elif other := next((other for other in _COLUMNS.get(name, ()) if other in found), None):
                found[found.index(other)] = name
        return found


USUAL = Columns()
_NUMBER = re.compile(r"\d+", re.ASCII)
_WHOLE = re.compile(r"(-?\d+)\.0+", re.ASCII)  # as pandas writes a column of numbers that has a gap
_SEVERAL = re.compile(r"\[.*\]|\d+([\s,;|]+\d+)+", re.ASCII)

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


def written_label(text: str | None, where: str) -> str | None:
    """A label as a list has it, None for an empty one or -1; `2.0` is 2. Raises InputError for several or below -1."""
    text = (text or "").strip()
    if whole := _WHOLE.fullmatch(text):
        text = whole[1]
    if text in ("", "-1"):
        return None
    if _SEVERAL.fullmatch(text):
        raise InputError(f"{where}: several labels, {text[:40]!r}: expected one for a video")
    if re.fullmatch(r"-\d+(\.\d*)?", text, re.ASCII):
        raise InputError(f"{where}: label {text}: expected a number of at least 0, -1 for none, or a name")
    return text


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
        elif seen and all(_NUMBER.fullmatch(text) for text in seen):
            top = max(int(text) for text in seen)
            if top > 1_000_000:
                raise InputError(f"{source}: label {top} is too large for a class number (at most 1000000)")
            self.classes = tuple(str(number) for number in range(top + 1))
        else:
            self.classes = tuple(sorted(seen))
        self._index = {name: index for index, name in enumerate(self.classes)}

    @classmethod
    def of_lines(
        cls, written: Iterable[tuple[str | None, str]], classes: Sequence[str] | None, source: str
    ) -> LabelMap:
        """Of a list's labels and where each stands. Raises InputError where some are numbers and some are names, and no
        class list says what is what: sorted as names, 10 would come before 2.
        """
        rows = [(text, where) for text, where in written if text is not None]
        numbers = [row for row in rows if _NUMBER.fullmatch(row[0])]
        names = [row for row in rows if not _NUMBER.fullmatch(row[0])]
        if numbers and names and not classes:
            (number, _), (name, where) = numbers[0], names[0]
            if len(numbers) < len(names):
                (number, where), (name, _) = numbers[0], names[0]
            raise InputError(
                f"{where}: numbers and names among the labels ('{number}' and '{name}'): expected one or the other, or"
                " a class list, classes.txt, beside it"
            )
        return cls((text for text, _ in rows), classes, source)

    def __call__(self, text: str | None, where: str) -> int | None:
        """The index of a label as written at `where`. Raises InputError for a label outside the class list."""
        if text is None:
            return None
        if text in self._index:
            return self._index[text]
        if _NUMBER.fullmatch(text) and int(text) < len(self.classes):
            return int(text)
        raise InputError(f"{where}: unknown label '{text}' (not among the {len(self.classes)} classes known)")


def find_classes(folder: Path) -> list[str] | None:
    """Class names from a class list that lies in `folder` (one name a line, `0 name` lines, or JSON), if any."""
    for name in _CLASS_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix == ".json":
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
    line = line.strip()
    if quoted := re.match(r"""(["'])(?P<path>.+?)\1\s*(?:(?:::|,|;|\s)\s*(?P<label>.*))?$""", line):
        return quoted["path"], quoted["label"]
    match = _LINE.match(line)
    if match:
        return match["path"], match["label"]
    # A path without a known suffix counts only with a class number behind it.
    for separator in ("::", ",", ";", None):
        parts = line.rsplit(separator, 1)
        if len(parts) == 2 and re.fullmatch(r"-1|\d+", parts[1].strip()):
            return parts[0].strip(), parts[1].strip()
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
            where = f"{path} line {number}"
            rows.append((parsed[0], written_label(parsed[1], where), split, where))
    classes = find_classes(lists[0][0].parent)
    labels = LabelMap.of_lines(((label, where) for _, label, _, where in rows), classes, str(source))
    folders = {split: _folder_of(split, root, [row[0] for row in rows if row[2] == split]) for _, split in lists}
    items = tuple(Item(folders[split] + path, labels(label, where), None, split) for path, label, split, where in rows)
    return Corpus(items, labels.classes if _any_label(items) else (), "path label list", str(root), str(source))


def _folder_of(split: str | None, root: Path, paths: list[str]) -> str:
    """Where the paths of a split's list are: the root, or, where none of them is there, a folder of its name."""
    some = paths[:: max(1, len(paths) // 50)]
    if split is None or any((root / path).is_file() for path in some):
        return ""
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and split_of_folder(path.name) == split):
        if any((folder / path).is_file() for path in some):
            return f"{folder.name}/"
    return ""


def csv_header(path: Path, columns: Columns = USUAL) -> list[str]:
    """The first row's cells, lower case, usual names for others': what tells the CSV families apart."""
    return _head(path, columns)[0]


def _head(path: Path, columns: Columns) -> tuple[list[str], str]:
    """Names of the columns, and the delimiter: the one that makes a column of paths of the first line, else a comma."""
    lines = read_lines(path)[:1]
    if not lines:
        return [], ","
    first: tuple[list[str], str] | None = None
    fault: InputError | None = None
    for delimiter in columns.delimiters:
        try:
            cells = next(csv.reader([lines[0][1]], delimiter=delimiter))
        except csv.Error:
            cells = []
        try:
            found = columns.named(cells, f"{path} line 1")
        except InputError as error:
            fault = fault or error
            continue
        if "path" in found:
            return found, delimiter
        first = first or (found, delimiter)
    if first is None:
        raise fault or InputError(f"{path} line 1: quotes do not match")
    return first


def csv_rows(path: Path, columns: Columns = USUAL) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by lower-case column name) of a CSV with a header.

    Raises InputError, with the line, for a row of more or fewer cells than the header, and for quotes without a match.
    """
    names, delimiter = _head(path, columns)
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{path} line 1: two columns '{twice[0]}'")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        begun, header = 1, True
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(f"{path} line {begun}: quotes do not match ({error})") from None
            if row is None:
                return
            where, begun = begun, reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if header:
                header = False
                continue
            if any("\n" in cell for cell in row):
                raise InputError(f"{path} line {where}: a quoted cell goes on to line {reader.line_num}")
            if len(row) != len(names):
                hint = ": is a comma not quoted?" if len(row) > len(names) and delimiter == "," else ""
                raise InputError(f"{path} line {where}: {len(row)} cells, expected {len(names)} as in line 1{hint}")
            yield where, {name: cell.strip() for name, cell in zip(names, row, strict=True)}


def json_rows(path: Path, columns: Columns = USUAL) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, values by lower-case name) of JSON lines, one object each. Raises InputError with the line."""
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number}: expected a JSON object, found '{line.strip()[:40]}'")
        names = columns.named([str(name) for name in row], f"{path} line {number}")
        wanted = ("path", "label", "group", "split", "start", "stop")
        found = {name: value for name, value in zip(names, row.values(), strict=True) if name in wanted}
        for name, value in found.items():
            if isinstance(value, bool) or (isinstance(value, dict) or (isinstance(value, list) and name != "label")):
                raise InputError(f"{path} line {number}: {name}={json.dumps(value)[:40]}: expected a text or a number")
        yield number, {name: "" if value is None else _as_text(value) for name, value in found.items()}


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return _as_text(value[0]) if len(value) == 1 else json.dumps(value)
    return str(value)


def read_table(path: Path, root: Path, columns: Columns = USUAL) -> Corpus:
    """`path[,label][,group][,split][,start][,stop]` CSV or JSON lines, in any order (`start`, `stop` in frames).

    Raises InputError, with the line, for an empty table, a missing path, an unknown label or split, a bad number.
    """
    return read_tables([(path, split_from_file(path), "")], root, path, columns)


def read_tables(
    tables: Sequence[tuple[Path, str | None, str]], root: Path, source: Path, columns: Columns = USUAL
) -> Corpus:
    """Several tables as one: of each its split where the rows name none, and the folder that its paths are in."""
    rows = []
    for path, split, folder in tables:
        found = list(json_rows(path, columns) if path.suffix.lower() == ".jsonl" else csv_rows(path, columns))
        if not found:
            raise InputError(f"{path}: empty list")
        rows += [(f"{path} line {number}", row, split, folder) for number, row in found]
    written = {where: written_label(row.get("label"), where) for where, row, _, _ in rows}
    classes = find_classes(tables[0][0].parent)
    labels = LabelMap.of_lines(((text, where) for where, text in written.items()), classes, str(source))
    items = []
    for where, row, default, folder in rows:
        if not row.get("path"):
            raise InputError(f"{where}: no path")
        split = row.get("split") or None
        if split is not None and split_name(split) is None:
            raise InputError(f"{where}: unknown split '{split}' (expected train, val or test)")
        items.append(
            Item(
                f"{folder}{row['path']}",
                labels(written[where], where),
                row.get("group") or None,
                split_name(split) if split else default,
                _frame(row.get("start"), where),
                _frame(row.get("stop"), where),
            )
        )
    form = "JSON lines" if tables[0][0].suffix.lower() == ".jsonl" else "path,label,group,split CSV"
    return Corpus(tuple(items), labels.classes, form, str(root), str(source))


def split_from_file(path: Path) -> str | None:
    """The split that a list's name tells: `train.csv`, `kinetics_val_list.txt`, `jester-v1-validation.csv`."""
    found = {split_name(re.sub(r"(list)?\d*$", "", word)) for word in re.split(r"[^a-zA-Z0-9]+", path.stem)} - {None}
    return found.pop() if len(found) == 1 else None


def _frame(text: str | None, where: str) -> int | None:
    if not text:
        return None
    if whole := _WHOLE.fullmatch(text):
        text = whole[1]
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{where}: '{text}' is not a frame number")
    return int(text)


def _any_label(items: Iterable[Item]) -> bool:
    return any(item.label is not None for item in items)
