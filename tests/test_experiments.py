"""Every experiment in configs/experiment runs as it is, but for its budget: a few steps on a small folder.

What the overrides below shrink is width, steps and pictures, never a part: each must train, write its figures
and exit with 0.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.conftest import SMALL, write_model
from tests.test_configs import EXPERIMENTS, tool_of

LISTS = {"actions": "labels.csv", "fights": "labels.csv"}
TINY_LBC = ("stage.widths=[8,12,16,16]", "stage.prior_widths=[16,16,16]", "stage.decoder_blocks=[1,1,1,1]")
# Of the main job: seconds of everything.
JOB = (
    "effort=fast",
    "device=cpu",
    "train.minutes=null",
    "train.steps=3",
    "train.size=32",
    "train.frames=3",
    "train.batch=1",
    "eval.videos=2",
    "eval.frames=4",
    "eval.epochs=1",
    "eval.head=linear",
    "eval.rates=[1e-3]",
    "eval.decays=[0.05]",
    "data.max_side=40",
)
CLIPS = ("clips.size=32", "clips.frames=4", "clips.every=1")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """A folder of the form that the experiments name: pictures, unlabelled clips, two labelled sets, segmentations."""
    folder = tmp_path_factory.mktemp("data")
    names = {
        "imagenet": ["a", "b", "c"],
        "bsds": ["bsds500_train_1", "bsds500_train_2", "bsds500_val_3", "bsds500_val_4"],
        "kodak": ["kodim01"],
    }
    rng = np.random.default_rng(0)
    for group, pictures in names.items():
        (folder / "images" / group).mkdir(parents=True)
        for name in pictures:
            coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((154, 140), Image.Resampling.BICUBIC).save(
                folder / "images" / group / f"{name}.png"
            )
    (folder / "segmentation").mkdir()
    for name in names["bsds"]:
        outline = np.zeros((140, 154), np.uint8)
        outline[70], outline[:, 80] = 255, 255
        Image.fromarray(outline).save(folder / "segmentation" / f"{name.removeprefix('bsds500_')}_boundaries.png")
    for group in ("clips", "train_video"):
        make_clip(folder / group / "walk.mp4", frames=4, size=(140, 152))
    for group, classes in {"actions": ("left", "right", "up"), "fights": ("fight", "nofight")}.items():
        rows = ["path,label,group,split"]
        for split, count in (("train", 4), ("val", 2), ("test", 2)):
            for label, motion in zip(classes, ((-2.0, 0.0), (2.0, 0.0), (0.0, -2.0)), strict=False):
                for number in range(count):
                    path = f"{label}/{split}{number}.mp4"
                    make_clip(folder / group / path, frames=5, size=(140, 152), motion=motion, seed=number)
                    rows.append(f"{path},{label},{split}{number},{split}")
        for name in ("labels.csv", "labels_coarse.csv"):
            (folder / group / name).write_text("\n".join(rows) + "\n")
    few = [f"left/{split}0.mp4,{split}" for split in ("train", "val", "test")]
    (folder / "actions" / "few.csv").write_text("\n".join(["path,split", *few]) + "\n")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image stage to start from."""
    return write_model(tmp_path_factory.mktemp("models") / "small")


def overrides(experiment: str, data: Path, model: Path) -> tuple[str, ...]:
    """What makes an experiment small. A new experiment fails here until it says how."""
    if experiment == "demo" or "motion" in experiment:
        start = "train.start=scratch"  # the small model has no temporal stage to go on from
        videos = "labels.csv" if experiment == "demo" else "few.csv"  # the others are not about recognition
        return (f"data.root={data / 'actions' / videos}", f"image_stage={model}", start, *JOB)
    small_stage = tuple(f"image_stage.{name}={value}".replace(" ", "") for name, value in SMALL.items())
    image = (
        *small_stage,
        "train.minutes=null",
        "train.steps=3",
        "train.size=64",
        "train.batch=2",
        "eval.qps=[32]",
        "eval.pictures=1",
        "device=cpu",
    )
    return (f"data.folder={data}",) + {
        "default_image": image,
        "large_image": (f"init={model}", *image),
        "large2_image": image,
        "default_decoder": (
            f"model={model}",
            "train.minutes=null",
            "train.steps=3",
            "train.size=32",
            "train.frames=3",
            "train.batch=2",
            "video_decoder.width=16",
            "video_decoder.fine=16",
            "eval.qps=[32]",
            "eval.videos=1",
            "eval.frames=3",
            "device=cpu",
        ),
        "lbc_adaptive": (f"model={model}", *CLIPS, "device=cpu"),
        "lbc_two_step": (
            *TINY_LBC,
            "train.size=64",
            "train.batch=4",
            "loop.first=2",
            "loop.raising=2",
            "loop.holding=2",
            "loop.rq_threshold=-9",
            "recogniser.steps=2",
            "recogniser.widths=[8,8,8,8]",
            "eval.qps=[32]",
            "device=cpu",
        ),
        "perception_actions": (
            "image_stage.N=8",
            "image_stage.prior_widths=[16,16]",
            "encoders=[naive,action]",
            "data.size=64",
            "data.frames=4",
            "data.every=1",
            "train.steps=2",
            "train.size=64",
            "train.batch=2",
            "task.clips=2",
            "task.frames=2",
            "task.head_steps=1",
            "head.width=4",
            "probe.steps=2",
            "copies.count=1",
            "probe.seeds=1",
            "probe.kept=4",
            "probe.frames=2",
            "probe.sample=2",
            "low_shot.novel=1",
            "low_shot.shots=[1]",
            "low_shot.draws=2",
            "low_shot.seeds=1",
        ),
        "scalable_actions": (
            "image_stage.N=8",
            "image_stage.M_base=8",
            "image_stage.M_enhancement=16",
            "image_stage.prior_widths=[16,16,16]",
            "clips.size=64",
            "clips.frames=4",
            "clips.every=1",
            "task.frames=2",
            "task.batch=2",
            "task.head_steps=1",
            "base.steps=2",
            "enhancement.steps=2",
            "enhancement.size=64",
            "enhancement.batch=2",
            "eval.frames=2",
        ),
        "blocks_default": (
            "train.steps=2",
            "train.size=64",
            "train.batch=2",
            "train.same_time=false",
            "eval.pictures=1",
            "device=cpu",
        ),
        "blocks_networks": (
            "contestants=[depthwise,conv_gated]",
            "train.steps=2",
            "train.size=64",
            "train.batch=2",
            "train.same_time=false",
            "eval.pictures=1",
            "device=cpu",
        ),
        "rates_default": (
            "train.steps=2",
            "train.size=64",
            "train.batch=2",
            "eval.pictures=1",
            "qps=[32]",
            "device=cpu",
        ),
        "transfer_default": (
            f"model={model}",
            *(f"classes.{name}" for name in CLIPS_OF_TRANSFER),
            "boundaries.training.steps=2",
            "boundaries.training.size=64",
            "boundaries.training.batch=2",
            "super_resolution.training.steps=2",
            "super_resolution.training.size=64",
            "super_resolution.training.batch=2",
        ),
    }[
        {
            "blocks_networks_half": "blocks_networks",
            "lbc_ablation": "lbc_two_step",
            "lbc_recover": "lbc_two_step",
            "perception_ablation": "perception_actions",
        }.get(experiment, experiment)
    ]


CLIPS_OF_TRANSFER = (*CLIPS, "train.frames=2", "train.steps=2", "train.tuned_steps=1", "train.batch=2")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_runs(
    experiment: str, data: Path, model: Path, tmp_path: Path, call_tool: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = tmp_path / "out"
    tool = tool_of(experiment)
    done = call_tool(tool, f"experiment={experiment}", f"out={out}", *overrides(experiment, data, model))
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((out / "metrics.json").read_text())
    assert figures and done.stdout.strip()
    logs = list(out.rglob("log.jsonl"))
    assert logs or tool == "adaptive_ratio"  # which trains nothing
    for log in logs:
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps and steps[0] >= 1
