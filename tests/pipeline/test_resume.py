"""The job is killed while it trains, encodes and evaluates; the same command ends with the bytes of an undisturbed run.

Also: what a folder refuses, so that nothing of two runs is ever mixed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.conftest import Job, Tool, job_command, run_command, shard_digests
from tests.processes import ScriptProcess

TIMED = {"decode_fps", "encode_fps", "environment"}


def kill_when(command: list[str], out: Path, moment: Callable[[], bool]) -> bool:
    """Start, wait for `moment`, SIGKILL; False where the run was over before."""
    process = ScriptProcess(command, out.parent)
    try:
        while process.running() and not moment():
            time.sleep(0.001)
        alive = process.running()
    finally:
        process.kill()
        done = process.finish(timeout=60)
    assert alive or done.returncode == 0, done.stderr
    return alive


@pytest.mark.slow
def test_killed_while_training_encoding_and_evaluating(
    motions: Path, small_model: Path, undisturbed: Job, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # A checkpoint a step, so that training really goes on from one.
    command = job_command(motions, out, small_model, "train.save_seconds=0")
    checkpoint = out / "training" / "checkpoint.safetensors"

    assert kill_when(command, out, checkpoint.is_file)
    assert not (out / "model" / "trained.json").exists()
    written = checkpoint.stat().st_mtime_ns
    assert kill_when(command, out, lambda: checkpoint.stat().st_mtime_ns != written)
    assert not (out / "shards").exists()
    assert kill_when(command, out, lambda: any((out / "shards").glob(".0*.tmp/*/*.vlbc")))
    assert (out / "model" / "trained.json").exists()
    assert kill_when(command, out, lambda: (out / "shards" / "00000_stats.json").exists())
    assert kill_when(command, out, lambda: any((out / "features").glob("train-latents-*.safetensors")))
    assert not (out / "metrics.json").exists()

    done = run_command(command, out)
    assert shard_digests(out / "shards") == shard_digests(undisturbed.out / "shards")
    assert {k: v for k, v in done.metrics.items() if k not in TIMED} == {
        k: v for k, v in undisturbed.metrics.items() if k not in TIMED
    }
    left = [path for path in out.rglob("*") if path.name.endswith((".tmp", ".part"))]
    assert left == []
    assert (out / "plots" / "training.png").is_file()


def job(call_tool: Tool, root: Path, out: Path, model: Path, *arguments: str) -> tuple[int, str]:
    done = call_tool("pretrain_video", *job_command(root, out, model, *arguments)[1:])
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.steps=9", "train.steps=4, this one has train.steps=9"),
        ("train.lr=0.001", "train.lr=0.0005, this one has train.lr=0.001"),
        ("temporal=lstm", "temporal=transformer, this one has temporal=lstm"),
        ("train.minutes=3.5", "train.minutes=null, this one has train.minutes=3.5"),
        ("data.max_side=32", "data.max_side=null, this one has data.max_side=32"),
    ],
)
def test_other_training_settings_are_refused(
    call_tool: Tool, undisturbed: Job, motions: Path, small_model: Path, change: str, told: str
) -> None:
    out = undisturbed.out
    status, error = job(call_tool, motions, out, small_model, change)
    line = f"error: out={out} holds a run with {told}: choose another out=, or give the old value to resume\n"
    assert status == 2 and error.endswith(line) and error.count("error:") == 1


@pytest.mark.slow
def test_other_training_settings_are_refused_before_training_ends(
    call_tool: Tool, copied_run: Path, motions: Path, small_model: Path
) -> None:
    """Else a checkpoint of one kind would be loaded into another."""
    (copied_run / "model" / "trained.json").unlink()
    status, error = job(call_tool, motions, copied_run, small_model, "temporal=lstm")
    assert status == 2 and "holds a run with temporal=transformer, this one has temporal=lstm" in error


@pytest.mark.slow
def test_other_shard_settings_and_other_videos_are_refused(
    call_tool: Tool, copied_run: Path, motions: Path, small_model: Path, tmp_path: Path
) -> None:
    status, error = job(call_tool, motions, copied_run, small_model, "qp=20")
    assert status == 2
    assert f"error: {copied_run}/shards: holds shards of another run (qp=32 there, qp=20 here); choose a new" in error
    fewer = motions.parent / "fewer.csv"
    fewer.write_text("\n".join(motions.read_text().splitlines()[:-1]) + "\n")
    status, error = job(call_tool, fewer, copied_run, small_model)
    assert status == 2 and "1 files there, not here" in error


@pytest.mark.slow
def test_weights_of_another_image_stage_are_refused(
    call_tool: Tool, copied_run: Path, motions: Path, small_model: Path, other_model: Path
) -> None:
    status, error = job(call_tool, motions, copied_run, other_model)
    assert status == 2 and f"image_stage={small_model}, this one has image_stage={other_model}" in error


@pytest.mark.slow
def test_a_second_run_at_the_same_time_is_refused(
    call_tool: Tool, copied_run: Path, motions: Path, small_model: Path
) -> None:
    import fcntl

    with open(copied_run / ".lock", "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, error = job(call_tool, motions, copied_run, small_model)
    assert (status, error) == (
        2,
        f"error: out={copied_run}: another run is at work here; wait for it or choose another out=\n",
    )


@pytest.mark.slow
def test_half_a_line_in_the_log_of_a_killed_run(copied_run: Path) -> None:
    from vidlbc.pipeline.report import _steps

    log = copied_run / "training" / "log.jsonl"
    first = json.loads(log.read_text().splitlines()[0])
    log.write_text(json.dumps({"step": 10, "bpp": 1.0}) + "\n" + log.read_text() + '{"step": 20, "bp')
    assert _steps(log) == [first, {"step": 10, "bpp": 1.0}]
