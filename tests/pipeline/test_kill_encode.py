"""tools/encode.py with a real codec is killed at random moments: nothing is lost, doubled or different.

tests/shards/test_crash.py does the same to the machinery alone, where the codec is a fake and kills fall more densely.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import vidlbc
from tests.pipeline.conftest import Job, Tool, shard_digests
from vidlbc.errors import InputError
from vidlbc.qa.soak import KillCounts, KillSettings, run_kills
from vidlbc.qa.soak.kill_counts import Calm, stage_of
from vidlbc.shards import LatentShards
from vidlbc.shards.layout import ShardFiles

VIDEOS = 15


@pytest.mark.slow
def test_killed_six_times_at_random_moments(motions: Path, small_model: Path, tmp_path: Path) -> None:
    options = (f"model={small_model}", "device=cpu", "clip_frames=3", "shard_videos=1")
    counts = run_kills(KillSettings(str(motions), tmp_path / "soak", options, count=6))
    assert counts.wrong == {"lost": 0, "doubled": 0, "different": 0, "torn": 0, "undone": 0, "left": 0}
    assert sum(counts.kills.values()) == 6 and {victim for victim, _ in counts.kills} == {"launcher", "worker"}
    assert (counts.shards, counts.clips) == (VIDEOS, 3 * VIDEOS)
    told = json.loads((tmp_path / "soak" / "kills.json").read_text())
    assert sum(row["kills"] for row in told["kills"]) == 6 and told["lost"] == 0

    calm, out = tmp_path / "soak" / "calm", tmp_path / "soak" / "killed"
    assert shard_digests(out) == shard_digests(calm)
    assert not list(out.glob(".0*")) and not list((out / "manifest").glob("*.tmp"))
    shards = LatentShards(out, mode="frames", codec=vidlbc.load(small_model, device="cpu"))
    clips = Counter((row["source"], row["start"], row["stop"]) for row in (shards.meta(i) for i in range(len(shards))))
    assert set(clips.values()) == {1} and len({source for source, _, _ in clips}) == VIDEOS
    assert sum(len(sample["frames"]) for sample in shards) == VIDEOS * 8  # frames of all clips, decoded


@pytest.mark.slow
def test_what_is_wrong_is_counted(undisturbed: Job, tmp_path: Path) -> None:
    """A shard that vanished, one that came twice, a file torn, another's bytes, something left behind."""
    quiet = undisturbed.out / "shards"
    calm, out = Calm.of(quiet), tmp_path / "out"
    shutil.copytree(quiet, out)
    counts = KillCounts(calm.shards, sum(calm.clips.values()))
    calm.check(out, counts)
    calm.compare(out, counts)
    assert not any(counts.wrong.values()) and calm.shards == 3 and stage_of(out, 3) == "manifest"
    first, second, other = (ShardFiles(out, index) for index in (0, 1, 7))
    first.stats.unlink()
    first.tar.write_bytes(first.tar.read_bytes()[:-512])
    calm.check(out, counts)
    assert (counts.undone, counts.torn) == (1, 1)
    first.tar.unlink()
    shutil.copy(second.tar, other.tar)
    other.work.mkdir()
    calm.compare(out, counts)
    lost, doubled = (json.loads((quiet / f"{i:05d}_stats.json").read_text())["n_clips"] for i in (0, 1))
    assert (counts.lost, counts.doubled, counts.left) == (lost, doubled, 1)
    assert counts.different == 3  # two files that are not there, one that should not be
    assert stage_of(out, 3) == "renaming files"
    other.tar.unlink()
    assert stage_of(out, 3) == "encoding"
    (other.work / other.parquet.name).touch()
    assert stage_of(out, 3) == "writing a table"


def test_bad_values_are_one_line(call_tool: Tool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count=0: expected whole numbers of at least 1"):
        KillSettings("videos", tmp_path, count=0)
    with pytest.raises(InputError, match=r"processes=\[\]: expected at least one number"):
        KillSettings("videos", tmp_path, processes=())
    (tmp_path / "soak" / "calm").mkdir(parents=True)
    for words, message in (
        (["kills", "input=videos"], f"out={tmp_path}/soak holds an earlier soak; choose another folder\n"),
        (["kills"], "missing value: give input=... (folder of videos)\n"),
        (["bits"], "command=bits: expected one of symbols, kills\n"),
    ):
        done = call_tool("soak", *words, f"out={tmp_path}/soak")
        assert (done.returncode, done.stderr) == (2, f"error: {message}")
