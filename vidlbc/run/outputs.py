"""Files for people, put into a folder that may hold other things: nothing is replaced that these runs did not write.

    FOLDER/.vidlbc_outputs.jsonl    a line for what is whole, and one for a folder of pictures that is begun

The same run, started again, goes on behind what is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError

RECORD = ".vidlbc_outputs.jsonl"
_PICTURE = re.compile(r"[0-9]{6,}\.png", re.ASCII)


class Outputs:
    """Paths below `folder`, each a file or a folder of numbered pictures, with `made_of`, a text that says of what and
    how: two runs that would write the same have the same.

    `overwrite`: what is there already is replaced, whoever wrote it.
    """

    def __init__(self, folder: str | Path, overwrite: bool = False) -> None:
        self.folder, self._overwrite = Path(folder), overwrite
        self._known: dict[str, dict[str, Any]] = {}
        with suppress(FileNotFoundError, NotADirectoryError):
            for line in (self.folder / RECORD).read_text(errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # half a line of a run that was killed
                    row = json.loads(line)
                    self._known[row["path"]] = row

    def check(self, wanted: Mapping[Path, str]) -> None:
        """Raise InputError, before anything is written, where one of `wanted` is somebody else's."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: is a file, expected a folder, or a path that does not exist")
        if self._overwrite:
            return
        taken = [path for path, made_of in wanted.items() if self._is_there(path) and not self._is_ours(path, made_of)]
        if taken:
            others = f" and {len(taken) - 1} others of {len(wanted)}" if len(taken) > 1 else ""
            raise InputError(
                f"{min(taken)}{others}: already there, and not written by this run; choose another output, or replace"
                " with overwrite=true"
            )

    def done(self, path: Path, made_of: str) -> int | None:
        """Frames of a path that an earlier run finished and nobody changed since; None where it is to be written."""
        row = self._known.get(self._name(path), {})
        whole = row.get("made_of") == made_of and row.get("state") is not None and row["state"] == _state(path)
        return int(row["frames"]) if whole else None

    @contextmanager
    def writing(self, path: Path, made_of: str, pictures: bool = False) -> Iterator[Written]:
        """`path` is written within; `frames` of what this gives says how many, by its end. `pictures`: it is a folder
        of them, which may be left half full; a file appears when it is whole.
        """
        if pictures:
            self._note({"path": self._name(path), "made_of": made_of})
        written = Written()
        yield written
        if path.is_dir():  # pictures of a longer video that was there
            for picture in path.iterdir():
                if _PICTURE.fullmatch(picture.name) and int(picture.stem) >= written.frames:
                    picture.unlink()
        self._note({"path": self._name(path), "made_of": made_of, "frames": written.frames, "state": _state(path)})

    def _is_ours(self, path: Path, made_of: str) -> bool:
        row = self._known.get(self._name(path), {})
        if row.get("made_of") == made_of and row.get("state") is None and path.is_dir():
            # A run was stopped among its pictures.
            return all(_PICTURE.fullmatch(entry.name) for entry in path.iterdir())
        return self.done(path, made_of) is not None

    def _is_there(self, path: Path) -> bool:
        return any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _note(self, row: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known[row["path"]] = row
        with open(self.folder / RECORD, "a") as file:
            file.write(json.dumps(row) + "\n")


class Written:
    """What `Outputs.writing` is told."""

    frames = 0


def _state(path: Path) -> list[int] | None:
    """What tells a file, or a folder of pictures, from one that was changed."""
    try:
        if path.is_dir():
            files = [entry.stat() for entry in path.iterdir()]
            newest = max((file.st_mtime_ns for file in files), default=0)
            return [len(files), sum(file.st_size for file in files), newest]
        found = path.stat()
        return [1, found.st_size, found.st_mtime_ns]
    except OSError:
        return None
