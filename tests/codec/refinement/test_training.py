"""Training of a video decoder and the tools that use one, as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

import vidlbc
from tests.codec.refinement.conftest import OPTIONS, add_video_decoder
from tests.codec.small_models import save_small_model
from vidlbc.codec import models
from vidlbc.errors import InputError
from vidlbc.pipeline.settings import EvaluationSettings, JobSettings, TrainSettings
from vidlbc.pipeline.train import train_temporal
from vidlbc.shards import read_annotations
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.decoder_job import DecoderJobSettings, run_decoder_job
from vidlbc.train.objectives.refinement import RefinementDistortion
from vidlbc.train.schedule import Budget

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small", kinds=("lstm",))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    rows = ["path,label,group,split"]
    for name, split, seed in (("a", "train", 0), ("b", "train", 1), ("c", "val", 2)):
        make_clip(folder / f"{name}.mp4", frames=8, size=(64, 96), motion=(0.5, 0.0), seed=seed)
        rows.append(f"{name}.mp4,x,{name},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def settings_for(model: Path, videos: Path, tmp_path: Path) -> Callable[..., DecoderJobSettings]:
    def settings(out: str = "out", **changes: object) -> DecoderJobSettings:
        given = {
            "model": str(model),
            "train": (PictureSource(str(videos / "labels.csv")),),
            "out": tmp_path / out,
            "budget": Budget(steps=4),
            "options": OPTIONS,
            "log_every": 1,
            "device": "cpu",
            "clips": ClipSettings(frames=3, size=32, batch=2),
            "save_seconds": 0.0,
        }
        return DecoderJobSettings(**{**given, **changes})

    return settings


@pytest.mark.slow
def test_a_run_and_the_tools_that_use_its_model(
    run_tool: Run, call_tool: Run, model: Path, videos: Path, tmp_path: Path
) -> None:
    trained, listed = tmp_path / "trained", videos / "labels.csv"
    done = run_tool(
        "pretrain_decoder",
        f"model={model}",
        f"data.train={listed}",
        f"data.val={listed}",
        f"out={trained}",
        "train.minutes=null",
        "train.steps=25",
        "train.lr=1e-2",
        "train.size=32",
        "train.frames=3",
        "train.batch=2",
        *[f"video_decoder.{name}={value}" for name, value in OPTIONS.items()],
        "eval.qps=[50]",
        "device=cpu",
    )
    assert done.returncode == 0, done.stderr
    (gain,) = json.loads((trained / "metrics.json").read_text())["val"]
    assert (gain["qp"], gain["videos"]) == (50, 1) and gain["psnr_refined"] > gain["psnr"] + 0.2
    assert f"{gain['psnr_refined']:.2f}" in done.stdout and "1 validation videos" in done.stdout
    first, *_, last = [json.loads(line) for line in (trained / "training" / "log.jsonl").read_text().splitlines()]
    assert last["loss"] < first["loss"] and last["gain"] > 0.2

    # A copy of the model, whole: what the old one wrote is read by the new one, and its stages are there.
    frames = np.stack([frame.to_ndarray(format="rgb24") for frame in av.open(str(videos / "c.mp4")).decode(video=0)])
    data = vidlbc.load(model, device="cpu").compress(frames, qp=50)
    stream = tmp_path / "c.vlbc"
    stream.write_bytes(data)
    for refine in ("false", "true"):
        done = call_tool(
            "decode",
            f"input={stream}",
            f"output={tmp_path / refine}",
            f"model={trained}",
            f"refine={refine}",
            "format=png",
            "device=cpu",
        )
        assert done.returncode == 0, done.stderr
    expected = vidlbc.load(trained, device="cpu", refine=True).decompress(data)
    shown = [read_png(tmp_path / "true" / "c" / f"{index:06d}.png") for index in range(len(expected))]
    np.testing.assert_array_equal(np.stack(shown), expected)
    assert (read_png(tmp_path / "false" / "c" / "000003.png") != shown[3]).any()

    out = tmp_path / "rd"
    arguments = (
        f"data={videos / 'c.mp4'}",
        f"out={out}",
        "codecs=[vidlbc]",
        f"model={trained}",
        "temporal=[lstm,lstm+refine]",
        "qp=[50]",
        "frames=6",
        "rdo=false",
        "report=false",
        "device=cpu",
    )
    done = call_tool("evaluate", *arguments)
    assert done.returncode == 0, done.stderr
    with open(out / "points.csv", newline="") as file:
        plain, refined = csv.DictReader(file)
    assert (plain["kind"], refined["kind"]) == ("lstm", "lstm+refine") and plain["bytes"] == refined["bytes"]
    assert float(refined["psnr"]) > float(plain["psnr"]) + 0.2
    assert "lstm+refine" in done.stdout
    done = call_tool("evaluate", *arguments[:3], f"model={model}", *arguments[4:])
    assert done.returncode == 2 and "has no video decoder: use refine=false" in done.stderr


def read_png(path: Path) -> np.ndarray:
    from PIL import Image

    return np.array(Image.open(path))


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(settings_for, monkeypatch):
    run_decoder_job(settings_for("whole"))
    original = RefinementDistortion.__call__

    def stopping(self, decoder, batch, step):
        if step == 2:
            raise KeyboardInterrupt
        return original(self, decoder, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(RefinementDistortion, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_decoder_job(settings_for("parts"))
    assert not (settings_for("parts").out / "video_decoder").exists()
    figures = run_decoder_job(settings_for("parts"))
    assert figures is not None and figures["steps"] == 4
    whole, parts = (settings_for(n).out / "video_decoder" / "model.safetensors" for n in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    with pytest.raises(InputError, match="holds a run with train.lr=0.002, this one has train.lr=0.5: choose another"):
        run_decoder_job(settings_for("parts", lr=0.5))


def test_a_step_that_is_not_finite_is_skipped_and_counted(settings_for, monkeypatch):
    original = RefinementDistortion.__call__

    def failing(self, decoder, batch, step):
        loss, parts = original(self, decoder, batch, step)
        return (loss * float("nan") if step == 1 else loss), parts

    monkeypatch.setattr(RefinementDistortion, "__call__", failing)
    figures = run_decoder_job(settings_for())
    assert figures is not None and figures["skipped_steps"] == 1
    image = models.load_image_stage(settings_for().out / "image_stage")
    decoder, _ = models.load_video_decoder(settings_for().out, image)
    assert all(bool(p.isfinite().all()) for p in decoder.parameters())


def test_bad_requests_are_told_before_anything_is_written(settings_for, model, videos, tmp_path):
    (tmp_path / "empty").mkdir()
    for changes, message in (
        ({"model": "nothing"}, "no model 'nothing'"),
        ({"out": model}, "is the model itself: choose another out="),
        ({"train": (PictureSource(str(tmp_path / "empty")),)}, "holds no picture and no video"),
        ({"clips": ClipSettings(size=40)}, "expected at least 1, at least 2 and a multiple of 32"),
        ({"clips": ClipSettings(size=64, frames=1)}, "train.frames=1, train.size=64: expected"),
        ({"options": {"colour": 3}}, "video decoder: .*colour"),
        ({"eval_qps": (64,)}, "qp=64: expected an integer from 0 to 63"),
    ):
        with pytest.raises(InputError, match=message):
            run_decoder_job(settings_for(**{"out": "refused", **changes}))
        assert not (tmp_path / "refused" / "training").exists()


def test_the_main_job_keeps_the_video_decoder_beside_its_shards(videos, tmp_path):
    shipped = add_video_decoder(save_small_model(tmp_path / "shipped", kinds=()), 5)
    settings = JobSettings(
        root=str(videos / "labels.csv"),
        out=tmp_path / "run",
        image_stage=str(shipped),
        temporal="none",
        qp=32,
        device="cpu",
        precision="fp32",
        train=TrainSettings(None, ClipSettings()),
        evaluation=EvaluationSettings(),
    )
    train_temporal(settings, read_annotations(videos / "labels.csv"))
    kept = vidlbc.load(tmp_path / "run" / "model", device="cpu", refine=True)
    expected = vidlbc.load(shipped, device="cpu", refine=True)
    assert kept.picture_fingerprint == expected.picture_fingerprint
