"""A small corpus of pictures and clips, and settings for runs of a few steps of a tiny stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.image_job import ImageJobSettings
from vidlbc.train.schedule import Budget

TINY: dict[str, Any] = {
    "channels": [1, 4, 6, 8],
    "widths": [8, 16, 16, 16],
    "encoder_blocks": [1, 1, 1, 1],
    "decoder_blocks": [1, 1, 1, 1],
    "prior_widths": [32, 32, 32],
    "prior_blocks": 1,
}


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """A few waves in colour, uint8 (H, W, 3): smooth enough to be learned in seconds."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    waves = sum(
        25 * np.sin(rng.uniform(-0.4, 0.4) * rows + rng.uniform(-0.4, 0.4) * columns + rng.uniform(0, 6, 3))
        for _ in range(4)
    )
    return (128 + waves).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """`train/` (6 pictures, a clip, a damaged picture, one too small), `val/` (2 pictures of odd sizes)."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("train/nested", "val"):
        (folder / name).mkdir(parents=True)
    for seed in range(6):
        Image.fromarray(texture(96, 112, seed)).save(folder / "train" / "nested" / f"p{seed}.png")
    for seed in range(2):
        Image.fromarray(texture(70, 83 + seed, 100 + seed)).save(folder / "val" / f"v{seed}.png")
    make_clip(folder / "train" / "clip.mp4", frames=9, size=(80, 96))
    (folder / "train" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    Image.fromarray(texture(20, 300, 7)).save(folder / "train" / "small.png")
    return folder


@pytest.fixture
def settings_for(corpus: Path, tmp_path: Path) -> Callable[..., ImageJobSettings]:
    """`settings_for(out="model", steps=4, **changes)`."""

    def settings(out: str = "model", steps: int = 4, **changes: Any) -> ImageJobSettings:
        given: dict[str, Any] = {
            "train": (PictureSource(str(corpus / "train")),),
            "out": tmp_path / out,
            "family": "lbc",
            "options": TINY,
            "budget": Budget(steps=steps),
            "crops": CropSettings(size=64, batch=2),
            "device": "cpu",
            "log_every": 5,
        }
        return ImageJobSettings(**{**given, **changes})

    return settings
