"""A tiny model, pictures with boundaries, and clips of two motions: enough for every row of the studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.codec.small_models import save_small_model


def checked(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles of random colour, uint8 (H, W, 3), and their outlines, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(4):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
        picture[top : top + 30, left : left + 30] = rng.integers(0, 256, 3)
    steps = np.zeros((height, width), bool)
    steps[1:] |= (picture[1:] != picture[:-1]).any(-1)
    steps[:, 1:] |= (picture[:, 1:] != picture[:, :-1]).any(-1)
    return picture, np.where(steps, 255, 0).astype(np.uint8)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("transfer") / "model", kinds=())


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """`train/`, `val/` (named as BSDS), `segmentation/`, `clips/labels.csv`."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("train", "val", "segmentation"):
        (folder / name).mkdir()
    for split, count in (("train", 4), ("val", 2)):
        for seed in range(count):
            picture, outline = checked(70, 84 + seed, seed + 100 * (split == "val"))
            Image.fromarray(picture).save(folder / split / f"bsds500_{split}_{seed}.png")
            Image.fromarray(outline).save(folder / "segmentation" / f"{split}_{seed}_boundaries.png")
    rows = ["path,label,group,split"]
    for number, split in enumerate(["train"] * 6 + ["test"] * 2):
        label, motion = (("left", (-2.0, 0.0)), ("right", (2.0, 0.0)))[number % 2]
        make_clip(folder / "clips" / f"{number}.mp4", frames=8, size=(64, 64), motion=motion, seed=number)
        rows.append(f"{number}.mp4,{label},g{number},{split}")
    (folder / "clips" / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder
