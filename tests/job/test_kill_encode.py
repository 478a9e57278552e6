"""tools/encode.py with a real codec is killed ten times at random moments: nothing is lost, doubled or different.

tests/shards/test_crash.py does the same to the machinery alone, where the codec is a fake and kills fall more densely.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import vidlbc
from tests.job.conftest import REPO, shard_digests
from vidlbc.shards import LatentShards

VIDEOS = 15


def start(motions: Path, out: Path, model: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, str(REPO / "tools" / "encode.py"), f"input={motions}", f"output={out}", f"model={model}",
        "device=cpu", "clip_frames=3", "shard_videos=1",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=out.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told.decode()


def finished(out: Path) -> set[str]:
    """Shards that are done. Whatever bears a final name is whole, and every done shard agrees with its table."""
    for path in out.glob("[0-9]*.tar"):
        with tarfile.open(path) as tar:
            keys = {member.name.partition(".")[0] for member in tar}
        if (out / f"{path.stem}_stats.json").exists():
            assert keys == set(pq.read_table(path.with_suffix(".parquet"))["key"].to_pylist())
    return {path.name for path in out.glob("*_stats.json")}


@pytest.mark.slow
def test_killed_ten_times_at_random_moments(motions: Path, small_model: Path, tmp_path: Path) -> None:
    calm, out = tmp_path / "calm", tmp_path / "disturbed"
    finish(start(motions, calm, small_model))
    draw, done, kills = random.Random(0), set[str](), 0
    while kills < 10:
        process = start(motions, out, small_model)
        # From the moment that the run works in its folder; importing torch is not what is to be interrupted.
        while process.poll() is None and not any(out.glob(".0*.tmp")):
            time.sleep(0.001)
        # A video takes about 0.07 s on one core: kills fall in the first or in one of the next few.
        time.sleep(draw.uniform(0, 0.12))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = finished(out)
        assert done <= now  # what was finished stays
        if len(now) > VIDEOS - 2:
            # Nearly through: make work again, as a lost disk would, and go on killing.
            for name in sorted(now)[::2]:
                for suffix in (".tar", ".parquet", "_stats.json"):
                    (out / name.replace("_stats.json", suffix)).unlink()
            now = finished(out)
        done = now
    finish(start(motions, out, small_model))
    assert shard_digests(out) == shard_digests(calm)
    assert not list(out.glob(".0*")) and not list((out / "manifest").glob("*.tmp"))

    shards = LatentShards(out, mode="frames", codec=vidlbc.load(small_model, device="cpu"))
    clips = Counter((row["source"], row["start"], row["stop"]) for row in (shards.meta(i) for i in range(len(shards))))
    assert set(clips.values()) == {1} and len({source for source, _, _ in clips}) == VIDEOS
    assert sum(len(sample["frames"]) for sample in shards) == VIDEOS * 8  # frames of all clips, decoded
