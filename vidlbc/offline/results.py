"""Results that may be copied at any instant: numbered generations, two of them at most.

    results-0007.0  results-0007.1      pieces of one uncompressed tar: what changes from one generation to the next
    results-x3f09c2d41b7e.0             pieces of a tar that does not, such as a finished model: shared by generations
    results-0007.json                   written last: sizes and SHA-256 of both; without it they are nothing

While generation 8 is written, 7 stays whole; 7 goes when 9 begins. So a copy that takes less time than the pause
between two generations always holds a whole one.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, one_line
from vidlbc.run.atomic_files import dump_json, write_atomic

FORMAT = 1
_INDEX_ROOM = 1 << 16
_INDEX = re.compile(r"results-(\d{4,})\.json")
_OURS = re.compile(r"results-(\d{4,}|x[0-9a-f]{12})\.(\d+|json)")

Piece = dict[str, Any]  # name, bytes, sha256


@dataclass(frozen=True)
class Limits:
    """Of the results folder: bytes of a file, files, bytes together."""

    part: int
    parts: int
    total: int

    def __post_init__(self) -> None:
        """Raises InputError."""
        if self.parts < 4 or min(self.total // 2 - _INDEX_ROOM, self.part) < 1 << 16:
            raise InputError(
                f"parts={self.parts}, part_mb={self.part / 2**20:g}, total_mb={self.total / 2**20:g}: expected at "
                "least 4 parts, and room for two generations"
            )

    def hold(self, own: int, shared: Sequence[Piece], there: dict[str, int]) -> bool:
        """Is there room for a generation of `own` bytes and `shared` pieces, now beside the files that are `there`, and
        beside the next one like it?"""
        files, size = 1 + -(-own // self.part), own + _INDEX_ROOM
        new = [piece for piece in shared if piece["name"] not in there]
        now = len(there) + files + len(new), sum(there.values()) + size + sum(piece["bytes"] for piece in new)
        later = 2 * files + len(shared), 2 * size + sum(piece["bytes"] for piece in shared)
        return max(now[0], later[0]) <= self.parts and max(now[1], later[1]) <= self.total


@dataclass(frozen=True)
class Entry:
    """A file of a generation."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Group:
    """Files that come home all or none. `final`: no later generation has other bytes of them."""

    entries: Sequence[Entry]
    final: bool = False


@dataclass(frozen=True)
class Generation:
    """What `newest` found: the run that it is of, its number, its files, those that did not fit; `passed_over`: what is
    wrong with a newer one, or nothing.
    """

    run: str
    number: int
    files: dict[str, bytes]
    left_out: tuple[str, ...]
    passed_over: str = ""


def write_generation(folder: Path, run: str, number: int, groups: Sequence[Group], limits: Limits) -> int:
    """Write what fits of `groups`, the most important first; the bytes of it."""
    folder.mkdir(parents=True, exist_ok=True)
    there = _remove_others(folder, number)
    own: list[Entry] = []
    shared: list[tuple[bytes, list[Piece]]] = []
    left_out: list[str] = []
    size = tarfile.RECORDSIZE
    for group in groups:
        if group.final:
            data = _tar(group.entries)
            pieces = _pieces(f"results-x{hashlib.sha256(data).hexdigest()[:12]}", data, limits.part)
            if limits.hold(size, [piece for _, known in shared for piece in known] + pieces, there):
                shared.append((data, pieces))
                continue
        else:
            larger = size + sum(3 * tarfile.BLOCKSIZE + -(-len(e.content) // 512) * 512 for e in group.entries)
            if limits.hold(larger, [piece for _, known in shared for piece in known], there):
                own += group.entries
                size = larger
                continue
        left_out += [entry.name for entry in group.entries]
    data = _tar(own)
    changing = _pieces(f"results-{number:04d}", data, limits.part)
    for content, pieces in [*shared, (data, changing)]:
        for place, piece in enumerate(pieces):
            if piece["name"] not in there:
                (folder / piece["name"]).write_bytes(content[place * limits.part : (place + 1) * limits.part])
    described = {
        "format": FORMAT,
        "run": run,
        "generation": number,
        "left_out": left_out,
        "tars": [changing, *[pieces for _, pieces in shared]],
    }
    write_atomic(folder / f"results-{number:04d}.json", dump_json(described, indent=1))
    return len(data) + sum(len(content) for content, _ in shared)


def _tar(entries: Sequence[Entry]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.size = len(entry.content)
            tar.addfile(info, io.BytesIO(entry.content))
    return sink.getvalue()


def _pieces(stem: str, data: bytes, part: int) -> list[Piece]:
    parts = [data[start : start + part] for start in range(0, len(data), part)]
    return [
        {"name": f"{stem}.{number}", "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
        for number, piece in enumerate(parts)
    ]


def _remove_others(folder: Path, number: int) -> dict[str, int]:
    """All but the newest generation before `number`; an index goes before its pieces. What stays, {name: bytes}."""
    ours = [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
    numbers = {int(match[1]): path for path in ours if (match := _INDEX.fullmatch(path.name))}
    stay: set[str] = set()
    if before := [n for n in numbers if n < number]:
        last = numbers[max(before)]
        with suppress(ValueError, KeyError, TypeError):  # one that says nothing keeps nothing
            stay = {last.name, *[piece["name"] for tar in json.loads(last.read_text())["tars"] for piece in tar]}
    for path in sorted(ours, key=lambda path: path.suffix != ".json"):
        if path.name not in stay:
            path.unlink()
    return {path.name: path.stat().st_size for path in ours if path.name in stay}


def newest(folder: Path) -> Generation:
    """The newest whole generation in `folder` and below; of several runs, that of the run that began last.

    Raises InputError where there is none, with what is wrong with the newest one that is not whole.
    """
    if not folder.is_dir():
        raise InputError(f"results={folder}: no such folder")
    indices = [path for path in folder.rglob("results-*.json") if _INDEX.fullmatch(path.name)]
    described: list[tuple[str, int, Path, dict[str, Any]]] = []
    wrong = ""
    for path in sorted(indices):
        try:
            index = json.loads(path.read_text())
            if index["format"] != FORMAT:
                raise InputError(f"results of format {index['format']}, this version reads {FORMAT}")
            if missing := {"run", "generation", "tars", "left_out"} - set(index):
                raise InputError(f"an index of results without {sorted(missing)[0]}")
            described.append((str(index["run"]), int(index["generation"]), path, index))
        except (ValueError, KeyError, TypeError, OSError) as error:
            told = str(error) if isinstance(error, InputError) else f"no index of results ({one_line(error)})"
            wrong = f"{path}: {told}"
    for run, number, path, index in sorted(described, key=lambda entry: entry[:2], reverse=True):
        try:
            return Generation(run, number, _read(path.parent, index), tuple(index["left_out"]), wrong)
        except InputError as error:
            wrong = wrong or str(error)
    raise InputError(wrong or f"results={folder}: holds no results-NNNN.json")


def _read(folder: Path, index: dict[str, Any]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for pieces in index["tars"]:
        data = b"".join(_checked(folder, piece, index["generation"]) for piece in pieces)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                content = tar.extractfile(info)
                if content is not None:
                    files[info.name] = content.read()
    return files


def _checked(folder: Path, piece: Piece, number: int) -> bytes:
    path = folder / Path(piece["name"]).name
    if not path.is_file():
        raise InputError(f"{path}: missing; it is a piece of generation {number}")
    content = path.read_bytes()
    if len(content) != piece["bytes"] or hashlib.sha256(content).hexdigest() != piece["sha256"]:
        raise InputError(f"{path}: damaged, its size or SHA-256 is not that of its index")
    return content
