"""Launchers: workers that die, tasks of an array, a cluster that loses a node. All end with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest

import vidlbc
from tests.codec.small_models import save_small_model
from tests.shards.fakes import FakeCodec, FakeReader, load_fake, open_hostile, run_slow_task
from tests.shards.test_crash import REPO, finish, start
from tests.shards.test_encode import shard_bytes
from vidlbc.errors import InputError, ShardError
from vidlbc.shards import (
    EncodingSettings,
    LatentShards,
    Plan,
    RayEngine,
    RaySettings,
    SlurmSettings,
    encode_corpus,
    encode_task,
    gather_finished,
    launch,
    make_plan,
    read_annotations,
    submit,
    watch,
    write_scripts,
)
from vidlbc.shards.layout import exclusive, shared

Tool = Callable[..., subprocess.CompletedProcess[str]]
QUARANTINED = "its worker died 2 times: quarantined"


def planned(corpus: Path, out: Path, **settings: object) -> Plan:
    chosen = EncodingSettings(**{"clip_frames": 5, "block": 2, "deadline_s": 2.0, **settings})  # type: ignore[arg-type]
    return make_plan(read_annotations(corpus), out, FakeCodec(), chosen, shard_videos=3)


def comparable(folder: Path) -> dict[str, bytes]:
    """All but the plan, which names its folder's place, and an array's scripts."""
    return {k: v for k, v in shard_bytes(folder).items() if "plan.json" not in k and "manifest/slurm" not in k}


def calm(corpus: Path, out: Path) -> dict[str, bytes]:
    encode_corpus(planned(corpus, out), codec=FakeCodec(), open_reader=FakeReader, bar=False)
    return comparable(out)


@pytest.mark.slow
def test_a_file_that_kills_its_worker_twice_is_quarantined(hostile_corpus: Path, tmp_path: Path) -> None:
    plan = planned(hostile_corpus, tmp_path / "two")
    manifest, _ = encode_corpus(plan, processes=2, load=load_fake, open_reader=open_hostile, bar=False)
    by_path = {file["path"]: file for file in manifest.files}
    deadly, hangs = by_path["train/b/deadly.mp4"], by_path["train/c/hangs.mp4"]
    assert (deadly["status"], deadly["reason"], deadly["clips"]) == ("unreadable", QUARANTINED, 0)
    assert f"unreadable: train/b/deadly.mp4: {QUARANTINED}" in manifest.summary()
    assert (hangs["status"], hangs["frames"]) == ("damaged", 40)
    # Everything else is as without these two.
    for name in ("b/deadly", "c/hangs"):
        (hostile_corpus / "train" / f"{name}.mp4").unlink()
    other = planned(hostile_corpus, tmp_path / "without")
    without, _ = encode_corpus(other, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    keys = Counter(sample["key"] for sample in LatentShards(other.output))
    assert Counter(s["key"] for s in LatentShards(plan.output) if s["meta"]["source"] != hangs["path"]) == keys
    assert without.n_failed == manifest.n_failed - 1


@pytest.mark.slow
def test_one_process_dies_of_a_file_and_the_next_run_quarantines_it(hostile_corpus: Path, tmp_path: Path) -> None:
    """The file kills the run itself; the same command again gives the bytes that several processes give."""
    process = start(hostile_corpus, tmp_path / "one", 1)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGSEGV
    finish(start(hostile_corpus, tmp_path / "one", 1))
    finish(start(hostile_corpus, tmp_path / "two", 2))
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    assert QUARANTINED in (tmp_path / "one" / "manifest" / "summary.txt").read_text()
    assert not list((tmp_path / "one").glob(".*.tmp"))


@pytest.mark.slow
def test_tasks_by_hand_give_the_bytes_of_a_local_run(fake_corpus: Path, tmp_path: Path) -> None:
    plan = planned(fake_corpus, tmp_path / "array")
    scripts = write_scripts(plan, SlurmSettings(shards_per_task=2))
    assert scripts is not None and (scripts.shards, scripts.tasks) == (len(plan.shards), (len(plan.shards) + 1) // 2)
    for task in reversed(range(scripts.tasks)):
        encode_task(plan.output, task, 2, load=load_fake, open_reader=FakeReader, bar=False)
    gather_finished(plan.output)
    assert comparable(tmp_path / "array") == calm(fake_corpus, tmp_path / "calm")
    assert write_scripts(plan, SlurmSettings()) is None  # nothing is left
    last = scripts.tasks - 1
    with pytest.raises(ShardError, match=rf"task {last + 1}: the plan of .* has tasks 0 to {last}, of 2 shards each"):
        encode_task(plan.output, last + 1, 2)
    with pytest.raises(InputError, match="task=-1: expected a whole number of at least 0"):
        encode_task(plan.output, -1)


@pytest.mark.slow
def test_half_by_an_array_half_by_processes(hostile_corpus: Path, tmp_path: Path) -> None:
    """A task meets the deadly file, in a process of its own; the array's other half is left to a local run."""
    finish(start(hostile_corpus, tmp_path / "local", 2))
    plan = planned(hostile_corpus, tmp_path / "both")
    place = next(i for i, source in enumerate(plan.sources) if source.path.endswith("deadly.mp4"))
    deadly = next(index for index, shard in enumerate(plan.shards) if shard.first <= place < shard.last)
    write_scripts(plan, SlurmSettings())
    (report,) = encode_task(plan.output, deadly, load=load_fake, open_reader=open_hostile, bar=False)
    assert report.failed >= 1
    encode_task(plan.output, (deadly + 1) % len(plan.shards), load=load_fake, open_reader=open_hostile, bar=False)
    with pytest.raises(ShardError, match="shard 0000. is not finished"):
        gather_finished(plan.output)
    # Listed for the rest only.
    again = write_scripts(plan, SlurmSettings())
    assert again is not None and again.shards == len(plan.shards) - 2
    _, reports = encode_corpus(plan, codec=FakeCodec(), load=load_fake, open_reader=open_hostile, bar=False)
    assert sum(report.skipped for report in reports) == 2
    assert comparable(tmp_path / "both") == comparable(tmp_path / "local")


@pytest.mark.slow
def test_two_tasks_of_one_shard(fake_corpus: Path, tmp_path: Path) -> None:
    """The second waits for the first and finds the shard done; neither takes the other's working folder away."""
    plan = planned(fake_corpus, tmp_path / "out")
    write_scripts(plan, SlurmSettings())
    context = get_context("spawn")
    tasks = [context.Process(target=run_slow_task, args=(plan.output,)) for _ in range(2)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(120)
        assert task.exitcode == 0
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        clips = [name for name in tar.getnames() if name.endswith(".vlbc")]
    refused = sum(plan.sources[i].path.endswith("tiny.mp4") for i in range(plan.shards[0].last))
    assert len((tmp_path / "log").read_text().splitlines()) == len(clips) + refused
    expected = calm(fake_corpus, tmp_path / "calm")
    assert {k: v for k, v in comparable(tmp_path / "out").items() if k.startswith("00000")} == {
        k: v for k, v in expected.items() if k.startswith("00000")
    }


@pytest.mark.slow
def test_tasks_and_whole_runs_keep_each_other_out(fake_corpus: Path, tmp_path: Path) -> None:
    plan = planned(fake_corpus, tmp_path / "out")
    write_scripts(plan, SlurmSettings())
    live = tmp_path / "out" / ".00004.tmp"
    live.mkdir()  # of a task that is at work
    with shared(tmp_path / "out"):
        with pytest.raises(ShardError, match="another run is writing here"):
            encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
        encode_task(plan.output, 0, load=load_fake, open_reader=FakeReader, bar=False)
    assert live.is_dir()
    with exclusive(tmp_path / "out"), pytest.raises(ShardError, match="another run is writing here"):
        encode_task(plan.output, 1, load=load_fake, open_reader=FakeReader, bar=False)
    fake_corpus.rename(tmp_path / "elsewhere")
    with pytest.raises(ShardError, match="videos: not found on .*; every machine must see videos and shards"):
        encode_task(plan.output, 1, load=load_fake, open_reader=FakeReader, bar=False)


@pytest.mark.slow
def test_the_script_says_what_was_asked(fake_corpus: Path, tmp_path: Path) -> None:
    plan = planned(fake_corpus, tmp_path / "an out")
    for index in (2, 5):
        write_scripts(plan, SlurmSettings())
        encode_task(plan.output, index, load=load_fake, open_reader=FakeReader, bar=False)
    settings = SlurmSettings(1, "gpu", "04:00:00", 4, 1, "8G", 100, ("#SBATCH --account=abc", "module load ffmpeg"))
    scripts = write_scripts(plan, settings, device="cuda")
    assert scripts is not None
    lines = scripts.encode.read_text().splitlines()
    last = len(plan.shards) - 1
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert f"array=0-1,3-4,6-{last}%100" in options
    assert {"partition=gpu", "time=04:00:00", "cpus-per-task=4", "gpus-per-task=1", "mem=8G", "account=abc"} <= options
    assert f'output="{tmp_path}/an out/manifest/slurm/%a.log"' in options
    assert lines[-2] == "module load ffmpeg" and lines[-1].endswith("per_task=1 device=cuda task=$SLURM_ARRAY_TASK_ID")
    for script in (scripts.encode, scripts.gather):
        subprocess.run(["bash", "-n", str(script)], check=True)
    gather = scripts.gather.read_text()
    assert "--partition=gpu" in gather and "gpus-per-task" not in gather and "module load ffmpeg" in gather


def test_submitting(fake_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = write_scripts(planned(fake_corpus, tmp_path / "out"), SlurmSettings())
    assert scripts is not None
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match="launcher=slurm: no sbatch on this machine; .*encode.sh is written"):
        submit(scripts)
    write_command(tmp_path / "bin" / "sbatch", "echo 'sbatch: error: Invalid job array specification' >&2; exit 1")
    with pytest.raises(InputError, match="Invalid job array specification; the cluster's MaxArraySize"):
        submit(scripts)


def write_command(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_watching_an_array(fake_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when the job has left the queue, and says what the tasks have left."""
    plan = planned(fake_corpus, tmp_path / "out")
    write_scripts(plan, SlurmSettings())
    for index in (0, 1):
        encode_task(plan.output, index, load=load_fake, open_reader=FakeReader, bar=False)
    write_command(tmp_path / "bin" / "squeue", f"[ -e {tmp_path}/asked ] && exit; touch {tmp_path}/asked; echo 17_2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert watch(plan, "17", seconds=0.1) == len(plan.shards) - 2
    assert (tmp_path / "asked").exists()
    encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    assert watch(plan, "17") == 0


@pytest.mark.slow
def test_the_array_as_a_user_runs_it(run_tool: Tool, make_clip: Callable[..., Path], tmp_path: Path) -> None:
    """A fake sbatch takes the jobs; their scripts are run by hand, as SLURM would, with a real codec."""
    model = save_small_model(tmp_path / "model", kinds=())
    for number in range(3):
        make_clip(tmp_path / "videos" / f"{number}.mp4", frames=4, size=(32, 32), seed=number)
    write_command(tmp_path / "bin" / "sbatch", f'echo "$@" >> {tmp_path}/submitted; echo "17;cluster"')
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    out = tmp_path / "array"
    options = (f"input={tmp_path / 'videos'}", f"output={out}", f"model={model}", "device=cpu", "shard_videos=1")
    slurm = ("launcher=slurm", "slurm.shards_per_task=2")
    done = run_tool("encode", *options, *slurm, env=path)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 shards are to do, in 2 tasks" in done.stdout and "submitted: job 17" in done.stdout
    encode, gather = out / "manifest" / "slurm" / "encode.sh", out / "manifest" / "slurm" / "gather.sh"
    assert (tmp_path / "submitted").read_text().splitlines() == [
        f"--parsable {encode}",
        f"--parsable --dependency=afterany:17 {gather}",
    ]
    for task in (1, 0):
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "PYTHONPATH": str(REPO)}
        told = subprocess.run(["bash", str(encode)], env=environment, capture_output=True, text=True, timeout=240)
        assert told.returncode == 0, told.stderr
    assert "shard 00000: 1 videos, 0 unreadable, 4 frames" in told.stdout
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    told = subprocess.run(["bash", str(gather)], env=environment, capture_output=True, text=True, timeout=240)
    assert told.returncode == 0 and "3 videos: 3 ok" in told.stdout, told.stderr

    plan = Plan.load(out)
    corpus, codec = read_annotations(tmp_path / "videos"), vidlbc.load(str(model), device="cpu")
    here = make_plan(corpus, tmp_path / "here", codec, plan.settings, shard_videos=1)
    encode_corpus(here, codec=codec, bar=False)
    assert comparable(tmp_path / "here") == comparable(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launcher=cloud"], "error: launcher=cloud: expected local, ray or slurm"),
        (["launcher=slurm", "slurm.cpus=0"], "error: slurm.cpus=0: expected a whole number of at least 1"),
        (["launcher=slurm", "slurm.time=4 hours"], "error: slurm.time='4 hours': expected one word"),
        (["launcher=local", "ray.workers=0"], "error: ray.workers=0: expected at least 1"),
    ],
)
def test_bad_launchers_are_one_line(call_tool: Tool, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = call_tool("encode", "input=nowhere", "output=out", *arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"launcher=ray: Ray is not installed; pip install 'vidlbc\[ray\]'"):
        RayEngine(RaySettings())


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_that_does_not_answer_is_one_line(fake_corpus: Path, tmp_path: Path) -> None:
    engine = RayEngine(RaySettings("127.0.0.1:1"), load=load_fake, open_reader=FakeReader)
    with pytest.raises(InputError, match=r"ray.address=127.0.0.1:1: no Ray cluster answers there \(.*refused"):
        launch(planned(fake_corpus, tmp_path / "out"), engine, bar=False)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_that_loses_a_node_and_meets_hostile_files(hostile_corpus: Path, tmp_path: Path) -> None:
    """Two nodes; one is killed with a shard in work, a file kills its worker, another hangs its decoder."""
    command = [sys.executable, "-m", "tests.shards.ray_run", str(hostile_corpus), str(tmp_path / "ray")]
    environment = {**os.environ, "FAKE_CODEC_DELAY": "0.03", "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    facts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # Ray prints, too
    assert 0 < facts["finished"] < facts["shards"] and not facts["second_node_runs"]
    finish(start(hostile_corpus, tmp_path / "local", 2))
    assert comparable(tmp_path / "ray") == comparable(tmp_path / "local")
    assert QUARANTINED in (tmp_path / "ray" / "manifest" / "summary.txt").read_text()
    assert not list((tmp_path / "ray").glob(".*.tmp"))


def test_launching_does_not_wait_for_torch() -> None:
    """A launcher and its workers start in half a second where the codec does not need torch; it takes four."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, vidlbc.shards; print('torch' in sys.modules)"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "False\n", done.stderr
