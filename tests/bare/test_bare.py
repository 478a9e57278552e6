"""What must work on a node that has torch, numpy 2 and OpenCV but no PyAV, CompressAI, decord, wandb: `make test-bare`.

Train both stages on pictures and videos, encode a corpus into shards, decode it, evaluate pictures; each by its tool,
as there. What is missing is told in one line when it is asked for, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

import vidlbc
from tests.conftest import motion_frames
from vidlbc.errors import InputError
from vidlbc.shards import LatentShards
from vidlbc.video import write_mp4

LACKING = ("av", "decord", "compressai", "wandb")
pytestmark = pytest.mark.skipif(
    any(map(find_spec, LACKING)) and not os.environ.get("VIDLBC_BARE"),
    reason="this environment has what the test does without: make test-bare builds one that has not",
)
Run = Callable[..., CompletedProcess[str]]
TINY = ("image_stage.channels=[1,3,4,5]", "image_stage.widths=[8,8,8,8]", "image_stage.prior_widths=[32,32,32]")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/*.png; videos/{train,test}/{left,right}/*.mp4, 24 frames of 64x96 each."""
    cv2 = pytest.importorskip("cv2")
    from PIL import Image

    root = tmp_path_factory.mktemp("corpus")
    (root / "pictures").mkdir()
    for seed in range(4):
        Image.fromarray(motion_frames(1, (80, 96), seed=seed)[0]).save(root / "pictures" / f"{seed}.png")
    for split, count in (("train", 3), ("test", 2)):
        for name, speed in (("left", -2.0), ("right", 2.0)):
            folder = root / "videos" / split / name
            folder.mkdir(parents=True)
            for seed in range(count):
                path = str(folder / f"{seed}.mp4")
                writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 24, (96, 64))
                for frame in motion_frames(24, (64, 96), (speed, 0.0), seed=seed):
                    writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
                writer.release()
    return root


def done(process: CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout + process.stderr


def test_the_shipped_models_load_and_evaluate_a_picture() -> None:
    for name in ("default", "large"):
        codec = vidlbc.load(name, device="cpu")
        picture = motion_frames(1, (96, 128))
        data = codec.compress(picture, qp=48, rdo=True)
        error = np.square(codec.decompress(data).astype(float) - picture).mean()
        assert 10 * np.log10(255**2 / error) > 30 and len(data) < picture.size / 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_train_encode_decode_evaluate(run_tool: Run, corpus: Path, tmp_path: Path) -> None:
    model, job, shards, pictures = (tmp_path / name for name in ("model", "job", "shards", "pictures"))
    sources = f"data.train=[{corpus}/pictures,{corpus}/videos/train]"
    stage = run_tool(
        "pretrain_image",
        sources,
        f"data.val={corpus}/pictures",
        f"out={model}",
        *TINY,
        "train.steps=20",
        "train.size=64",
        "train.batch=4",
        "eval.qps=[32]",
        "device=cpu",
    )
    told = done(stage)
    assert "not used" not in told and "1 validation pictures" not in told
    done(
        run_tool(
            "pretrain_video",
            f"data.root={corpus}/videos",
            f"out={job}",
            f"image_stage={model}",
            "train.steps=4",
            "train.frames=3",
            "train.size=64",
            "eval.epochs=2",
            "processes=1",
            "device=cpu",
            timeout=280,
        )
    )
    trained = f"model={job}/model"
    told = done(run_tool("encode", f"input={corpus}/videos", f"output={shards}", trained, "processes=1", "device=cpu"))
    assert "10 ok" in told
    whole = LatentShards(shards, codec=vidlbc.load(job / "model", device="cpu"))
    assert len(whole) == 10
    done(run_tool("decode", f"input={shards}", f"output={pictures}", "format=png", "device=cpu"))
    assert len(list(pictures.rglob("*.png"))) == 240
    done(
        run_tool(
            "evaluate",
            f"data={corpus}/pictures",
            f"out={tmp_path / 'rd'}",
            "codecs=[vidlbc,jpeg]",
            trained,
            "qp=[16,48]",
            "report=false",
            "device=cpu",
        )
    )


def test_what_is_missing_is_told_when_it_is_asked_for(run_tool: Run, corpus: Path, tmp_path: Path) -> None:
    for tool, options, line in (
        ("pretrain_image", ["wandb=true"], "the package wandb is needed for this and not installed: pip install wandb"),
        ("pretrain_image", ["image_stage=hyperprior"], "not installed: pip install compressai"),
    ):
        process = run_tool(
            tool, f"data.train={corpus}/pictures", f"out={tmp_path / 'm'}", "train.steps=1", "train.size=64", *options
        )
        assert process.returncode == 2 and line in process.stderr, process.stderr
        assert process.stderr.strip().splitlines()[-1].startswith("error: ")
    with pytest.raises(InputError, match="writing mp4 needs PyAV"):
        write_mp4(tmp_path / "c.mp4", motion_frames(2, (32, 32)), 24)
