"""Headerless .yuv files: size, sampling, bit depth and frame rate come from the name.

Understood are the habits of the test sequences: `News_352x288_30fps.yuv`, `Race_832x480_2f_420p8.yuv`,
`Race_832x480_30Hz_8bit_P420.yuv`, `Beauty_1920x1080_120fps_420_10bit_YUV.yuv`, `Cactus_1920x1080_50.yuv`.
Missing parts default to 4:2:0, 8 bits, 30 frames/s; the size has no default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vidlbc.video.contract import Unreadable

_SIZE = re.compile(r"(?<!\d)(\d{2,5})[xX](\d{2,5})(?!\d)")
_FPS = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?) ?(?:fps|hz)(?![a-z])", re.IGNORECASE)
_BARE_FPS = re.compile(r"^_(?!4(?:00|20|22|44)(?!\d))(\d{2,3})(?=_|$)")  # HEVC common test conditions: NAME_WxH_50
_SAMPLING = re.compile(r"(?<!\d)(400|420|422|444)(?!\d)")
_DEPTH = re.compile(r"(?<!\d)(8|10|12|16) ?-?bits?|(?:400|420|422|444)p(8|10|12|16)(?!\d)", re.IGNORECASE)


@dataclass(frozen=True)
class RawFormat:
    """Layout of a headerless file: pixels, FFmpeg's name of the pixel format, frames/s, bytes of one frame."""

    width: int
    height: int
    pixel_format: str
    fps: Fraction
    frame_bytes: int


def parse_name(path: str) -> RawFormat:
    """Raises Unreadable (settled) when the name does not give the size."""
    stem = Path(path).stem
    size = _SIZE.search(stem)
    if size is None:
        raise Unreadable("a raw .yuv file needs its size in its name, as in name_352x288_30fps_420p8.yuv", settled=True)
    width, height = int(size[1]), int(size[2])
    rest = stem[: size.start()] + "_" + stem[size.end() :]
    named = _FPS.search(rest) or _BARE_FPS.search(stem[size.end() :])
    sampling = _SAMPLING.search(rest)
    depth = _DEPTH.search(rest)
    chroma = sampling[1] if sampling else "420"
    bits = int(depth[1] or depth[2]) if depth else 8
    pixel_format = ("gray" if chroma == "400" else f"yuv{chroma}p") + ("" if bits == 8 else f"{bits}le")
    columns = (width + 1) // 2 if chroma in ("420", "422") else width
    rows = (height + 1) // 2 if chroma == "420" else height
    samples = width * height + (0 if chroma == "400" else 2 * columns * rows)
    fps = Fraction(named[1]) if named and Fraction(named[1]) > 0 else Fraction(30)
    return RawFormat(width, height, pixel_format, fps, samples * (1 if bits == 8 else 2))
