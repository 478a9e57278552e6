"""A scalable stage small enough for a test, and a model folder of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.experiments.scalable.image_stage import Scalable
from vidlbc.run.atomic_files import dump_json

SMALL: dict[str, Any] = {
    "N": 8,
    "M_base": 8,
    "M_enhancement": 16,
    "N_preview": 4,
    "prior_widths": [32, 32, 32],
    "prior_blocks": 1,
}


@pytest.fixture
def small_stage() -> Callable[..., Scalable]:
    """`small_stage(seed=0, **options)`: every parameter random, so that no head of the prior is idle."""

    def build(seed: int = 0, **options: Any) -> Scalable:
        torch.manual_seed(seed)
        stage = build_image_stage("scalable", **{**SMALL, **options})
        assert isinstance(stage, Scalable)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in stage.named_parameters():
                if name.startswith("prior."):
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        return stage

    return build


@pytest.fixture
def small_model(tmp_path: Path, small_stage: Callable[..., Scalable]) -> Path:
    """A model folder with both layers."""
    folder = tmp_path / "model"
    models.save_image_stage(small_stage(), folder / "image_stage", {"family": "scalable", "options": SMALL})
    (folder / "config.json").write_bytes(dump_json({"format": models.FORMAT, "temporal": "none"}))
    return folder
