"""Repair: what the tar still tells is written again to the byte; what it does not is told, never lost in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.shards.test_encode import shard_bytes
from vidlbc.shards import LatentShards, Manifest, Plan
from vidlbc.shards.maintain.folder import verify_folder
from vidlbc.shards.maintain.repair import repair_folder

Encode = Callable[..., tuple[Plan, Manifest]]


@pytest.fixture
def folder(encode_fake: Encode) -> Path:
    return Path(encode_fake()[0].output)


def whole(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in shard_bytes(folder).items() if "removed" not in name}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def damage_clip(folder: Path, index: int = 0) -> dict[str, object]:
    """Flip a bit of one bitstream; returns its row."""
    meta = LatentShards(folder, shuffle=False).meta(index)
    flip(folder / meta["tar"], meta["offset"] + 9)
    return meta


@pytest.mark.slow
@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("lost", [[".parquet"], ["_stats.json"], [".parquet", "_stats.json"]])
def test_table_and_stats_are_made_again_to_the_byte(
    folder: Path, fake_corpus: Path, lost: list[str], manifest: bool
) -> None:
    """Also without the videos; without the manifest wherever all files of the shard gave clips."""
    expected = whole(folder)
    shutil.rmtree(fake_corpus)
    silent = [i for i in range(6) if json.loads((folder / f"0000{i}_stats.json").read_text())["n_failed"] == 0]
    shards = range(6) if manifest else silent
    for index in shards:
        for suffix in lost:
            (folder / f"0000{index}{suffix}").unlink()
    if not manifest:
        (folder / "manifest" / "manifest.parquet").unlink()
    dry = repair_folder(folder)
    assert [repair.action for repair in dry] == ["rewrite"] * len(shards)
    assert not (folder / f"0000{shards[0]}{lost[0]}").exists()  # nothing is done without apply
    repair_folder(folder, apply=True)
    assert whole(folder) == expected
    assert verify_folder(folder) == [] and repair_folder(folder, apply=True) == []


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_flip_that_spares_the_bitstreams_is_mended_to_the_byte(folder: Path, data: st.DataObject) -> None:
    expected = whole(folder)
    path = folder / data.draw(st.sampled_from(sorted(path.name for path in folder.glob("00001*"))))
    inside = [
        (meta["offset"], meta["offset"] + meta["bytes"])
        for meta in map(LatentShards(folder).meta, range(len(LatentShards(folder))))
        if meta["tar"] == path.name
    ]
    at = data.draw(
        st.integers(0, path.stat().st_size - 1).filter(lambda at: not any(low <= at < high for low, high in inside))
    )
    flip(path, at)
    try:
        (repair,) = repair_folder(folder, apply=True)
        assert repair.action == "rewrite" and whole(folder) == expected
        kept = folder / "manifest" / "removed" / repair.why.rpartition("/")[2]
        assert (kept / f"{path.name}.removed").read_bytes() != expected[path.name]
        assert json.loads((kept / "why.json").read_text())["problems"]
    finally:
        for name, data in expected.items():
            (folder / name).write_bytes(data)


def test_a_damaged_clip_is_encoded_again_where_its_source_is_at_hand(folder: Path, encode_fake: Encode) -> None:
    expected = whole(folder)
    damage_clip(folder)
    (repair,) = repair_folder(folder, apply=True, drop=True)
    assert repair.action == "remove" and not (folder / "00000.tar").exists()
    assert (folder / "manifest/removed/00000.1/00000.tar.removed").stat().st_size == len(expected["00000.tar"])
    encode_fake()
    assert whole(folder) == expected and verify_folder(folder) == []


def test_a_damaged_clip_is_dropped_only_when_told_to(folder: Path, fake_corpus: Path) -> None:
    before = LatentShards(folder, shuffle=False)
    keys = [before.meta(index)["key"] for index in range(len(before))]
    shutil.rmtree(fake_corpus)
    meta = damage_clip(folder, 3)
    damaged = whole(folder)
    (repair,) = repair_folder(folder, apply=True)
    assert (repair.action, repair.lost) == ("leave", 1) and "drop=true keeps the others" in repair.why
    assert whole(folder) == damaged
    (repair,) = repair_folder(folder, apply=True, drop=True)
    assert (repair.action, repair.lost) == ("drop", 1)
    after = LatentShards(folder, shuffle=False)
    assert [sample["key"] for sample in after] == [key for key in keys if key != meta["key"]]
    assert verify_folder(folder) == []
    stats = json.loads((folder / f"{repair.shard}_stats.json").read_text())
    assert [clip["key"] for clip in stats["dropped"]] == [meta["key"]]
    assert "clips dropped by a repair" in (folder / "manifest" / "summary.txt").read_text()
    kept = folder / "manifest" / "removed" / f"{repair.shard}.1" / f"{repair.shard}.tar.removed"
    assert kept.read_bytes() == damaged[str(meta["tar"])]


def test_a_cut_tar_keeps_its_first_clips(folder: Path, fake_corpus: Path) -> None:
    shutil.rmtree(fake_corpus)
    last = LatentShards(folder, shuffle=False).meta(3)
    assert last["tar"] == "00000.tar"
    (folder / "00000.tar").write_bytes((folder / "00000.tar").read_bytes()[: last["offset"] + 5])
    (repair,) = repair_folder(folder, apply=True, drop=True)
    assert repair.action == "drop" and repair.kept == 3 and verify_folder(folder) == []


def test_a_tar_of_which_nothing_is_left(folder: Path, fake_corpus: Path) -> None:
    shutil.rmtree(fake_corpus)
    (folder / "00000.tar").write_bytes(b"garbage" * 999)
    (repair,) = repair_folder(folder, apply=True, drop=True)
    assert repair.action == "leave" and (folder / "00000.tar").read_bytes() == b"garbage" * 999
