"""Times, pixels' shape and notes of a file go into the shards, and out of them into exported videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import vidlbc
from tests.codec.small_models import save_small_model
from tests.video.test_as_shown import corner, film
from tests.video.test_sequences import frame_folder
from vidlbc.shards import EncodingSettings, LatentShards, decode_shards, encode_corpus, make_plan, read_annotations
from vidlbc.shards.maintain.folder import verify_folder
from vidlbc.shards.maintain.repair import repair_folder
from vidlbc.video import VideoReader, examine

pytestmark = pytest.mark.slow
TIMES = [0, 40, 80, 120, 1500, 1540, 2600, 2640, 2680, 2720, 2760, 2800]  # milliseconds


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> LatentShards:
    model = save_small_model(tmp_path_factory.mktemp("model"), kinds=())
    root, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("out") / "shards"
    film(root / "screen.mp4", [corner()] * 12, pts=TIMES)
    film(root / "wide.mp4", [corner()] * 6, sample_aspect_ratio=Fraction(64, 45))
    film(root / "plain.mp4", [corner()[::-1]] * 6)
    frame_folder(root / "pictures")
    (root / "list.csv").write_text("path\nscreen.mp4\nwide.mp4\nplain.mp4\npictures\n")
    codec = vidlbc.load(model, "cpu", "none")
    plan = make_plan(
        read_annotations(root / "list.csv"),
        out,
        codec,
        EncodingSettings(clip_frames=5, picture_fps=10, temporal="none"),
    )
    encode_corpus(plan, codec=codec, bar=False)
    return LatentShards(out, codec=codec, shuffle=False)


def rows(shards: LatentShards, source: str) -> list:
    found = [shards.meta(index) for index in range(len(shards))]
    return sorted((row for row in found if row["source"] == source), key=lambda row: row["start"])


def test_rows_hold_times_and_shapes_where_they_are_no_usual_ones(shards: LatentShards) -> None:
    screen = rows(shards, "screen.mp4")
    assert [row["frames"] for row in screen] == [5, 5, 2]
    assert np.allclose([time for row in screen for time in row["times"]], np.array(TIMES) * 1000, atol=1000)
    assert all("variable frame rate" in row["verdict"] and row["aspect"] is None for row in screen)
    assert {row["aspect"] for row in rows(shards, "wide.mp4")} == {"64/45"}
    assert all(row["times"] is row["aspect"] is None and row["verdict"] == "ok" for row in rows(shards, "plain.mp4"))
    assert {row["fps"] for row in rows(shards, "pictures")} == {"10"}
    assert verify_folder(shards.folder) == []


def test_they_are_written_into_videos(shards: LatentShards, tmp_path: Path) -> None:
    decode_shards(shards, tmp_path)
    reader = VideoReader(tmp_path / "screen.mp4")
    assert sum(len(block) for block in reader.blocks()) == 12
    assert np.allclose(1000 * np.array(reader.seconds, float), TIMES, atol=1)
    infos = {name: examine(tmp_path / f"{name}.mp4")[0] for name in ("wide", "plain", "pictures")}
    assert {name: info.aspect for name, info in infos.items() if info} == {
        "wide": Fraction(64, 45),
        "plain": 1,
        "pictures": 1,
    }
    assert infos["pictures"] is not None and infos["pictures"].fps == 10
    decode_shards(shards, tmp_path / "constant", fps=25)
    assert str(examine(tmp_path / "constant" / "screen.mp4")[1]) == "ok"


def test_what_was_noted_stands_in_the_summary(shards: LatentShards) -> None:
    lines = (shards.folder / "manifest" / "summary.txt").read_text().splitlines()
    assert any(line.startswith("noted: screen.mp4: variable frame rate, up to ") for line in lines)
    assert "noted: wide.mp4: pixels are 64:45 wide" in lines
    assert not any("plain.mp4" in line for line in lines)


def test_a_table_is_made_again_with_them(shards: LatentShards, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(shards.folder, copy)
    before = {path.name: path.read_bytes() for path in copy.glob("*.parquet")}
    for path in copy.glob("*.parquet"):
        path.unlink()
    assert {repair.action for repair in repair_folder(copy, apply=True)} == {"rewrite"}
    assert {path.name: path.read_bytes() for path in copy.glob("*.parquet")} == before
