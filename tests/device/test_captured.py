"""Training steps as CUDA graphs, on a pretended device: what they compute, and that nothing in them asks the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.codec.small_models import noisy_frames
from tests.pretended_device import pretended_cuda
from tests.pretended_graph import Graph
from tests.pretended_tensor import PretendedTensor
from tests.train.small_runs import image_run, settings, temporal_run
from vidlbc.train.captured import WARM_UP
from vidlbc.train.data.image_data import CropSettings, PooledCrops
from vidlbc.train.data.video_data import ClipSampler, ClipSettings
from vidlbc.train.loop import fit
from vidlbc.train.objectives.video import SymbolRate
from vidlbc.video import write_mp4

CUDA = torch.device("cuda")
STEPS = 12


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for number in range(3):
        write_mp4(folder / f"{number}.mp4", noisy_frames(8, 80, 96, seed=number), fps=10)
        Image.fromarray(noisy_frames(1, 90, 70, seed=10 + number)[0]).save(folder / f"{number}.png")
    return folder


def crops(footage: Path, resident: str) -> PooledCrops:
    how = CropSettings(size=64, batch=2, pyramid=True, colour=0.5)
    return PooledCrops(sorted(footage.glob("*.*")), how, 64, 5, 0, CUDA, resident=resident)


def clips(footage: Path, resident: str) -> ClipSampler:
    how = ClipSettings(frames=3, size=32, batch=4, large_size=64, picture_share=0.5)
    pictures = [np.array(Image.open(path)) for path in sorted(footage.glob("*.png"))]
    return ClipSampler(sorted(footage.glob("*.mp4")), how, 64, 5, pictures=pictures, device=CUDA, resident=resident)


def trained(which: str, footage: Path, folder: Path, step: str, resident: str) -> tuple[list[Any], dict[str, Tensor]]:
    """Log lines and weights of a run on the pretended device."""
    module, loss, _ = image_run(folder) if which == "image" else temporal_run(folder, which)
    batches: Any = crops(footage, resident) if which == "image" else clips(footage, resident)
    with pretended_cuda():
        if isinstance(loss, SymbolRate):
            loss = SymbolRate(loss.image.to(CUDA), loss.bf16)
        module = module.to(CUDA)
        fit(module, loss, batches, settings(STEPS, step=step, log_every=3), folder / step)
        assert batches.resident == (resident == "true")
        assert all(isinstance(p, PretendedTensor) for p in module.parameters())
        weights = {name: p.cpu() for name, p in module.state_dict().items()}
    lines = [json.loads(line) for line in (folder / step / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines], weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "resident"), [("image", "true"), ("image", "false"), ("transformer", "true"), ("lstm", "false")]
)
def test_graphs_train_what_single_steps_train(which: str, resident: str, footage: Path, tmp_path: Path) -> None:
    lines, weights = trained(which, footage, tmp_path, "eager", resident)
    before = Graph.replays
    again, same = trained(which, footage, tmp_path, "graph", resident)
    # Of clips there are small ones, and large ones of a video (twice here) or of a picture (four times).
    counts = [STEPS] if which == "image" else [6, 2, 4]
    assert Graph.replays - before == sum(max(0, count - WARM_UP) for count in counts)
    assert again == lines
    for name, tensor in weights.items():
        assert torch.equal(same[name], tensor), name


class Reader(nn.Module):
    """A loss that reads a value on the host, which no graph can hold."""

    capturable = True

    def __call__(self, module: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:  # type: ignore[override]
        loss = (batch[0].float() * next(module.parameters()).sum()).square().mean()
        return loss, {"value": float(loss.detach())}


def test_what_cannot_be_captured_is_told_once_and_trained_all_the_same(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pretended_cuda():
        module = nn.Linear(3, 3).to(CUDA)
        outcome = fit(module, Reader(), crops(footage, "true"), settings(STEPS, lr=1e-2), tmp_path)
    told = capsys.readouterr().err.strip().splitlines()
    assert outcome.steps == STEPS and outcome.skipped == 0
    assert len(told) == 1
    assert told[0].startswith("training steps run without a CUDA graph, which is slower (operation not permitted")
