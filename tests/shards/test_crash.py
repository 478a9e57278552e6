"""SIGKILL at random moments: only whole shards remain, and the next run ends with the bytes of an undisturbed one."""

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

from tests.shards.test_encode import shard_bytes
from vidlbc.shards import LatentShards

REPO = Path(__file__).resolve().parents[2]


def start(
    root: Path, out: Path, processes: int, log: Path | None = None, delay: float = 0.0
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "FAKE_CODEC_DELAY": str(delay)}
    if log:
        environment["FAKE_CODEC_LOG"] = str(log)
    command = [sys.executable, "-m", "tests.shards.fakes", str(root), str(out), str(processes)]
    return subprocess.Popen(command, cwd=REPO, env=environment, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def assert_only_whole_shards(out: Path) -> None:
    """Whatever bears a final name is complete, and every finished shard agrees with its own table."""
    for path in out.glob("[0-9]*.tar"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert path.stat().st_size % tarfile.RECORDSIZE == 0
        if (out / f"{path.stem}_stats.json").exists():
            keys = {member.name.split(".")[0] for member in members}
            assert keys == set(pq.read_table(path.with_suffix(".parquet"))["key"].to_pylist())


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_killed_ten_times(fake_corpus: Path, tmp_path: Path, processes: int) -> None:
    finish(start(fake_corpus, tmp_path / "calm", processes, tmp_path / "calm.log"))
    begun_calmly = len((tmp_path / "calm.log").read_text().splitlines())  # one of them is refused: 8x8 pixels
    out = tmp_path / "disturbed"
    rng = random.Random(processes)
    kills, log = 0, tmp_path / "log"
    finished: set[str] = set()
    for _ in range(10):
        process = start(fake_corpus, out, processes, log, delay=0.004)
        # The first clip of the run, then a random moment: importing torch is not what is to be interrupted.
        begun = len(log.read_text().splitlines()) if log.exists() else 0
        while process.poll() is None and (len(log.read_text().splitlines()) if log.exists() else 0) == begun:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.12))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if processes > 1:
            time.sleep(0.5)  # the workers notice that their parent is gone
        assert_only_whole_shards(out)
        now = {path.name for path in out.glob("*_stats.json")}
        assert finished <= now  # what was finished stays
        finished = now
    assert kills >= 5
    finish(start(fake_corpus, out, processes, log))
    assert shard_bytes(out) == shard_bytes(tmp_path / "calm")
    assert not list(out.glob(".*.tmp")) and not list((out / "manifest").glob(".*.tmp"))
    keys = Counter(sample["key"] for sample in LatentShards(out))
    assert len(keys) == begun_calmly - 1 and set(keys.values()) == {1}
    # Work is lost only for the shards in flight at a kill: at most 3 videos of 3 clips for each process.
    assert len(log.read_text().splitlines()) <= begun_calmly + kills * 9 * processes


@pytest.mark.slow
def test_killed_between_the_files_of_a_shard(fake_corpus: Path, tmp_path: Path) -> None:
    """At every step of publishing: none, the tar, the tar and the table; the rest is made again, equal."""
    finish(start(fake_corpus, tmp_path / "calm", 1))
    expected = shard_bytes(tmp_path / "calm")
    (tmp_path / "calm" / "00000_stats.json").unlink()
    (tmp_path / "calm" / "00001_stats.json").unlink()
    (tmp_path / "calm" / "00001.parquet").unlink()
    for suffix in (".tar", ".parquet", "_stats.json"):
        (tmp_path / "calm" / f"00002{suffix}").unlink()
    (tmp_path / "calm" / ".00002.stale.tmp").mkdir()
    (tmp_path / "calm" / ".00002.stale.tmp" / "00002.tar").write_bytes(b"half a tar")
    (tmp_path / "calm" / "manifest" / "manifest.parquet").unlink()
    finish(start(fake_corpus, tmp_path / "calm", 1, tmp_path / "log"))
    assert shard_bytes(tmp_path / "calm") == expected
    assert not list((tmp_path / "calm").glob(".*.tmp"))
