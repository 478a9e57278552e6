"""tools/verify.py: another process decodes the shards of a run to the symbols that the sources give."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vidlbc
from tests.pipeline.conftest import REPO, Job, Tool
from vidlbc.errors import VidlbcError
from vidlbc.pipeline.sources import source_frames
from vidlbc.pipeline.verify import verify
from vidlbc.shards import LatentShards


@pytest.mark.slow
def test_every_clip_of_a_run(undisturbed: Job) -> None:
    tool = [sys.executable, str(REPO / "tools" / "verify.py"), f"input={undisturbed.out / 'shards'}"]
    done = subprocess.run([*tool, "other_batch=2", "other_threads=3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    line = r"^15 clips, 120 frames, (\d+) symbols: 0 differ\. 15 clips were compared with a new analysis"
    found = re.search(line, done.stdout, re.M)
    # 48x48 pixels: 12, 6, 3 and 2 cells a side of 2, 4, 4 and 4 channels.
    assert found and int(found[1]) == 120 * (2 * 12**2 + 4 * 6**2 + 4 * 3**2 + 4 * 2**2)


@pytest.mark.slow
def test_without_its_source_a_clip_is_decoded_here_too(undisturbed: Job, motions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(undisturbed.out / "shards", folder)
    plan = folder / "manifest" / "plan.json"
    plan.write_text(plan.read_text().replace(str(motions.parent), str(tmp_path / "gone")))
    model = undisturbed.out / "model"
    codec, shards = vidlbc.load(model, device="cpu"), LatentShards(folder, "test")
    done = verify(shards, codec, model, [0, 2])
    assert (done.clips, done.sources) == (2, 0) and done.symbols > 0


@pytest.mark.slow
def test_other_symbols_are_an_error(undisturbed: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    model = undisturbed.out / "model"
    codec, shards = vidlbc.load(model, device="cpu"), LatentShards(undisturbed.out / "shards", "test")
    monkeypatch.setattr("vidlbc.pipeline.verify.source_frames", lambda *given: 255 - source_frames(*given))
    with pytest.raises(VidlbcError, match="does not hold the symbols of its source"):
        verify(shards, codec, model, [1])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["input=nowhere"], "error: nowhere: no such folder (expected a folder of shards)"),
        (["input=.", "other_batch=0"], "error: other_batch=0: expected a whole number of at least 1"),
        (["input=.", "other_device=tpu"], "error: unknown device 'tpu': expected auto, cpu or cuda"),
    ],
)
def test_bad_input(call_tool: Tool, arguments: list[str], line: str) -> None:
    done = call_tool("verify", *arguments)
    assert done.returncode == 2 and done.stderr.strip() == line
