"""The whole way on this machine: pack, the printed commands in another folder, a kill, join, a model that decodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import vidlbc
from tests.conftest import REPO
from tests.train.image.conftest import TINY, texture
from vidlbc.offline.plan import read_plan
from vidlbc.offline.runner import figure

PLAN = """
minutes: 16
calls: [8, 8]
steps:
  - name: image
    run: tools/pretrain_image.py
    until: 6
    args: ["data.train={data}/pictures", "data.val={data}/pictures/0.png", "eval.qps=[32]", "out={out}",
           "device={device}", train.steps=8, train.size=64, train.batch=2]
    variant: [VARIANT]
  - name: temporal
    run: tools/pretrain_video.py
    until: 12
    done: model/trained.json
    args: ["data.root={data}/list.csv", "image_stage={image}", "out={out}", "device={device}", train.start=scratch,
           train.steps=12, train.size=64, train.frames=3, train.batch=1, train.pool_windows=4, train.save_seconds=0.1]
  - name: audit
    run: tools/offline.py measure
    until: 16
    args: ["model={temporal}", "data={data}/clips", "out={out}", "device={device}", clips=1, frames=3, "what=[symbols]"]
lists: {list.csv: {train: [clips/0.mp4], test: [clips/1.mp4]}}
"""


@pytest.fixture
def data(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    for seed in range(3):
        Image.fromarray(texture(96, 112, seed)).save(folder / "pictures" / f"{seed}.png")
        make_clip(folder / "clips" / f"{seed}.mp4", frames=6, seed=seed)
    return folder


def small_plan(text: str = PLAN) -> str:
    variant = ", ".join(json.dumps(f"image_stage.{key}={value}".replace(" ", "")) for key, value in TINY.items())
    return text.replace("VARIANT", variant)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen processes that import torch: minutes on a busy machine
def test_from_pictures_to_a_model_by_way_of_a_node(tmp_path: Path, run_tool, data: Path):
    (tmp_path / "small.yaml").write_text(small_plan())
    root = tmp_path / "node" / "root"
    told = run_tool(
        "offline", "pack", "plan=small.yaml", "data=data", "out=packs", f"root={root}", "device=cpu", "collect_s=1"
    )
    assert told.returncode == 0, told.stderr
    commands = [line for line in told.stdout.splitlines() if line.startswith("python3 ")]
    assert len(commands) == 2 and max(map(len, commands)) < 2000

    def call(command: str, results: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        (tmp_path / results).mkdir()
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**clean, "PATH": path, "OUT": str(tmp_path / results)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    # The first call, and with it the runner, is killed while the image stage is trained.
    with call(commands[0], "first") as first:
        while not (root / "out" / "image" / "training").is_dir():
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        os.kill(int((root / "runner.pid").read_text()), signal.SIGKILL)
    with call(commands[1], "second") as second:
        printed, _ = second.communicate(timeout=800)
    assert second.returncode == 0 and "the plan is over" in printed, printed
    joined = run_tool("offline", "join", f"results={tmp_path}", "out=model", "log=log.md")
    assert joined.returncode == 0, joined.stderr
    codec = vidlbc.load(tmp_path / "model", "cpu")
    assert codec.kind == "transformer" and codec.fingerprint in (tmp_path / "model" / "README.md").read_text()
    audit = json.loads((tmp_path / "model" / "run" / "audit" / "metrics.json").read_text())
    assert [way["differing"] for way in audit["symbols"]] == [0, 0] and audit["symbols"][0]["symbols"] > 0
    assert "| temporal | 12.0 | done |" in (tmp_path / "log.md").read_text()
    # What shipped plans choose by is what a training leaves.
    plans = [read_plan(path.stem, path.parent) for path in (REPO / "configs" / "offline").glob("*.yaml")]
    chosen_by = {step.choose.by for plan in plans for step in plan.steps if step.choose}
    assert chosen_by and all(figure(root / "out" / "image", by) is not None for by in chosen_by)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen processes that import torch: minutes on a busy machine
def test_a_rehearsal_tells_what_it_did(tmp_path: Path, run_tool, data: Path):
    """One step, which ends by itself; both calls have more time than they need."""
    before, _, _ = PLAN.partition("  - name: temporal")
    (tmp_path / "one.yaml").write_text(small_plan(before + "lists: {}\n"))
    done = run_tool("offline", "dry", "plan=one.yaml", "data=data", "out=dry", timeout=800)
    assert done.returncode == 0, done.stderr
    assert "it had ended" in done.stdout and done.stdout.count("the plan is over") == 3
    assert "step image in" in done.stdout and "decoded both ways: 0 differ" in done.stdout
    assert vidlbc.load(tmp_path / "dry" / "model", "cpu").kind == "none"
    (tmp_path / "dry" / "notes.txt").write_text("mine")
    again = run_tool("offline", "dry", "plan=one.yaml", "data=data", "out=dry")
    assert again.returncode == 2 and "holds notes.txt, which is of no rehearsal" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pack", "plan=none", "data=.", "out=packs"], "plan=none: no such plan or file"),
        (["pack", "plan=five_minutes", "out=packs"], "missing value: pack needs data=..."),
        (["run", "root=.", "results=r"], "no index of a pack"),
        (["send"], "command=send: expected one of pack, run, join, dry, measure"),
    ],
)
def test_bad_input_is_one_line(run_tool, arguments, told):
    done = run_tool("offline", *arguments)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


def test_the_package_runs_the_tools_by_name(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    wanted = {"offline send": "command=send: expected one of pack", "of": "of: no such command"}
    for words, told in wanted.items():
        command = [sys.executable, "-m", "vidlbc", *words.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1
