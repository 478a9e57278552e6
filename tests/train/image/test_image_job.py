"""Stage 1 as a whole: what comes out is a model, a killed run resumes to the same bytes, parts are trained alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import vidlbc
from tests.train.image.conftest import TINY, texture
from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.compressai_families import import_compressai
from vidlbc.errors import InputError, VidlbcError
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.image_job import run_image_job
from vidlbc.train.objectives.image import RateDistortion
from vidlbc.train.schedule import Budget

REPO = Path(__file__).resolve().parents[3]
TINY_OVERRIDES = [f"image_stage.{key}={str(value).replace(' ', '')}" for key, value in TINY.items()]
HYPERPRIOR = {"N": 8, "M": 12, "mean": True, "prior_widths": [32, 32], "prior_blocks": 1, "trained_lambda": 0.013}


@pytest.fixture
def frames():
    return np.stack([texture(70, 83, seed) for seed in range(3)])


@pytest.mark.slow
def test_the_tool_makes_a_model_and_says_how_good_it_is(run_tool, corpus, tmp_path, frames):
    out = tmp_path / "model"
    command = [
        f"data.train={corpus}/train",
        f"data.val={corpus}/val",
        f"out={out}",
        *TINY_OVERRIDES,
        "train.steps=60",
        "train.size=64",
        "train.batch=4",
        "train.lr=4e-3",
        "eval.qps=[8,48]",
        "device=cpu",
    ]
    done = run_tool("pretrain_image", *command)
    assert done.returncode == 0, done.stderr
    assert "not used: " in done.stderr and "broken.jpg" in done.stderr and "small.png: smaller than 32" in done.stderr
    figures = json.loads((out / "metrics.json").read_text())
    low, high = figures["val"]
    assert (low["qp"], high["qp"], low["pictures"]) == (8, 48, 2)
    assert low["bpp"] < high["bpp"] and low["psnr"] < high["psnr"]
    # Every byte of a picture's own bitstream counts: header, checks and the coder's flush.
    assert low["bpp_estimated"] < low["bpp"] < low["bpp_estimated"] + 8 * 90 / (70 * 83)
    log = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.8 * log[1]["loss"]  # means over 20 steps; the first line is one batch, of whichever QPs
    assert f"{high['bpp']:.4f}" in done.stdout and "2 validation pictures, true sizes" in done.stdout

    codec = vidlbc.load(out, device="cpu")
    data = codec.compress(frames, qp=48)
    decoded = codec.decompress(data)
    assert decoded.shape == frames.shape
    grey = frames.mean((1, 2, 3), keepdims=True)
    assert np.square(decoded - frames.astype(float)).mean() < np.square(grey - frames).mean()


SMALL = {
    "codevilla": {"N": 24, "z_stride": 64, "prior_widths": [32, 32], "prior_blocks": 1},
    "scalable": {"N": 16, "M_base": 16, "M_enhancement": 32, "bottlenecks": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_a_fresh_stage_starts_from_a_transform_of_the_pictures(family, settings_for, frames):
    started = settings_for("started", steps=1, lr=1e-9, family=family, options=SMALL[family], val=())
    run_image_job(started)
    random = build_image_stage(family, **SMALL[family])
    of_pictures = models.load_image_stage(started.out / "image_stage").stage
    x = torch.from_numpy(frames[:, :64, :64]).permute(0, 3, 1, 2).float() / 255
    errors = []
    for stage in (random, of_pictures):
        with torch.no_grad():
            errors.append(float(F.mse_loss(stage.synthesis(stage.analysis(x), torch.full((3,), 24)), x)))
    assert errors[1] < min(errors[0], 0.01), errors


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_weights(settings_for, monkeypatch):
    run_image_job(settings_for("whole", steps=10))
    original = RateDistortion.__call__
    stop_at = 6

    def stopping(self, stage, batch, step):
        if step == stop_at:
            raise KeyboardInterrupt
        return original(self, stage, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(RateDistortion, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_image_job(settings_for("parts", steps=10, save_seconds=0.0))
    stopped = settings_for("parts", steps=10)
    assert not (stopped.out / "image_stage").exists()
    figures = run_image_job(stopped)
    assert figures is not None and figures["steps"] == 10
    whole, parts = (settings_for(name).out / "image_stage" / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()

    run_image_job(stopped)  # finished: the same command changes nothing
    assert whole.read_bytes() == parts.read_bytes()
    with pytest.raises(InputError, match="holds a run with train.lr=0.001, this one has train.lr=0.5: choose another"):
        run_image_job(settings_for("parts", lr=0.5))


@pytest.mark.slow
@pytest.mark.parametrize("block", ["depthwise", "residual_gdn"])
def test_both_blocks_train_and_load(settings_for, frames, block):
    settings = settings_for(options={**TINY, "block": block}, bf16=block == "depthwise")
    figures = run_image_job(settings)
    assert figures is not None and figures["skipped_steps"] == 0
    codec = vidlbc.load(settings.out, device="cpu")
    assert codec.decompress(codec.compress(frames)).shape == frames.shape
    assert codec.image.config["options"]["block"] == block


@pytest.mark.slow
def test_training_the_synthesis_alone_leaves_symbols_bits_and_temporal_stages(settings_for, frames):
    first = settings_for("first")
    run_image_job(first)
    image = models.load_image_stage(first.out / "image_stage")
    temporal = models.build_temporal("lstm", image.stage)
    models.save_temporal(temporal, first.out / "temporal" / "lstm", {"kind": "lstm", "options": {}}, image.digest)
    (first.out / "config.json").write_text(json.dumps({"format": 1, "temporal": "lstm"}))

    second = settings_for("second", steps=8, lr=1e-2, init=str(first.out), part="synthesis", family="elic", options={})
    run_image_job(second)
    old, new = (vidlbc.load(s.out, device="cpu") for s in (first, second))
    assert new.kind == "lstm" and new.image.config == old.image.config
    assert old.fingerprint != new.fingerprint
    before, after = old.compress(frames, qp=40), new.compress(frames, qp=40)
    assert len(before) == len(after)
    for q, r in zip(old.symbols(before), new.symbols(after), strict=True):
        assert torch.equal(q, r)
    assert not np.array_equal(old.decompress(before), new.decompress(after))


@pytest.mark.slow
def test_training_the_prior_alone_leaves_the_pictures(settings_for, frames):
    first, second = settings_for("first"), settings_for("second", steps=8, lr=1e-2, part="prior")
    run_image_job(first)
    run_image_job(settings_for("second", steps=8, lr=1e-2, part="prior", init=str(first.out)))
    old, new = (vidlbc.load(s.out, device="cpu") for s in (first, second))
    before, after = old.compress(frames, qp=40), new.compress(frames, qp=40)
    assert np.array_equal(old.decompress(before), new.decompress(after))
    assert len(before) != len(after)


TAILED = {**TINY, "encoder_tail": [1, 1, 0, 0], "decoder_tail": [0, 1, 1, 0]}


@pytest.mark.slow
def test_a_grown_stage_begins_as_what_it_grew_from(settings_for, frames):
    """lr 0 leaves it there: the same bits and, but for float32 sums, the same pictures, from more weights."""
    first = settings_for("first")
    run_image_job(first)
    grow = {"init": str(first.out), "grow": True, "options": TAILED}
    still, trained = settings_for("still", steps=2, lr=0.0, **grow), settings_for("trained", steps=8, lr=1e-2, **grow)
    run_image_job(still)
    run_image_job(trained)
    old, new, other = (vidlbc.load(s.out, device="cpu") for s in (first, still, trained))
    assert new.image.config["options"] == TAILED
    assert sum(p.numel() for p in new.image.stage.parameters()) > sum(p.numel() for p in old.image.stage.parameters())
    before, after = old.compress(frames, qp=40), new.compress(frames, qp=40)
    assert len(before) == len(after)
    pictures = [codec.decompress(data).astype(int) for codec, data in ((old, before), (new, after))]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert other.compress(frames, qp=40) != after
    tail = [name for name in other.image.stage.state_dict() if name.startswith("decode.1.") and "gdn" in name]
    assert tail


def test_growing_only_adds(settings_for):
    first = settings_for("first")
    run_image_job(first)
    narrow = {**TINY, "widths": [width + 8 for width in TINY["widths"]]}
    with pytest.raises(InputError, match="grow=true: in image_stage=lbc tensor '.*' has shape .*; init= has "):
        run_image_job(settings_for("second", init=str(first.out), grow=True, options=narrow))


@pytest.mark.slow
def test_a_compressai_checkpoint_under_a_new_prior(settings_for, tmp_path, frames):
    torch.manual_seed(0)
    library = import_compressai().models
    checkpoint = tmp_path / "mean.safetensors"
    save_file({name: t.contiguous() for name, t in library.MeanScaleHyperprior(8, 12).state_dict().items()}, checkpoint)
    settings = settings_for(family="hyperprior", options=HYPERPRIOR, checkpoint=str(checkpoint), part="prior", steps=3)
    run_image_job(settings)
    saved, given = load_file(settings.out / "image_stage" / "model.safetensors"), load_file(checkpoint)
    for name in (n for n in saved if n.startswith(("g_a.", "g_s.", "h_a."))):
        assert torch.equal(saved[name], given[name].half())
    codec = vidlbc.load(settings.out, device="cpu")
    assert codec.decompress(codec.compress(frames)).shape == frames.shape
    with pytest.raises(InputError, match="family lbc has none; choose image_stage=hyperprior or elic"):
        run_image_job(settings_for("other", checkpoint=str(checkpoint)))


@pytest.mark.slow
def test_two_processes_train_one_model(corpus, tmp_path):
    """Under torchrun: gradients are averaged, one process writes."""
    out = tmp_path / "model"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(REPO / "tools" / "pretrain_image.py"),
        f"data.train={corpus}/train",
        f"out={out}",
        *TINY_OVERRIDES,
        "train.steps=3",
        "train.size=64",
        "train.batch=2",
        "device=cpu",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("image stage ") == 1
    assert vidlbc.load(out, device="cpu").kind == "none"
    log = (out / "training" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"init": "nowhere"}, "no model 'nowhere': expected a model folder or one of"),
        ({"init": "default", "checkpoint": "x.pth"}, "init= and checkpoint= are both given"),
        ({"grow": True}, "grow=true adds blocks to an existing stage: give that one as init=MODEL"),
        ({"options": {**TINY, "decoder_tail": [1]}}, "decoder_tail has 1 entries, expected one for each of strides"),
        ({"part": "decoder"}, "train_only=decoder: expected one of all, synthesis, prior"),
        ({"family": "jpeg"}, "unknown image stage family 'jpeg': expected one of lbc, hyperprior, elic"),
        ({"options": {**TINY, "block": "cubic"}}, "unknown block .cubic.: expected one of conv, depthwise, "),
        ({"options": {**TINY, "widths": [8, 8]}}, "widths has 2 entries, expected one for each of strides"),
        ({"options": {"colour": 1}}, "image stage family 'lbc': .*unexpected keyword argument 'colour'"),
        ({"eval_qps": (8, 64)}, "qp=64: expected an integer from 0 to 63"),
        ({"device": "tpu9"}, "unknown device 'tpu9'"),
    ],
)
def test_what_cannot_be_trained_is_said_first(settings_for, changes, message):
    with pytest.raises(InputError, match=message):
        run_image_job(settings_for(**changes))
    assert not (settings_for().out / "image_stage").exists()


def test_training_that_diverges_ends_in_one_line(settings_for, monkeypatch):
    def diverging(self, stage, batch, step):
        return sum(p.sum() for p in stage.parameters()) * float("nan"), {"bpp": 0.0, "psnr": 0.0}

    monkeypatch.setattr(RateDistortion, "__call__", diverging)
    with pytest.raises(VidlbcError, match="training diverged: 50 steps in a row .*; lower train.lr"):
        run_image_job(settings_for(steps=60))


@pytest.mark.slow
def test_bad_data_is_one_line_from_the_tool(run_tool, tmp_path):
    missing = tmp_path / "nothing"
    arguments = [f"data.train={missing}", f"out={tmp_path}/out", "train.minutes=null", "train.steps=2"]
    done = run_tool("pretrain_image", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"error: data source {missing}: no such file or folder (expected pictures, videos or a list of them)\n"
    assert done.stderr == expected
    assert not (tmp_path / "out").exists()


def test_bad_data_and_budgets(settings_for, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no picture and no video"):
        run_image_job(settings_for(train=(PictureSource(str(tmp_path / "empty")),)))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/model: cannot make the folder"):
        run_image_job(settings_for("file/model"))
    with pytest.raises(InputError, match="train.batch=0, train.size=16: expected at least 1 and 32"):
        run_image_job(settings_for(crops=CropSettings(size=16, batch=0)))
    with pytest.raises(InputError, match="a budget needs train.steps, train.minutes or train.until"):
        Budget()
    with pytest.raises(InputError, match="train.minutes=-1: expected more than 0"):
        Budget(minutes=-1)
    with pytest.raises(InputError, match="every=0, expected an integer of at least 1"):
        PictureSource.of({"path": "a", "every": 0})
