"""Clips whose every frame can be told from every other, and the folder of the back ends that misbehave."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidlbc.video.encoder_process import at_ordinary_priority

HERE = str(Path(__file__).resolve().parent)

BITS = 8  # a frame's index is drawn as this many black or white columns


@pytest.fixture(autouse=True)
def _misbehaving_back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """`misbehaving:Class` can be imported here and, since they inherit the import path, in decoder processes."""
    monkeypatch.setattr(sys, "path", [HERE, *sys.path])


def draw_index(index: int, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3): the binary digits of `index` as vertical bars, most significant first, upper half inverted."""
    digits = np.array([index >> (BITS - 1 - bit) & 1 for bit in range(BITS)])
    bars = digits[np.arange(width) * BITS // width]
    picture = np.where(np.arange(height)[:, None] < height // 2, 1 - bars, bars)
    return np.repeat((40 + 170 * picture)[..., None], 3, axis=2).astype(np.uint8)


def read_index(frame: np.ndarray) -> int:
    """The index drawn by `draw_index`, from a frame of any size; fails on a frame that is none of them."""
    height, width, _ = frame.shape
    centres = (2 * np.arange(BITS) + 1) * width // (2 * BITS)
    rows = {}
    for name, row in (("upper", height // 4), ("lower", height * 3 // 4)):
        rows[name] = frame[row, centres].mean(axis=1) > 125
    assert (rows["upper"] != rows["lower"]).all(), "not a frame of the clip"
    return int("".join("1" if bit else "0" for bit in rows["lower"]), 2)


@pytest.fixture
def numbered_clip() -> Callable[..., Path]:
    """`numbered_clip(path, frames=20, size=(48, 64), ...)` -> path of a video whose frame i says i (`read_index`)."""

    def write(
        path: Path,
        frames: int = 20,
        size: tuple[int, int] = (48, 64),
        fps: int = 24,
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        rotation: int = 0,
        options: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        import av

        with av.open(str(path), "w", options=container_options or {}) as container:
            container.metadata.update(metadata or {})
            stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
            stream.height, stream.width = size
            stream.pix_fmt = pixel_format
            if rotation:
                stream.set_display_rotation(rotation)
            for index in range(frames):
                picture = av.VideoFrame.from_ndarray(draw_index(index, *size), "rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        at_ordinary_priority()
        return path

    return write


@pytest.fixture
def frame_index() -> Callable[[np.ndarray], int]:
    """The index that a frame of a numbered clip shows."""
    return read_index


@pytest.fixture
def numbered_frame() -> Callable[[int, int, int], np.ndarray]:
    """`numbered_frame(index, height, width)` -> uint8 (H, W, 3)."""
    return draw_index
