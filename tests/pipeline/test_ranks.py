"""tools/pretrain_video.py under torchrun, as a user types it, on the CPU: one run, whatever the number of processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import vidlbc
from tests.pipeline.conftest import Job, job_command, shard_digests
from vidlbc.commands import compose
from vidlbc.commands.pretrain_video import settings_of
from vidlbc.errors import InputError
from vidlbc.evaluate import FeatureSet
from vidlbc.pipeline import JobSettings, run_job
from vidlbc.pipeline.check import check_job
from vidlbc.pipeline.train import train_temporal
from vidlbc.run import distributed

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# More than one shard a split would need 32 videos; three splits are three shards to share.
OPTIONS = ("train.steps=20", "eval.head=attentive")


def command(motions: Path, out: Path, model: Path, *options: str) -> list[str]:
    return [*TORCHRUN, *job_command(motions, out, model, *OPTIONS, *options)]


def run_command(command: list[str], out: Path) -> Job:
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, timeout=240)
    return Job(out, done.stdout, done.stderr, done.returncode)


def settings(motions: Path, out: Path, model: Path, *options: str) -> JobSettings:
    """Of the same command in one process."""
    arguments = job_command(motions, out, model, *OPTIONS, *options)[1:]
    made: JobSettings = settings_of(compose("pretrain_video", arguments))
    return made


@pytest.fixture(scope="module")
def two_ranks(motions: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    out = tmp_path_factory.mktemp("ranks") / "two"
    return run_command(command(motions, out, small_model, "train.batch=1"), out)


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_losses_are_those_of_one_process(two_ranks: Job, motions: Path, small_model: Path, tmp_path: Path) -> None:
    assert two_ranks.returncode == 0, two_ranks.stderr
    one = settings(motions, tmp_path / "one", small_model, "train.batch=2")
    train_temporal(one, check_job(one).corpus)
    ours, theirs = log_of(two_ranks.out), log_of(tmp_path / "one")
    assert [row["step"] for row in ours] == [1, 10, 20]  # one writer; a row is the mean since the last one
    for row, other in zip(ours, theirs, strict=True):
        for name in other.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=2e-5), (name, row["step"])
    assert len({row["loss"] for row in ours}) == 3


@pytest.mark.slow
def test_one_process_makes_the_same_of_these_weights(
    two_ranks: Job, motions: Path, small_model: Path, tmp_path: Path
) -> None:
    """Shards, manifest, features, every view's scores; and a run goes on with another number of processes."""
    metrics = two_ranks.metrics
    assert two_ranks.stdout.count("bits per pixel") == 1 and two_ranks.stderr.count("15 videos (9 train") == 1
    assert metrics["fingerprint"] == vidlbc.load(two_ranks.out / "model", device="cpu").fingerprint
    out = Path(shutil.copytree(two_ranks.out, tmp_path / "run"))
    for folder in ("shards", "features", "probes"):
        shutil.rmtree(out / folder)
    with pytest.raises(InputError, match="holds a run with train.batch=2, this one has train.batch=1"):
        run_job(settings(motions, out, small_model, "train.batch=1"))
    run_job(settings(motions, out, small_model, "train.batch=2"))

    ours = two_ranks.out / "shards"
    assert shard_digests(out / "shards") == shard_digests(ours) and len(shard_digests(ours)) == 9
    for name in ("manifest.parquet", "manifest.json", "summary.txt", "labels.json"):
        assert (out / "shards" / "manifest" / name).read_bytes() == (ours / "manifest" / name).read_bytes()
    logged = [json.loads(line)["index"] for line in (ours / "manifest" / "runs.jsonl").read_text().splitlines()]
    assert sorted(logged) == [0, 1, 2]
    files = sorted(path.name for path in (two_ranks.out / "features").iterdir())
    assert files == sorted(path.name for path in (out / "features").iterdir()) and len(files) == 9
    for name in files:
        there, here = (FeatureSet.load(folder / "features" / name) for folder in (two_ranks.out, out))
        assert torch.equal(there.tokens, here.tokens) and there.keys == here.keys and there.failed == here.failed
    for name in ("latents", "decoded", "pixels"):
        there, here = (pq.read_table(f / "probes" / f"views-{name}.parquet") for f in (two_ranks.out, out))
        assert there.equals(here)
    again = json.loads((out / "metrics.json").read_text())
    timed = {"encode_fps", "decode_fps", "environment"}
    assert {k: v for k, v in metrics.items() if k not in timed} == {k: v for k, v in again.items() if k not in timed}


@pytest.mark.slow
def test_bad_input_is_one_line(motions: Path, small_model: Path, tmp_path: Path) -> None:
    """What every process finds at fault is told by one of them, and all end."""
    done = run_command(command(tmp_path / "nowhere", tmp_path / "run", small_model), tmp_path / "run")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told == [
        f"error: {tmp_path}/nowhere: no such file or folder (expected a folder of videos or an annotation list)"
    ]
    assert done.stderr.count("exitcode  : 2") >= 1  # torchrun may end the other first


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(motions: Path, small_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    endless = command(motions, out, small_model, "train.steps=1000000")
    run = subprocess.Popen(endless, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not (out / "training" / "log.jsonl").exists() and time.monotonic() < until:
            assert run.poll() is None
            time.sleep(0.05)
        ranks = ranks_of(run.pid)
        assert ranks.keys() == {0, 1}
        os.kill(ranks[1], signal.SIGKILL)
        _, told = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode not in (0, -signal.SIGKILL)
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    # torchrun may end the first one before it has told.
    assert len(lines) <= 1 and all("another process of this run has ended" in line for line in lines)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())


def ranks_of(pid: int) -> dict[int, int]:
    """{rank: process} of the processes that torchrun has started."""
    found = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(v.partition(b"=")[2]): int(child) for v in variables if v.startswith(b"RANK=")}
    return found


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2), (3, 0, 1, 2)])
@pytest.mark.parametrize("rows", [1, 2])
def test_ranks_draw_their_rows_of_one_noise(rows: int, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """`order`: of the dimensions in memory, outermost first."""

    def zeros(count: int) -> torch.Tensor:
        shape = (count, 5, 4, 3)
        return torch.zeros([shape[d] for d in order]).permute([order.index(d) for d in range(4)])

    torch.manual_seed(3)
    expected = torch.rand_like(zeros(3 * rows))
    monkeypatch.setattr(distributed, "world", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        torch.manual_seed(3)
        assert torch.equal(distributed.rand_like(zeros(rows)), expected[rows * rank : rows * rank + rows])
