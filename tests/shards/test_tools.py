"""tools/encode.py and tools/decode.py as a user runs them, with a small untrained model; real files, real bytes."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vidlbc
from tests.codec.small_models import save_small_model
from tests.shards.fakes import FakeCodec
from vidlbc.shards import EncodingSettings, LatentShards, decode_shards, encode_corpus, make_plan, read_annotations
from vidlbc.video import examine, read_blocks

Tool = Callable[..., subprocess.CompletedProcess[str]]
Clip = Callable[..., Path]
GOLDENS = Path(__file__).resolve().parents[1] / "goldens"


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose untrained weights code quickly."""
    return save_small_model(tmp_path_factory.mktemp("model"), kinds=())


@pytest.fixture
def corpus(tmp_path: Path, make_clip: Clip) -> Path:
    """root/class/video without a split; two files that are not videos among them."""
    root = tmp_path / "videos"
    for number in range(6):
        make_clip(root / "ab"[number % 2] / f"clip {number}.mp4", frames=6 if number else 1, seed=number)
    (root / "a" / "picture.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    (root / "a" / "empty.mp4").write_bytes(b"")
    return root


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_encode_and_decode(run_tool: Tool, call_tool: Tool, corpus: Path, small_model: Path, tmp_path: Path) -> None:
    common = (f"input={corpus}", f"model={small_model}", "device=cpu", "clip_frames=4", "shard_videos=2")
    done = run_tool("encode", *common, f"output={tmp_path / 'shards'}")
    assert done.returncode == 0, done.stderr
    assert "root/class/video folders, 20% held out by group): 8 videos, 2 classes" in done.stdout
    assert "8 videos: 6 ok, 0 damaged, 2 unreadable; 0 repeats" in done.stdout
    assert "a/picture.mp4" in done.stdout and "a/empty.mp4" in done.stdout

    codec = vidlbc.load(str(small_model), device="cpu")
    shards = LatentShards(tmp_path / "shards", mode="frames", codec=codec, shuffle=False)
    assert set(shards.table["split"].to_pylist()) == {"train", "test"}
    assert sum(len(sample["frames"]) for sample in shards) == 5 * 6 + 1
    sample = shards[0]
    info = vidlbc.inspect(sample["bitstream"])
    assert (info.qp, info.fps, info.frames) == (32, 24, sample["meta"]["frames"])
    source = np.concatenate(list(read_blocks(corpus / sample["meta"]["source"])))
    expected = codec.compress(source[sample["meta"]["start"] : sample["meta"]["stop"]], qp=32, fps=24)
    assert sample["bitstream"] == expected

    again = call_tool("encode", *common, f"output={tmp_path / 'shards'}")
    assert again.returncode == 0
    count = len(shards.plan.shards)
    assert f"{count} shards, {count} of them from earlier runs" in again.stdout

    decoded = run_tool("decode", f"input={tmp_path / 'shards'}", f"output={tmp_path / 'mp4'}")
    assert decoded.returncode == 0, decoded.stderr
    for path in corpus.rglob("clip*.mp4"):
        name = path.relative_to(corpus)
        made, verdict = examine(tmp_path / "mp4" / name)
        assert made is not None and made.fps == 24 and verdict.frames == (1 if "0" in path.name else 6)

    (tmp_path / "one.vlbc").write_bytes(sample["bitstream"])
    single = call_tool(
        "decode", f"input={tmp_path / 'one.vlbc'}", f"output={tmp_path / 'png'}", "format=png", f"model={small_model}"
    )
    assert single.returncode == 0, single.stderr
    pictures = sorted((tmp_path / "png" / "one").glob("*.png"))
    frames = [np.asarray(Image.open(path)) for path in pictures]
    assert np.array_equal(np.stack(frames), sample["frames"])

    tar = tmp_path / "shards" / sample["meta"]["tar"]
    data = bytearray(tar.read_bytes())
    data[sample["meta"]["offset"] + 40] ^= 1
    tar.write_bytes(data)
    results = decode_shards(LatentShards(tmp_path / "shards", codec=codec), tmp_path / "rest")
    (failed,) = [video for video in results if video.problem]
    assert "damaged (its sha256 is not the one recorded)" in failed.problem and not failed.path.exists()
    assert sum(video.path.is_file() for video in results) == len(results) - 1 == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("encode", ["input=nowhere", "output=out"], "error: nowhere: no such file or folder (expected a folder"),
        ("encode", ["input=empty", "output=out"], "error: empty: no videos (the folder is empty)"),
        ("encode", ["input=empty", "output=out", "qp=64"], "error: qp=64: expected a whole number from 0 to 63"),
        ("decode", ["input=nowhere", "output=out"], "error: nowhere: no such file or folder (expected a folder of"),
        ("decode", ["input=empty", "output=out"], "is not a folder of shards"),
        ("decode", ["input=empty", "output=out", "format=gif"], "error: format=gif: expected mp4 or png"),
        ("decode", ["input=text.vlbc", "output=out"], "error: text.vlbc: "),
    ],
)
def test_bad_input_is_one_line(call_tool: Tool, tmp_path: Path, tool: str, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.vlbc").write_text("this is no bitstream, however long it goes on")
    done = call_tool(tool, *arguments)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_bitstream_larger_than_memory_is_read_packet_by_packet(run_tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "long.vlbc"
    path.write_bytes((GOLDENS / "lstm.vlbc").read_bytes())
    os.truncate(path, 1 << 40)  # a sparse file
    done = run_tool("decode", f"input={path}", f"output={tmp_path / 'out'}")
    assert done.returncode == 2 and "damaged bitstream: more bytes after the end record" in done.stderr


@pytest.mark.slow
def test_hostile_files_all_get_a_verdict(shared_data: Path, tmp_path: Path) -> None:
    """86 broken, odd and unusual files through the real reader; the fake codec, since pictures are not the matter."""
    corpus = read_annotations(shared_data / "hostile")
    settings = EncodingSettings(max_side=64, deadline_s=20)
    plan = make_plan(corpus, tmp_path / "out", FakeCodec(), settings, shard_videos=100)
    manifest, _ = encode_corpus(plan, codec=FakeCodec(), bar=False)
    assert manifest.n_videos == len(list((shared_data / "hostile").iterdir())) - 1
    by_name = {file["path"]: file for file in manifest.files}
    assert by_name["made__zero_length.mp4"]["status"] == "unreadable"
    assert by_name["made__text_named.mp4"]["status"] == "unreadable"
    assert (by_name["dmlc__corrupted.mp4"]["status"], by_name["dmlc__corrupted.mp4"]["frames"]) == ("damaged", 28)
    assert by_name["meta-pyt__h265_10bits.mp4"]["status"] == "ok"
    assert all(file["reason"] for file in manifest.troubled)
    assert sum(len(sample["bitstream"]) for sample in LatentShards(tmp_path / "out")) == manifest.bytes


@pytest.mark.slow
def test_memory_does_not_grow_with_length(make_clip: Clip, tmp_path: Path) -> None:
    """Ten times the frames in one clip: the codec still sees single blocks, and the peak of what is held stays."""
    peaks = []
    for frames in (80, 80, 800):  # the first run imports what is needed
        path = make_clip(tmp_path / f"{frames}.mp4", frames=frames, size=(48, 48))
        codec = FakeCodec()
        out = tmp_path / f"out{len(peaks)}"
        plan = make_plan(read_annotations(path), out, codec, EncodingSettings(clip_frames=1000, block=7))
        tracemalloc.start()
        manifest, _ = encode_corpus(plan, codec=codec, bar=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (manifest.frames, manifest.n_clips, codec.largest_block) == (frames, 1, 7)
    assert peaks[2] < peaks[1] + 1_000_000 < 800 * 48 * 48 * 3  # bytes; the pictures are 5.5 MB, the clip 4 MB


@pytest.mark.slow
def test_several_inputs_patterns_and_brackets(
    call_tool: Tool, make_clip: Clip, small_model: Path, tmp_path: Path
) -> None:
    """A list of inputs, a pattern, and folders whose names are written as lists and patterns are."""
    for folder in ("a b", "c", "[2024]", "[d,e]"):
        make_clip(tmp_path / "in" / folder / "x.mp4", frames=3, seed=len(folder))
    common = (f"model={small_model}", "device=cpu", "output=out", "plan=true")
    for given, count in (
        ("in/[2024]", 1),
        ("in/[d,e]", 1),
        ("[in/c,in/a b]", 2),
        ("in/*", 4),
        ("in/*/x.mp4", 4),
    ):
        done = call_tool("encode", f"input={given}", *common)
        assert done.returncode == 0, (given, done.stderr)
        assert f"): {count} videos, " in done.stdout, (given, done.stdout)
    for given, message in (("in/z*", "in/z*: no file or folder matches"), ("[]", "no input: expected a folder")):
        done = call_tool("encode", f"input={given}", *common)
        assert done.returncode == 2 and message in last_line(done)
