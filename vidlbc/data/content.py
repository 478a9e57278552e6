"""What a source file's bytes are: its sha256 and size, and a real path for a video that lies inside a tar."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vidlbc.data.corpus import Corpus, as_stored, locate
from vidlbc.errors import VideoError
from vidlbc.video.sequences import numbered_pictures


@dataclass(frozen=True)
class Content:
    """sha256 (hex) and size in bytes of one source; `problem` instead, in words, where it cannot be read."""

    sha256: str = ""
    size: int = 0
    problem: str = ""


@contextmanager
def open_source_bytes(root: str | Path, path: str) -> Iterator[BinaryIO]:
    """The bytes of a corpus path, also inside a tar. Raises VideoError in words a verdict can hold."""
    file, member = locate(root, path)
    try:
        if member is None:
            with open(file, "rb") as plain:
                yield plain
            return
        with tarfile.open(file) as tar:
            try:
                inner = tar.extractfile(member)
            except KeyError:
                inner = tar.extractfile(as_stored(member))
            if inner is None:
                raise VideoError(f"{member} in the tar is not a file")
            yield inner  # type: ignore[misc]  # typeshed: IO[bytes], and it is one
    except FileNotFoundError:
        raise VideoError("no such file") from None
    except IsADirectoryError:
        raise VideoError("a folder, not a video file") from None
    except PermissionError:
        raise VideoError("permission denied") from None
    except KeyError:
        raise VideoError(f"no member {member} in the tar") from None
    except tarfile.TarError as error:
        raise VideoError(f"damaged tar ({error})") from None


def content_of(root: str | Path, path: str) -> Content:
    """Hash one source, in constant memory. Never raises for a bad file: the problem is part of the answer."""
    digest = hashlib.sha256()
    size = 0
    pictures = numbered_pictures(locate(root, path)[0])
    try:
        for picture in pictures:
            data = picture.read_bytes()
            digest.update(f"{picture.name} {len(data)} ".encode("utf-8", "surrogateescape") + data)
            size += len(data)
        if pictures:
            return Content(digest.hexdigest(), size)
        with open_source_bytes(root, path) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except VideoError as error:
        return Content(problem=str(error))
    except OSError as error:
        return Content(problem=error.strerror or str(error))
    return Content(digest.hexdigest(), size)


def contents_of(
    corpus: Corpus, known: Mapping[str, Content] | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Content]:
    """The content of every source of a corpus, by path; `known` ones are not read, `progress` is called for others."""
    found = dict(known or {})
    for item in corpus.items:
        if item.path not in found:
            found[item.path] = content_of(corpus.root, item.path)
            if progress:
                progress(item.path)
    return found


@contextmanager
def local_file(root: str | Path, path: str, scratch: Path) -> Iterator[Path]:
    """A path that a decoder can open: the file itself, or a tar's member copied to `scratch` while in use."""
    file, member = locate(root, path)
    if member is None:
        yield file
        return
    copy = scratch.with_suffix(scratch.suffix + Path(member).suffix)
    try:
        with open_source_bytes(root, path) as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield copy
    finally:
        copy.unlink(missing_ok=True)
