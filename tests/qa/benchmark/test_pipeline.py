"""`tools/benchmark.py pipeline` and `reading`: every stage and the whole are timed, and the figures fit each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.run.stage_clock import STAGES
from vidlbc.video import write_mp4

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small", 3, kinds=("lstm",))


def benchmark(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPO / "tools" / "benchmark.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_stages_alone_and_the_whole(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "pipeline.json"
    done = benchmark("pipeline", f"model={model}", "videos=3", "video_frames=12", "size=48", "rounds=1", f"out={out}")
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["frames"] == 36 and figures["pixels"] == 36 * 48 * 48
    alone = {stage["name"]: stage["fps"] for stage in figures["stages"]}
    assert [*alone] == [name for name in STAGES if name not in ("transfer", "rest")]
    assert figures["bound"] == pytest.approx(1 / sum(1 / fps for fps in alone.values()))
    whole = {run["name"]: run["fps"] for run in figures["whole"]}
    assert set(whole) == {"the whole", "the whole, rdo"} and 0 < min(whole.values())
    slowest = min(alone, key=lambda name: alone[name])
    assert f"{slowest} (slowest)" in done.stdout and "<- slowest" in done.stdout
    assert f"{whole['the whole'] / figures['bound']:.1%}" in done.stdout


@pytest.mark.slow
def test_reading_beside_decoding_the_videos(model: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for seed in range(2):
        write_mp4(tmp_path / "videos" / f"{seed}.mp4", noisy_frames(6, 32, 32, seed), 25)
    encode = [sys.executable, str(REPO / "tools" / "encode.py"), f"input={tmp_path / 'videos'}", f"model={model}"]
    subprocess.run([*encode, f"output={tmp_path / 'shards'}"], check=True, capture_output=True, timeout=300)
    out = tmp_path / "reading.json"
    done = benchmark("reading", f"shards={tmp_path / 'shards'}", f"model={model}", "rounds=1", f"out={out}")
    assert done.returncode == 0, done.stderr
    rows = {row["reader"]: row for row in json.loads(out.read_text())["reading"]}
    files = max(row["clips_per_s"] for name, row in rows.items() if name.startswith("source files"))
    assert all(row["ratio"] == pytest.approx(row["clips_per_s"] / files) for row in rows.values())
    assert {"latents, lstm", "latents, lstm, later epochs (symbols cached)"} <= set(rows)


@pytest.mark.slow
def test_no_shards_is_one_line() -> None:
    done = benchmark("reading")
    assert done.returncode != 0 and "expected a folder of shards, as vidlbc encode writes it" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
