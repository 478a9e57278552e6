"""tools/shards.py as a user runs it: with a small untrained model, real files and real bytes; and what it counts."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import vidlbc
from tests.codec.small_models import save_small_model
from tests.shards.fakes import FakeCodec
from vidlbc.commands import run_command
from vidlbc.errors import InputError
from vidlbc.shards import EncodingSettings, LatentShards, Manifest, Plan, encode_corpus, make_plan, read_annotations
from vidlbc.shards.maintain.export import export_shards
from vidlbc.shards.maintain.inventory import list_clips, list_shards, statistics
from vidlbc.video import examine

Tool = Callable[..., subprocess.CompletedProcess[str]]
Encode = Callable[..., tuple[Plan, Manifest]]


def test_the_inventory_counts_what_is_there(encode_fake: Encode) -> None:
    plan, manifest = encode_fake()
    folder = Path(plan.output)
    shards = LatentShards(folder, shuffle=False)
    lines = list_shards(folder)
    assert [line.state for line in lines] == ["done"] * len(plan.shards)
    assert sum(line.bytes for line in lines) == manifest.bytes and sum(line.files for line in lines) == 24
    test_b = list_clips(folder, "test", "b")
    assert test_b == list_clips(folder, "test", "1") != []
    assert {(row["split"], row["label_name"]) for row in test_b} == {("test", "b")}
    assert len(list_clips(folder)) == len(shards)
    with pytest.raises(InputError, match="label=z: .* has no such class"):
        list_clips(folder, None, "z")

    found = statistics(folder)
    assert json.loads(json.dumps(found)) == found
    total = found["total"]
    assert (total["clips"], total["frames"], total["bytes"]) == (manifest.n_clips, manifest.frames, manifest.bytes)
    assert total["bpp"] == pytest.approx(manifest.bpp)
    assert total["hours"] * 3600 == pytest.approx(manifest.frames * 1001 / 30000)
    assert total["kbps"] == pytest.approx(8 * manifest.bytes / 1000 / (total["hours"] * 3600))
    for group in ("splits", "classes"):
        assert sum(sums["clips"] for sums in found[group].values()) == manifest.n_clips
    assert found["verdicts"] == {"damaged": 1, "ok": 21, "unreadable": 2} and found["qp"] == {"32": manifest.n_clips}
    (repeat,) = found["repeats"]
    assert set(repeat.values()) == {"train/a/same.mp4", "train/a/clip 01.mp4"} and found["other_samples"] == []

    (folder / "00001_stats.json").unlink()
    (folder / "00002_stats.json").write_bytes(b"\xff{")
    assert [line.state for line in list_shards(folder)][:3] == ["done", "unfinished", "damaged"]


def test_exported_bitstreams_and_latents(encode_fake: Encode, tmp_path: Path) -> None:
    plan, _ = encode_fake()
    shards = LatentShards(plan.output, codec=FakeCodec(), shuffle=False)
    done = export_shards(shards, tmp_path / "bits", "bitstreams")
    assert not [video for video in done if video.problem]
    files = sorted((tmp_path / "bits").rglob("*.vlbc"))
    assert sorted(path.read_bytes() for path in files) == sorted(sample["bitstream"] for sample in shards)
    assert (tmp_path / "bits" / "train" / "a" / "clip 19_0000005.vlbc").is_file()
    listed = list(csv.DictReader((tmp_path / "bits" / "labels.csv").read_text().splitlines()))
    assert {row["path"] for row in listed} == {str(path.relative_to(tmp_path / "bits")) for path in files}
    assert all(row["path"].startswith(f"{row['split']}/{row['label']}/") for row in listed)
    export_shards(shards, tmp_path / "latents", "latents")
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "latents" / "train" / "a" / "clip 19_0000005.safetensors")
    (index,) = [
        i
        for i in range(len(shards))
        if shards.meta(i)["source"].endswith("clip 19.mp4") and shards.meta(i)["start"] == 5
    ]
    levels = FakeCodec().latents(shards.bitstream(index))
    assert [stored[f"level{n}"].tolist() for n in range(2)] == [level.tolist() for level in levels]
    with pytest.raises(InputError, match="expected a new folder"):
        export_shards(shards, plan.output)
    with pytest.raises(InputError, match="format=gif: expected mp4, bitstreams, latents"):
        export_shards(shards, tmp_path / "x", "gif")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "input=x"], "command=check: expected one of list, stats, verify, repair, merge, add, export"),
        (["input=x"], "missing value: give command=... (list, stats,"),
        (["verify", "input=nowhere"], "nowhere: no such folder (expected a folder of shards)"),
        (["list", "input=."], ".: is not a folder of shards"),
        (["merge", "input=."], "merge: expected input=[A,B] and output=FOLDER"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        run_command("shards", arguments, usage="vidlbc shards")
    errors = capsys.readouterr().err
    assert left.value.code == 2 and errors.startswith(f"error: {message}")
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.slow
def test_every_command_by_its_tool(
    run_tool: Tool, make_clip: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_small_model(tmp_path / "model", kinds=())
    for number in range(4):
        split = "test" if number == 3 else "train"
        make_clip(tmp_path / "old" / split / "ab"[number % 2] / f"{number}.mp4", frames=3, size=(32, 48), seed=number)
    make_clip(tmp_path / "new" / "train" / "a" / "4.mp4", frames=3, size=(32, 48), seed=4)
    make_clip(tmp_path / "new" / "train" / "b" / "5.mp4", frames=5, size=(32, 48), seed=5)
    codec = vidlbc.load(str(model), "cpu")

    def encode(name: str) -> Path:
        settings = EncodingSettings(model=str(model), clip_frames=3)
        plan = make_plan(read_annotations(tmp_path / name), tmp_path / f"{name}-shards", codec, settings)
        encode_corpus(plan, codec=codec, bar=False)
        return Path(plan.output)

    def tool(*arguments: str, status: int = 0) -> str:
        """In this process: importing torch for each would take most of the time."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            run_command("shards", arguments, usage="vidlbc shards")
        told = capsys.readouterr()
        assert left.value.code == status, told.out + told.err
        return told.out

    old, new = encode("old"), encode("new")
    assert "usage: vidlbc shards COMMAND key=value" in tool("--help")
    merged = tool("merge", f"input=[{old},{new}]", f"output={tmp_path / 'merged'}")
    assert "6 videos: 6 ok" in merged and "0 files are repeats" in merged
    added = tool("add", f"input={old}", f"videos={tmp_path / 'new'}", "device=cpu")
    assert "2 files added in 1 shards, 0 of them repeats; 0 were there already" in added
    assert "3 of 3 shards done: 7 clips, 20 frames" in tool("list", f"input={old}")
    assert len(tool("list", f"input={old}", "label=b", "split=train").splitlines()) == 2 + 3
    tool("stats", f"input={old}", f"out={tmp_path / 'stats.json'}")
    assert json.loads((tmp_path / "stats.json").read_text())["total"]["frames"] == 20
    for folder in (old, tmp_path / "merged"):
        assert "3 shards, 4 clips decoded: all sound" in tool(
            "verify", f"input={folder}", "decode=true", "every=2", "device=cpu"
        )

    exported = tool("export", f"input={old}", f"output={tmp_path / 'mp4'}", "device=cpu")
    assert "6 videos, 20 frames" in exported
    corpus = read_annotations(tmp_path / "mp4")
    assert corpus.form == "path,label,group,split CSV" and corpus.classes == ("a", "b")
    assert {(item.path, item.label, item.split) for item in corpus.items} == {
        ("train/a/0.mp4", 0, "train"),
        ("train/b/1.mp4", 1, "train"),
        ("train/a/2.mp4", 0, "train"),
        ("test/b/3.mp4", 1, "test"),
        ("train/a/4.mp4", 0, "train"),
        ("train/b/5.mp4", 1, "train"),
    }
    made, verdict = examine(tmp_path / "mp4" / "train" / "b" / "5.mp4")
    assert made is not None and made.fps == 24 and verdict.frames == 5

    meta = LatentShards(old, shuffle=False).meta(0)
    data = bytearray((old / meta["tar"]).read_bytes())
    data[meta["offset"] + 40] ^= 1
    (old / meta["tar"]).write_bytes(data)
    told = tool("verify", f"input={old}", status=1)
    assert f"{meta['tar']}: clip {meta['key']}: its sha256 is not the one recorded" in told
    assert "nothing was changed" in tool("repair", f"input={old}")
    assert "00000: remove: its sources are at hand" in tool("repair", f"input={old}", "apply=true")
    again = run_tool(
        "encode", f"input={tmp_path / 'old'}", f"output={old}", f"model={model}", "clip_frames=3", "device=cpu"
    )
    assert again.returncode == 0, again.stderr
    sound = run_tool("shards", "verify", f"input={old}", "processes=2")
    assert sound.returncode == 0 and sound.stdout == "3 shards: all sound\n"
