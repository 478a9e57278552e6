"""Model folders with a video decoder: one that is untrained, one whose every layer says something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.codec.small_models import fill, save_small_model
from vidlbc.codec import models

OPTIONS = {"width": 16, "fine": 16, "blocks": 1, "fine_blocks": 1}


def add_video_decoder(model: Path, seed: int | None) -> Path:
    """`seed`: of its weights; None leaves it untrained."""
    image = models.load_image_stage(model / "image_stage")
    torch.manual_seed(0)
    decoder = models.build_video_decoder(image.stage, **OPTIONS)
    if seed is not None:
        fill(decoder, seed)
    models.save_video_decoder(decoder, model / "video_decoder", OPTIONS, image.digest)
    return model


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_video_decoder(save_small_model(tmp_path_factory.mktemp("models") / "untrained", kinds=()), None)


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights are random, so its pictures are bad; but nothing in it is zero, as after training."""
    model = save_small_model(tmp_path_factory.mktemp("models") / "speaking", kinds=("lstm",))
    return add_video_decoder(model, 5)
