"""The main job end to end, as a command on real files: what it leaves behind is there, sane, and decodes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vidlbc
from tests.pipeline.conftest import FAST, REPO, Job, job_command, run_command, shard_digests
from vidlbc.evaluate import REQUIRED_METRICS
from vidlbc.run.stage_clock import OF_MOTION, STAGES
from vidlbc.shards import LatentShards
from vidlbc.video import examine, read_blocks

Clip = Callable[..., Path]
LIGHT = ("eval.pixels=false", "eval.decoded=false")


def figures_are_sane(metrics: dict) -> None:
    assert set(REQUIRED_METRICS) <= metrics.keys()
    assert 0 < metrics["bpp"] < 24 and 0 < metrics["bpp_no_context"] < 24
    assert 0 < metrics["psnr"] < 100 and 0 <= metrics["ms_ssim"] <= 1
    assert metrics["encode_fps"] > 0 and metrics["decode_fps"] > 0
    assert 0.99 < metrics["size_over_estimate"] < 1.5  # clips of a few hundred bytes: headers weigh


@pytest.mark.slow
def test_every_output_is_there_and_says_the_same(undisturbed: Job) -> None:
    metrics, out = undisturbed.metrics, undisturbed.out
    figures_are_sane(metrics)
    assert (metrics["n_videos"], metrics["n_failed"], metrics["n_clips"]) == (15, 0, 15)
    assert (metrics["temporal"], metrics["split"], metrics["recognition_left_out"]) == ("transformer", "test", None)
    for name in ("top1", "top5", "top1_pixels", "top1_decoded"):
        assert 0 <= metrics[name] <= 1
    assert metrics["top5"] == 1  # three classes
    assert metrics["verified_clips"] == metrics["verified_sources"] == 3 and metrics["verified_frames"] == 24

    shards = LatentShards(out / "shards", "test")
    sizes = {row["key"]: row["bytes"] for row in (shards.meta(i) for i in range(len(shards)))}
    clips = json.loads((out / "clips.json").read_text())["clips"]
    assert {clip["key"]: clip["bytes"] for clip in clips} == sizes
    pixels = sum(clip["pixels"] for clip in clips)
    assert metrics["bpp"] == pytest.approx(8 * sum(sizes.values()) / pixels)
    assert pixels == 3 * 8 * 48 * 48

    # Symbols were chosen, and blocks copied: beside it is what no past takes for the same quality.
    assert metrics["rdo"] and all(clip["bytes_none"] == clip["bytes_no_context"] > 0 for clip in clips)

    for name in ("frame_bits", "reconstruction", "accuracy", "confusion", "training"):
        with Image.open(out / "plots" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
    info, verdict = examine(out / "side_by_side.mp4")
    assert info is not None and verdict.status == "ok" and verdict.frames == 8 and info.width >= 2 * 48

    probes = json.loads((out / "probes" / "probes.json").read_text())
    assert probes.keys() == {"latents", "decoded", "pixels"} and probes["latents"]["top1"] == metrics["top1"]
    assert probes["latents"]["holdout"] == "the val split (3 videos)"
    views = pq.read_table(out / "probes" / "views-latents.parquet").to_pylist()
    assert len(views) == 3 * 2 and len({row["key"] for row in views}) == 3


@pytest.mark.slow
def test_what_is_printed(undisturbed: Job) -> None:
    table, told = undisturbed.stdout, undisturbed.stderr
    metrics = undisturbed.metrics
    assert re.search(rf"^bits per pixel +{metrics['bpp']:.4f}   \(qp 32, 3 test clips, true sizes\)$", table, re.M)
    assert "3 clips, 24 frames decode to the same symbols in another process" in table
    assert re.search(r"^top-1, source pixels +\d+\.\d% \[", table, re.M)
    for name in ("metrics.json", "side_by_side.mp4", "plots/accuracy.png", "shards", "model"):
        assert f"{undisturbed.out / name}\n" in table
    assert f"vidlbc decode input={undisturbed.out / 'shards'} output=FOLDER" in table
    assert "15 videos (9 train, 3 val, 3 test), read as: " in told
    # No terminal: no bar that redraws itself, and this run is over before the first line of progress is due.
    assert "\r" not in told and "it/s" not in told
    assert "where the time went" in told and "<- slowest" in told
    assert len(told.splitlines()) < 12 + len(STAGES) + len(OF_MOTION) + 3  # that table


@pytest.mark.slow
def test_the_shards_decode_with_the_tool(undisturbed: Job, motions: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(REPO / "tools" / "decode.py"),
            f"input={undisturbed.out / 'shards'}",
            "output=made",
            "split=test",
            "format=png",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    codec = vidlbc.load(undisturbed.out / "model", device="cpu", effort="fast")
    assert codec.kind == "transformer"
    shards = LatentShards(undisturbed.out / "shards", "test", mode="frames", codec=codec, shuffle=False)
    for sample in shards:
        folder = (tmp_path / "made" / sample["meta"]["source"]).with_suffix("")
        frames = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])
        assert np.array_equal(frames, sample["frames"])
        # Such a stage may copy blocks: what is shown is what it predicts from, made anew from the source.
        source = np.concatenate(list(read_blocks(motions.parent / sample["meta"]["source"])))
        assert np.array_equal(codec.decompress(codec.compress(source, 32)), frames)


@pytest.mark.slow
def test_run_again_it_does_nothing_twice(copied_run: Path, motions: Path, small_model: Path, undisturbed: Job) -> None:
    before = shard_digests(copied_run / "shards")
    times = {path: path.stat().st_mtime_ns for path in copied_run.rglob("*.safetensors")}
    log = (copied_run / "training" / "log.jsonl").read_text()
    again = run_command(job_command(motions, copied_run, small_model), copied_run)
    assert shard_digests(copied_run / "shards") == before
    assert {path: path.stat().st_mtime_ns for path in copied_run.rglob("*.safetensors")} == times
    assert (copied_run / "training" / "log.jsonl").read_text() == log
    timed = {"decode_fps", "environment"}
    assert {k: v for k, v in again.metrics.items() if k not in timed} == {
        k: v for k, v in undisturbed.metrics.items() if k not in timed
    }


@pytest.mark.slow
def test_a_difficult_corpus(make_clip: Clip, small_model: Path, tmp_path: Path) -> None:
    """No val split, a class missing from test, one frame, other sizes, too small, long, damaged, no video at all."""
    root = tmp_path / "videos"
    for number, name in enumerate(["train/a/1", "train/a/2", "train/b/1", "train/b/2", "train/c/1", "test/a/1"]):
        make_clip(root / f"{name}.mp4", frames=5, size=(48, 64), seed=number)
    make_clip(root / "test/b/one frame.mp4", frames=1, size=(48, 48), seed=20)
    make_clip(root / "train/c/odd size.avi", frames=4, size=(50, 34), codec="mpeg4", seed=21)
    make_clip(root / "test/b/long.mp4", frames=30, size=(32, 48), seed=22)
    make_clip(root / "test/a/too small.mkv", frames=3, size=(8, 8), seed=23)
    whole = make_clip(tmp_path / "whole.avi", frames=60, size=(64, 64), codec="mpeg4", seed=24).read_bytes()
    (root / "train/a/cut.avi").write_bytes(whole[: len(whole) * 8 // 10])
    Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(root / "picture.png")
    (root / "picture.png").rename(root / "test/a/a picture.mp4")
    (root / "train/b/empty.mp4").write_bytes(b"")
    write_sound(root / "train/b/sound.mp4")
    (root / "train/b/notes.txt").write_text("not a video, and not named like one")

    out = tmp_path / "run"
    done = run_command(job_command(root, out, small_model, "temporal=lstm", "data.clip_frames=8", "qp=20"), out)
    metrics = done.metrics
    figures_are_sane(metrics)
    assert metrics["n_videos"] == 14 and metrics["temporal"] == "lstm" and metrics["qp"] == 20
    by_name = {f["path"]: f for f in pq.read_table(out / "shards" / "manifest" / "manifest.parquet").to_pylist()}
    failed = {path for path, file in by_name.items() if file["status"] == "unreadable"}
    assert failed == {"test/a/too small.mkv", "test/a/a picture.mp4", "train/b/empty.mp4", "train/b/sound.mp4"}
    assert metrics["n_failed"] == 4
    assert by_name["test/a/too small.mkv"]["reason"] == "frames are 8x8: expected at least 16 pixels a side"
    assert "audio" in by_name["train/b/sound.mp4"]["reason"]
    assert by_name["train/a/cut.avi"]["status"] == "damaged" and metrics["n_damaged"] == 1
    assert (by_name["test/b/one frame.mp4"]["frames"], by_name["test/b/long.mp4"]["clips"]) == (1, 4)
    for path in failed:
        assert path in done.stderr
    # Every readable test video is judged once, however many clips it is in; the others are counted.
    probe = json.loads((out / "probes" / "probes.json").read_text())["latents"]
    assert (probe["n_videos"], probe["n_failed"]) == (3, 2) and "of the train split" in probe["holdout"]
    assert (out / "plots" / "confusion.png").is_file() and metrics["top1"] is not None


def write_sound(path: Path) -> None:
    """A file with an audio stream and nothing else."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        silence.rate = 16000
        for number in range(16):
            silence.pts = 1024 * number
            container.mux(stream.encode(silence))
        container.mux(stream.encode(None))


@pytest.mark.slow
def test_without_labels_and_without_a_temporal_stage(make_clip: Clip, small_model: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "videos", tmp_path / "run"
    for number in range(4):
        make_clip(root / f"{number}.mp4", frames=4, size=(32, 32), seed=number)
    done = run_command(job_command(root, out, small_model, "temporal=none", "data.holdout=0.5", "processes=2"), out)
    metrics = done.metrics
    figures_are_sane(metrics)
    assert metrics["top1"] is None and metrics["top5"] is None and metrics["top1_pixels"] is None
    assert metrics["recognition_left_out"] == "the corpus has no labels"
    assert "recognition is left out: the corpus has no labels\n" in done.stderr
    assert metrics["bpp"] == metrics["bpp_none"] == metrics["bpp_no_context"] and metrics["temporal"] == "none"
    assert {shard.split for shard in LatentShards(out / "shards").plan.shards} == {"train", "test"}
    assert not (out / "training").exists() and not (out / "probes").exists()
    assert (out / "side_by_side.mp4").is_file()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_ray_cluster_encodes_the_same(copied_run: Path, motions: Path, small_model: Path, undisturbed: Job) -> None:
    shutil.rmtree(copied_run / "shards")
    ray = ("launcher=ray", "ray.address=null", "ray.workers=1")
    figures_are_sane(run_command(job_command(motions, copied_run, small_model, *ray), copied_run).metrics)
    assert shard_digests(copied_run / "shards") == shard_digests(undisturbed.out / "shards")
    for name in ("manifest.parquet", "manifest.json", "summary.txt"):
        there, here = (folder / "shards" / "manifest" / name for folder in (undisturbed.out, copied_run))
        assert there.read_bytes() == here.read_bytes()


@pytest.mark.slow
def test_every_hostile_file_gets_a_verdict(shared_data: Path, small_model: Path, tmp_path: Path) -> None:
    """The whole job over files that break decoders: none stops it."""
    out = tmp_path / "run"
    few = ("temporal=none", "data.max_side=32", "data.deadline_s=20", "data.clip_frames=64", "eval.videos=6")
    done = run_command(job_command(shared_data / "hostile", out, small_model, *few), out)
    metrics = done.metrics
    listed = len(list((shared_data / "hostile").iterdir())) - 1  # but for its README
    assert metrics["n_videos"] == listed and metrics["n_failed"] > 0 and metrics["n_damaged"] > 0
    files = pq.read_table(out / "shards" / "manifest" / "manifest.parquet").to_pylist()
    assert all(file["status"] in ("ok", "damaged", "unreadable") for file in files) and len(files) == listed
    assert all(file["reason"] for file in files if file["status"] != "ok")


@pytest.mark.slow
def test_val_stands_in_where_test_is_missing_or_has_no_labels(motions: Path, small_model: Path, tmp_path: Path) -> None:
    rows = [row for row in csv.DictReader(motions.read_text().splitlines()) if row["split"] != "test"]
    listed = motions.parent / "no_test.csv"
    with open(listed, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "run"
    metrics = run_command(job_command(listed, out, small_model, "temporal=none", *LIGHT), out).metrics
    assert metrics["split"] == "val" and metrics["n_videos"] == 12
    assert metrics["top1"] is not None and metrics["top1_pixels"] is None
    probe = json.loads((out / "probes" / "probes.json").read_text())["latents"]
    assert probe["n_videos"] == 3 and "of the train split" in probe["holdout"]


def test_the_fast_settings_are_options_of_the_tool() -> None:
    """FAST would silently do nothing if an option moved: every one is known to the config."""
    from vidlbc.commands import compose

    config = compose("pretrain_video", ["data.root=a", "out=b", *FAST])
    assert (config.train.steps, config.train.minutes, config["eval"].head.kind) == (4, None, "linear")


@pytest.mark.slow
def test_training_goes_on_from_a_stage_of_another_image_stage(
    undisturbed: Job, motions: Path, other_model: Path, tmp_path: Path
) -> None:
    """With a learning rate of 0: the same weights but for transforms of pictures, which are the other stage's own."""
    start, out = undisturbed.out / "model", tmp_path / "run"
    still = (f"train.start={start}", "train.lr=0", "train.ema=0", "effort=default", *LIGHT)
    run_command(job_command(motions, out, other_model, *still), out)
    before, after = (load_file(m / "temporal" / "transformer" / "model.safetensors") for m in (start, out / "model"))
    own = ("motion.analysis.", *(f"motion.synthesis.{part}." for part in ("lift", "decode", "up", "modulate")))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith(own))
    assert not torch.equal(before["motion.analysis.down.0.weight"], after["motion.analysis.down.0.weight"])
    assert vidlbc.load(out / "model", device="cpu").kind == "transformer"
