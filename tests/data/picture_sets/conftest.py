"""Tiny pictures where a data set would have photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def save_picture(path: Path, width: int = 12, height: int = 8, value: int = 0) -> Path:
    """A picture of one colour, which tells it from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, value, value)).save(path)
    return path


@pytest.fixture
def picture() -> Callable[..., Path]:
    """`picture(path, width=12, height=8, value=0)` -> path."""
    return save_picture


@pytest.fixture
def plane() -> Callable[[Path, np.ndarray], Path]:
    """`plane(path, array)` saves uint8 or uint16 (H, W) as a PNG of one channel -> path."""

    def save(path: Path, values: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
        return path

    return save
