"""A tiny corpus of motions, a small untrained image stage, and the main job as a command."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.processes import ScriptProcess
from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.data.motions import MotionsSettings, make

REPO = Path(__file__).resolve().parents[2]

# Every width is as small as the parts allow (the transformer's heads have 32 channels).
SMALL = {
    "channels": [2, 4, 4, 4],
    "widths": [8, 16, 16, 16],
    "encoder_blocks": [1] * 4,
    "decoder_blocks": [1] * 4,
    "prior_widths": [32, 32, 32],
    "prior_blocks": 1,
}
# Little of everything, so that a whole run takes seconds.
FAST = (
    "effort=fast",
    "device=cpu",
    "train.minutes=null",
    "train.steps=4",
    "train.start=scratch",
    "train.size=32",
    "train.frames=3",
    "eval.videos=3",
    "eval.frames=4",
    "eval.epochs=2",
    "eval.head=linear",
)


def write_model(folder: Path, seed: int = 0) -> Path:
    """A model folder: a small untrained image stage, no temporal stage."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"format": 1, "temporal": "none"}))
    stage = build_image_stage("lbc", **SMALL)
    models.save_image_stage(stage, folder / "image_stage", {"family": "lbc", "options": SMALL})
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shapes, other weights."""
    return write_model(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An annotation list of three classes of the generated motions: 9 train, 3 val, 3 test videos of 8 frames."""
    folder = tmp_path_factory.mktemp("motions")
    make(folder, MotionsSettings(groups=5, frames=8, size=48))
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    kept = [row for row in rows if row["label"] in ("left", "right", "up")]
    with open(folder / "three.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    return folder / "three.csv"


@dataclass(frozen=True)
class Job:
    """One run of tools/pretrain_video.py in a process of its own."""

    out: Path
    stdout: str
    stderr: str
    returncode: int

    @property
    def metrics(self) -> dict:
        assert self.returncode == 0, self.stderr
        return json.loads((self.out / "metrics.json").read_text())


def job_command(root: Path, out: Path, model: Path, *arguments: str) -> list[str]:
    """The command line, but for the interpreter; later arguments win."""
    tool = str(REPO / "tools" / "pretrain_video.py")
    return [tool, f"data.root={root}", f"out={out}", f"image_stage={model}", *FAST, *arguments]


def run_command(command: list[str], out: Path) -> Job:
    done = ScriptProcess(command, out.parent).finish(timeout=240)
    return Job(out, done.stdout, done.stderr, done.returncode)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, motions: Path, small_model: Path) -> Job:
    """The whole job with the transformer: what resumed runs are compared with. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return run_command(job_command(motions, out, small_model), out)


@pytest.fixture
def copied_run(undisturbed: Job, tmp_path: Path) -> Path:
    """A finished output folder that a test may change."""
    assert undisturbed.returncode == 0, undisturbed.stderr
    return Path(shutil.copytree(undisturbed.out, tmp_path / "run"))


Tool = Callable[..., subprocess.CompletedProcess[str]]


def listed_videos(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A `path,label,split` list of files in `folder`."""
    path = folder / "list.csv"
    path.write_text("\n".join(["path,label,split", *(",".join(row) for row in rows)]) + "\n")
    return path


def shard_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that shards are made of."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
