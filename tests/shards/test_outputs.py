"""Decoding and exporting into folders that hold something: nothing of others is replaced, a stopped run goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import vidlbc
from tests.codec.small_models import save_small_model
from vidlbc.errors import InputError
from vidlbc.run.outputs import RECORD, Outputs
from vidlbc.shards import EncodingSettings, LatentShards, decode_shards, encode_corpus, make_plan, read_annotations
from vidlbc.shards.decode import FORMATS
from vidlbc.shards.maintain.export import EXPORTS, export_shards

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model"), kinds=())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        make_clip(folder / "ab"[number % 2] / f"{number}.mp4", frames=3, size=(32, 32), seed=number)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, model: Path, videos: Path) -> LatentShards:
    codec = vidlbc.load(model, "cpu")
    settings = EncodingSettings(model=str(model), temporal="none", clip_frames=2)
    plan = make_plan(read_annotations(videos), tmp_path_factory.mktemp("shards") / "out", codec, settings)
    encode_corpus(plan, codec=codec, bar=False)
    return LatentShards(plan.output, codec=codec)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != RECORD}


@pytest.mark.slow
def test_the_sources_are_not_replaced(shards: LatentShards, videos: Path, model: Path, call_tool: Tool) -> None:
    before = contents(videos)
    done = call_tool("decode", f"input={shards.folder}", f"output={videos}")
    assert done.returncode == 2 and done.stdout == ""
    line = f"error: {videos}/a/0.mp4 and 2 others of 3: already there, and not written by this run; choose another"
    assert done.stderr == f"{line} output, or replace with overwrite=true\n"
    assert contents(videos) == before and not (videos / RECORD).exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_stopped_run_goes_on(shards: LatentShards, tmp_path: Path, form: str) -> None:
    class Stop(Exception):
        pass

    def stop_at(count: int) -> Callable[[object], None]:
        seen: list[object] = []

        def progress(video: object) -> None:
            seen.append(video)
            if len(seen) == count:
                raise Stop

        return progress

    whole = decode_shards(shards, tmp_path / "calm", form)
    assert len(whole) == 3 and not any(video.earlier for video in whole)
    with pytest.raises(Stop):
        decode_shards(shards, tmp_path / "out", form, progress=stop_at(2))
    with open(tmp_path / "out" / RECORD, "a") as file:
        file.write('{"path": "b/1.mp4", "ma')  # and the line that a kill cut
    again = decode_shards(shards, tmp_path / "out", form)
    assert [video.earlier for video in again] == [True, True, False]
    assert [video.frames for video in again] == [video.frames for video in whole] == [3, 3, 3]
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")


@pytest.mark.slow
def test_pictures_of_a_stopped_run_and_of_others(shards: LatentShards, tmp_path: Path) -> None:
    decode_shards(shards, tmp_path, "png")
    record = (tmp_path / RECORD).read_text().splitlines()
    rows = [line for line in record if json.loads(line)["path"] == "a/0"]
    (tmp_path / RECORD).write_text(rows[0] + "\n")  # begun, not ended
    (tmp_path / "a" / "0" / "000002.png").unlink()
    for name in ("a/2", "b/1"):
        for picture in (tmp_path / name).iterdir():
            picture.unlink()
    assert [video.frames for video in decode_shards(shards, tmp_path, "png")] == [3, 3, 3]
    (tmp_path / "a" / "0" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="a/0: already there"):
        decode_shards(shards, tmp_path, "png")
    (tmp_path / "a" / "0" / "000007.png").write_bytes(b"of a longer video")
    decode_shards(shards, tmp_path, "png", overwrite=True)
    assert {path.name for path in (tmp_path / "a" / "0").iterdir()} == {
        "000000.png",
        "000001.png",
        "000002.png",
        "notes.txt",
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_replaces_nothing_of_others(shards: LatentShards, tmp_path: Path, form: str) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "labels.csv").write_text("path,label\n")
    (out / "holiday.mp4").write_bytes(b"a film")
    with pytest.raises(InputError, match="mine: expected a new folder, one of an earlier export, or overwrite=true"):
        export_shards(shards, out, form)
    assert contents(out) == {"labels.csv": b"path,label\n", "holiday.mp4": b"a film"}
    assert not any(video.earlier for video in export_shards(shards, out, form, overwrite=True))
    made = contents(out)
    assert made.pop("holiday.mp4") == b"a film" and len(made) > 3
    assert all(video.earlier for video in export_shards(shards, out, form))
    changed = next(path for path in sorted(out.rglob("*")) if path.suffix not in (".csv", "", ".json", ".jsonl"))
    changed.write_bytes(b"edited")
    if changed.name != "holiday.mp4":
        with pytest.raises(InputError, match=f"{changed.name}: already there"):
            export_shards(shards, out, form)
        assert changed.read_bytes() == b"edited"


@pytest.mark.slow
def test_one_bitstream(shards: LatentShards, model: Path, tmp_path: Path, call_tool: Tool) -> None:
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "clip.vlbc").write_bytes(shards.bitstream(number))
    (tmp_path / "clip.mp4").write_bytes(b"the source")
    words = (f"input={tmp_path}/0/clip.vlbc", f"model={model}", f"output={tmp_path}")
    refused = call_tool("decode", *words)
    assert refused.returncode == 2 and "clip.mp4: already there" in refused.stderr
    assert (tmp_path / "clip.mp4").read_bytes() == b"the source"
    assert call_tool("decode", *words, "overwrite=true").returncode == 0
    again = call_tool("decode", *words)
    assert again.returncode == 0 and "1 videos (1 of them by an earlier run), 0 frames" in again.stdout
    other = call_tool("decode", f"input={tmp_path}/1/clip.vlbc", *words[1:])
    assert other.returncode == 2 and "clip.mp4: already there" in other.stderr


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file, expected a folder"):
        Outputs(tmp_path / "file").check({})
