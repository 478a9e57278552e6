"""Shards of layered streams and of a ratio per clip: what is read of them, and what the rows say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import vidlbc
from tests.codec.small_models import save_small_model
from vidlbc.errors import InputError, ShardError
from vidlbc.shards import LatentShards

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variants = {"V2": [1, 2, 2, 3], "V3": [0, 0, 2, 3]}
    return save_small_model(tmp_path_factory.mktemp("model"), kinds=("lstm",), base_levels=2, variants=variants)


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    for number in range(3):
        make_clip(tmp_path / "videos" / "ab"[number % 2] / f"{number}.mp4", frames=4, seed=number)
    return tmp_path / "videos"


def encode(call_tool: Tool, videos: Path, model: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return call_tool("encode", f"input={videos}", f"model={model}", f"output={out}", "device=cpu", "holdout=0", *more)


@pytest.mark.slow
def test_a_reader_of_the_base_reads_only_its_bytes(
    call_tool: Tool, videos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shards"
    done = encode(call_tool, videos, model, out)
    assert done.returncode == 0, done.stderr
    whole = LatentShards(out, mode="latents", shuffle=False)
    taken: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: (data := pread(*args), taken.append(len(data)))[0])
    base = LatentShards(out, mode="latents", shuffle=False, base=True)
    for index in range(len(base)):
        taken.clear()
        sample = base[index]
        row = sample["meta"]
        assert taken == [row["base_bytes"]] and 0 < row["base_bytes"] < row["bytes"]
        assert len(sample["latents"]) == 2
        full = whole[index]["latents"]
        assert all(torch.equal(a, b) for a, b in zip(sample["latents"], full[2:], strict=True))
        assert whole[index]["bitstream"].startswith(sample["bitstream"])
        part = base.span(index, 1, 3)["latents"]
        assert all(torch.equal(a, b[1:3]) for a, b in zip(part, sample["latents"], strict=True))

    # Damage behind the base does not reach its reader; damage in it is told.
    row = base.meta(0)
    with open(out / row["tar"], "r+b") as tar:
        tar.seek(row["offset"] + row["bytes"] - 9)
        tar.write(b"?????????")
    assert torch.equal(base[0]["latents"][0], full_base(model, base[0]["bitstream"]))
    with pytest.raises(ShardError, match="damaged"):
        whole[0]
    with open(out / row["tar"], "r+b") as tar:
        tar.seek(row["offset"] + 50)
        tar.write(b"?????????")
    with pytest.raises(ShardError, match="damaged"):
        base[0]


def full_base(model: Path, data: bytes) -> torch.Tensor:
    return vidlbc.load(model, device="cpu").latents(data, base=True)[0]


def test_frames_and_models_without_layers_need_the_whole(call_tool: Tool, videos: Path, tmp_path: Path) -> None:
    plain = save_small_model(tmp_path / "plain", kinds=())
    assert encode(call_tool, videos, plain, tmp_path / "shards").returncode == 0
    assert not LatentShards(tmp_path / "shards").plan.settings.rdo  # by itself only where priors see the past
    with pytest.raises(ShardError, match="has no base layer"):
        LatentShards(tmp_path / "shards", base=True)[0]
    with pytest.raises(InputError, match="^mode=frames needs the whole bitstream"):
        LatentShards(tmp_path / "shards", mode="frames", base=True)


@pytest.mark.slow
def test_a_ratio_per_clip_is_in_rows_and_headers_and_verifies(
    call_tool: Tool, videos: Path, model: Path, tmp_path: Path
) -> None:
    done = encode(call_tool, videos, model, tmp_path / "psnr", "psnr=4.5")
    assert done.returncode == 0, done.stderr
    shards = LatentShards(tmp_path / "psnr")
    for index in range(len(shards)):
        row, info = shards.meta(index), vidlbc.inspect(shards.bitstream(index))
        assert row["qp"] == info.qp and list(info.kept) == {"V2": [1, 2, 2, 3], "V3": [0, 0, 2, 3]}[row["variant"]]
    done = call_tool("verify", f"input={tmp_path / 'psnr'}", f"model={model}", "device=cpu")
    assert done.returncode == 0 and ": 0 differ. 3 clips were compared with a new analysis" in done.stdout

    done = encode(call_tool, videos, model, tmp_path / "v3", "variant=V3")
    assert done.returncode == 0, done.stderr
    assert set(LatentShards(tmp_path / "v3").table["variant"].to_pylist()) == {"V3"}


@pytest.mark.slow
def test_chosen_symbols_and_bitrates_are_in_the_rows_and_verify(
    call_tool: Tool, videos: Path, model: Path, tmp_path: Path
) -> None:
    done = encode(call_tool, videos, model, tmp_path / "shards", "bitrate=60", "shard_videos=2", "rdo=true")
    assert done.returncode == 0, done.stderr
    shards = LatentShards(tmp_path / "shards")
    assert len(shards) == 3 and shards.plan.settings.rdo
    for index in range(3):
        row = shards.meta(index)
        assert row["rdo"] is True and row["target"] == "bitrate=60" and vidlbc.inspect(shards.bitstream(index)).skip > 0
        kbps = 8 * row["bytes"] * Fraction(row["fps"]) / row["frames"] / 1000
        assert row["reached"] == pytest.approx(float(kbps), abs=1e-3) and row["reached"] <= 60
    done = call_tool("verify", f"input={tmp_path / 'shards'}", f"model={model}", "device=cpu")
    assert done.returncode == 0 and ": 0 differ. 3 clips were compared with a new analysis" in done.stdout, done.stderr

    # A run that goes on where it stopped ends with the same bytes.
    before = (tmp_path / "shards" / "00001.tar").read_bytes()
    for name in ("00001.tar", "00001_stats.json"):
        (tmp_path / "shards" / name).unlink()
    assert (
        encode(call_tool, videos, model, tmp_path / "shards", "bitrate=60", "shard_videos=2", "rdo=true").returncode
        == 0
    )
    assert (tmp_path / "shards" / "00001.tar").read_bytes() == before
    done = encode(call_tool, videos, model, tmp_path / "shards", "bitrate=60", "shard_videos=2", "rdo=false")
    assert done.returncode == 2 and "rdo=True there, rdo=False here" in done.stderr


@pytest.mark.slow
def test_a_run_begun_before_symbols_were_chosen_goes_on_as_it_began(
    call_tool: Tool, videos: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    assert encode(call_tool, videos, model, out, "rdo=false").returncode == 0
    before, plan = (out / "00000.tar").read_bytes(), out / "manifest" / "plan.json"
    settings = json.loads(plan.read_text())
    for name in ("rdo", "bitrate"):
        del settings["settings"][name]
    plan.write_text(json.dumps(settings))
    for name in ("00000.tar", "00000_stats.json"):
        (out / name).unlink()
    done = encode(call_tool, videos, model, out)
    assert done.returncode == 0 and (out / "00000.tar").read_bytes() == before, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, message",
    [
        (("variant=V9",), "unknown variant 'V9': this model has V2, V3"),
        (("psnr=-1",), "psnr=-1: expected dB above 0 and below 100, or null"),
        (("psnr=30", "variant=V2"), "psnr and variant are both given: expected one of psnr, bitrate, bpp_per_db and "),
        (("bitrate=0",), "bitrate=0: expected kbit/s above 0 and below 1000000000, or null"),
        (("bitrate=fast",), "bitrate=fast: expected a number or null"),
        (("rdo=sure",), "rdo=sure: expected true, false or null"),
        (("effort=slow",), "effort='slow': expected fast, default, best"),
        (("keyint=-1",), "keyint=-1: expected a number of frames, 0 or more"),
        (("psnr=30", "bitrate=200"), "psnr and bitrate are both given: expected one of psnr, bitrate, bpp_per_db and"),
        (("bpp_per_db=0",), "bpp_per_db=0: expected bits per pixel above 0 and below 100, or null"),
    ],
)
def test_bad_requests(call_tool: Tool, videos: Path, model: Path, tmp_path: Path, options, message) -> None:
    done = encode(call_tool, videos, model, tmp_path / "out", *options)
    assert done.returncode == 2 and message in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_shards_written_before_there_were_layers_still_open(call_tool: Tool, videos: Path, tmp_path: Path) -> None:
    plain = save_small_model(tmp_path / "plain", kinds=())
    assert encode(call_tool, videos, plain, tmp_path / "shards").returncode == 0
    place = tmp_path / "shards" / "00000.parquet"
    size = place.stat().st_size
    later = ["variant", "rdo", "target", "reached", "base_bytes", "base_sha256"]
    pq.write_table(pq.read_table(place).drop_columns(later), place)
    stats = tmp_path / "shards" / "00000_stats.json"
    stats.write_text(stats.read_text().replace(f'"parquet_bytes": {size}', f'"parquet_bytes": {place.stat().st_size}'))
    shards = LatentShards(tmp_path / "shards", mode="latents")
    assert shards.meta(0)["variant"] is None and len(shards[0]["latents"]) == 4
