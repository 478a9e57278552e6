"""Results that may be copied at any instant: numbered generations, two of them at most.

    results-0007.0  results-0007.1      pieces of one uncompressed tar
    results-0007.json                   written last: sizes and SHA-256 of the pieces; without it they are nothing

While generation 8 is written, 7 stays whole; 7 goes when 9 begins. So a copy that takes less time than the pause
between two generations always holds a whole one.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, one_line
from vidlbc.shards.layout import dump_json, write_atomic

FORMAT = 1
_INDEX_ROOM = 1 << 16
_NAME = re.compile(r"results-(\d{4,})\.(\d+|json)")


@dataclass(frozen=True)
class Limits:
    """Of the results folder: bytes of a file, files, bytes together."""

    part: int
    parts: int
    total: int

    def __post_init__(self) -> None:
        """Raises InputError."""
        if self.parts < 4 or self.generation < 1 << 16:
            raise InputError(
                f"parts={self.parts}, part_mb={self.part / 2**20:g}, total_mb={self.total / 2**20:g}: expected at "
                "least 4 parts, and room for two generations"
            )

    @property
    def generation(self) -> int:
        """Bytes of a generation's tar, so that two fit, each with its index."""
        return min(self.total // 2 - _INDEX_ROOM, (self.parts // 2 - 1) * self.part)


@dataclass(frozen=True)
class Entry:
    """A file of a generation."""

    name: str
    content: bytes


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


def write_generation(folder: Path, run: str, number: int, groups: Sequence[Sequence[Entry]], limits: Limits) -> int:
    """Write what fits of `groups`, the most important first, each whole or not at all; the bytes written."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen: list[Entry] = []
    left_out: list[str] = []
    room = limits.generation - tarfile.RECORDSIZE
    for group in groups:
        size = sum(3 * tarfile.BLOCKSIZE + -(-len(entry.content) // 512) * 512 for entry in group)
        if size <= room:
            chosen += group
            room -= size
        else:
            left_out += [entry.name for entry in group]
    data = _tar(chosen)
    _remove_others(folder, number)
    pieces = []
    for index, start in enumerate(range(0, len(data), limits.part)):
        piece = data[start : start + limits.part]
        path = folder / f"results-{number:04d}.{index}"
        path.write_bytes(piece)
        pieces.append({"name": path.name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    described = {"format": FORMAT, "run": run, "generation": number, "pieces": pieces, "left_out": left_out}
    write_atomic(folder / f"results-{number:04d}.json", dump_json(described, indent=1))
    return len(data)


def _tar(entries: Sequence[Entry]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.size = len(entry.content)
            tar.addfile(info, io.BytesIO(entry.content))
    return sink.getvalue()


def _remove_others(folder: Path, number: int) -> None:
    """All but the newest generation that is whole by its index; of each the index goes first."""
    found: dict[int, list[Path]] = {}
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append(path)
    whole = [n for n, paths in found.items() if n < number and any(path.suffix == ".json" for path in paths)]
    for n, paths in found.items():
        if n != max(whole, default=None):
            for path in sorted(paths, key=lambda path: path.suffix != ".json"):
                path.unlink(missing_ok=True)


def newest(folder: Path) -> Generation:
    """The newest whole generation in `folder` and below; of several runs, that of the run that began last.

    Raises InputError where there is none, with what is wrong with the newest one that is not whole.
    """
    if not folder.is_dir():
        raise InputError(f"results={folder}: no such folder")
    indices = [path for path in folder.rglob("results-*.json") if _NAME.fullmatch(path.name)]
    described: list[tuple[str, int, Path, dict[str, Any]]] = []
    wrong = ""
    for path in sorted(indices):
        try:
            index = json.loads(path.read_text())
            if index["format"] != FORMAT:
                raise InputError(f"results of format {index['format']}, this version reads {FORMAT}")
            if missing := {"run", "generation", "pieces", "left_out"} - set(index):
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
    data = bytearray()
    for piece in index["pieces"]:
        path = folder / Path(piece["name"]).name
        if not path.is_file():
            raise InputError(f"{path}: missing; generation {index['generation']} has {len(index['pieces'])} pieces")
        content = path.read_bytes()
        if len(content) != piece["bytes"] or hashlib.sha256(content).hexdigest() != piece["sha256"]:
            raise InputError(f"{path}: damaged, its size or SHA-256 is not that of its index")
        data += content
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]
