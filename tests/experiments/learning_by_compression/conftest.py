"""A corpus of labelled clips and unlabelled pictures, and options for runs of a few steps of a tiny stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

VARIANTS = {"V1": (2, 4, 8, 16), "V2": (1, 2, 4, 8), "V3": (0, 2, 3, 4)}
TINY: dict[str, Any] = {
    "channels": [2, 4, 8, 16],
    "widths": [8, 8, 16, 16],
    "encoder_blocks": [0, 1, 1, 1],
    "decoder_blocks": [0, 1, 1, 1],
    "prior_widths": [8, 8, 8],
    "prior_blocks": 1,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def textures() -> torch.Tensor:
    """(4, 3, 64, 64) smooth random pictures in [0, 1]."""
    coarse = torch.rand(4, 3, 9, 9)
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """`plain/` (4 pictures), `val/` (2 pictures), `labels.csv` (two classes, 2 training and 1 validation clip each)."""
    folder = tmp_path_factory.mktemp("learning")
    for name, count in {"plain": 4, "val": 2}.items():
        (folder / name).mkdir()
        for i in range(count):
            picture = np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)
            Image.fromarray(picture).resize((80, 80), Image.Resampling.BICUBIC).save(folder / name / f"{i}.png")
    rows = ["path,label,group,split"]
    for label, motion in {"right": (3.0, 0.0), "down": (0.0, 3.0)}.items():
        for i, split in enumerate(["train", "train", "val"]):
            make_clip(folder / label / f"{i}.mp4", frames=4, size=(80, 96), motion=motion, seed=i)
            rows.append(f"{label}/{i}.mp4,{label},g{i},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def command(corpus: Path) -> Callable[..., list[str]]:
    """Arguments of tools/learn_by_compression.py for a run of a few steps."""

    def arguments(out: Path, *more: str) -> list[str]:
        stage = [f"stage.{key}={str(value).replace(' ', '')}" for key, value in TINY.items()]
        return [
            f"data.train=[{corpus}/plain,{{path:{corpus}/labels.csv,labels:full}}]",
            f"data.val=[{corpus}/val,{{path:{corpus}/labels.csv,split:val}}]",
            f"out={out}",
            "device=cpu",
            *stage,
            "stage.variants.V4=null",
            "stage.variants.V5=null",
            "recogniser.steps=3",
            "recogniser.batch=4",
            "recogniser.widths=[8,8,8,8]",
            "train.size=64",
            "train.batch=4",
            "loop.first=4",
            "loop.raising=3",
            "loop.holding=2",
            "eval.qps=[32]",
            "train.save_seconds=0",
            *more,
        ]

    return arguments


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
