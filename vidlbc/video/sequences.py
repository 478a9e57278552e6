"""Videos that are not one video file: folders of numbered pictures (`img_00001.jpg`), animated WebP.

This module is imported by every decoder process: it stays free of anything but the standard library.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .m2v .ts .m2ts .mts .3gp .3g2 .wmv .asf .flv .f4v .ogv .ogg .vob .mxf"
    " .gif .y4m .264 .h264 .avc .265 .h265 .hevc .ivf .obu .divx .rm .rmvb .dv".split()
)
PICTURE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff .ppm .pgm".split())
_NUMBERED = re.compile(r"(.*?)(\d+)(\.[a-z]+)", re.IGNORECASE)
_LEAST = 3  # two pictures side by side are more often two pictures


def numbered_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a folder in the order of their numbers: at least three, of one name but for numbers that follow
    each other. [] where it is no such folder, or holds videos or folders too; other files may lie beside them."""
    found: dict[int, Path] = {}
    names = set()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    for entry in entries:
        match, suffix = _NUMBERED.fullmatch(entry.name), Path(entry.name).suffix.lower()
        if entry.name.startswith("."):
            continue
        if entry.is_dir() or suffix in VIDEO_SUFFIXES:
            return []
        if suffix not in PICTURE_SUFFIXES:
            continue
        if match is None or int(match[2]) in found:
            return []
        found[int(match[2])] = Path(entry.path)
        names.add((match[1], match[3].lower()))
    numbers = sorted(found)
    in_a_row = len(numbers) >= _LEAST and numbers[-1] - numbers[0] == len(numbers) - 1
    return [found[number] for number in numbers] if in_a_row and len(names) == 1 else []


def is_animated_webp(path: str | os.PathLike[str]) -> bool:
    """By its header: an extended one whose animation bit is set."""
    try:
        with open(path, "rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Whether back end `pictures` reads it, which no library for videos does."""
    return bool(numbered_pictures(path)) if os.path.isdir(path) else is_animated_webp(path)
