"""`plan=true`: what an encoding run or the main job would take, and nothing else happens."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.codec.small_models import save_small_model

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def videos(make_clip: Callable[..., Path], tmp_path: Path) -> Path:
    for number in range(5):
        split = "test" if number == 4 else "train"
        make_clip(
            tmp_path / "videos" / split / "ab"[number % 2] / f"{number}.mp4", frames=20, size=(48, 64), seed=number
        )
    return tmp_path / "videos"


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("command", "arguments", "frames"),
    [
        ("encode", ["input={videos}", "output=out", "model={model}"], 100),
        ("encode", ["input={videos}", "output=out", "model={model}", "every=4", "psnr=30"], 25),
        ("pretrain_video", ["data.root={videos}", "out=out", "image_stage={model}", "temporal=none"], 100),
        ("pretrain_video", ["data.root={videos}", "out=out", "image_stage={model}", "temporal=lstm"], 100),
    ],
)
def test_it_is_told_and_nothing_is_done(
    call_tool: Tool, videos: Path, tmp_path: Path, command: str, arguments: list[str], frames: int
) -> None:
    model = save_small_model(tmp_path / "model", kinds=())
    before = files_of(tmp_path)
    given = [text.format(videos=videos, model=model) for text in arguments]
    done = call_tool(command, *given, "device=cpu", "plan=true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 videos, 2 classes" in done.stdout and re.search(r"\b0  a +2 +1\b", done.stdout)
    assert f"about {frames} frames to code, 64x48" in done.stdout
    assert re.search(
        r"shards: about [\d.]+ MB, .*\ntime: about \d+ s at [\d.]+ frames/s, one process here", done.stdout
    )
    assert "nothing was hashed, encoded or written" in done.stdout
    assert ("lstm is still to be trained" in done.stdout) == ("temporal=lstm" in arguments)
    assert files_of(tmp_path) == before


def test_files_that_cannot_be_read_are_named(call_tool: Tool, videos: Path, tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model", kinds=())
    (videos / "train" / "a" / "broken.mp4").write_text("no video")
    done = call_tool("encode", f"input={videos}", "output=out", f"model={model}", "device=cpu", "plan=true")
    assert done.returncode == 0 and "6 files" in done.stdout
    assert re.search(r"not readable: .*broken.mp4: unreadable: ", done.stdout)


def test_what_stops_the_job_stops_its_plan(call_tool: Tool, videos: Path, tmp_path: Path) -> None:
    done = call_tool("pretrain_video", f"data.root={videos}", "out=out", "train.frames=1", "plan=true")
    assert done.returncode == 2 and done.stderr == "error: train.frames=1: expected a whole number of at least 2\n"
