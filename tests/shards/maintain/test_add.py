"""New videos come behind the old ones, which stay to the byte; merging gives what adding would have given."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shards.fakes import FakeCodec, FakeReader, fake_frames
from tests.shards.test_encode import shard_bytes
from tests.shards.test_stock_tools import _BLOCK, _WEBDATASET
from vidlbc.errors import InputError, ShardError, VidlbcError
from vidlbc.shards import EncodingSettings, LatentShards, Manifest, Plan, encode_corpus, make_plan, read_annotations
from vidlbc.shards.maintain.add import Added, add_videos
from vidlbc.shards.maintain.folder import verify_folder
from vidlbc.shards.maintain.merge import Merged, merge_folders
from vidlbc.shards.maintain.repair import repair_folder

Encode = Callable[..., tuple[Plan, Manifest]]


@pytest.fixture
def folder(encode_fake: Encode) -> Path:
    return Path(encode_fake()[0].output)


@pytest.fixture
def more(fake_corpus: Path, tmp_path: Path) -> Path:
    """Seven more videos: four new, one of them named as an old one, one repeat, one under another label, one broken."""
    root = tmp_path / "more"
    old = (fake_corpus / "train" / "a" / "clip 01.mp4").read_text()
    texts = {
        "train/a/clip 01.mp4": "7 16 20 501",
        "train/b/new 1.mp4": "6 16 16 502",
        "train/c/new 2.mp4": "5 16 16 503",
        "test/a/new 3.mp4": "5 17 16 504",
        "train/a/again.mp4": old,
        "train/b/other label.mp4": old,
        "test/b/broken.mp4": "no video",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def add(folder: Path, videos: Path, codec: FakeCodec | None = None, **options: Any) -> Added:
    codec = codec or FakeCodec()
    corpus = read_annotations(videos)
    return add_videos(folder, corpus, codec, shard_videos=2, open_reader=FakeReader, bar=False, **options)


def state(folder: Path, shards: int) -> dict[str, tuple[str, int]]:
    names = [path for path in folder.iterdir() if path.is_file() and int(path.name[:5]) < shards]
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in names}


def test_what_is_there_is_not_touched_and_the_manifest_covers_both(folder: Path, more: Path) -> None:
    count = len(Plan.load(folder).shards)
    before, keys = state(folder, count), {sample["key"] for sample in LatentShards(folder)}
    added = add(folder, more)
    assert state(folder, count) == before and len(before) == 3 * count
    assert (added.first_shard, added.files, added.repeats, added.listed) == (count, 7, 1, 0)
    assert added.manifest.n_videos == 24 + 7 and added.manifest.n_failed == 2 + 1 and added.manifest.n_repeats == 1 + 1
    assert verify_folder(folder) == []
    shards = LatentShards(folder, mode="frames", codec=FakeCodec(), shuffle=False)
    assert keys < {sample["key"] for sample in shards}
    new = [sample for sample in shards if int(sample["meta"]["tar"][:5]) >= count]
    assert {Path(shards.root_of(sample["meta"])) for sample in new} == {more}
    for sample in new:
        frames, height, width, seed = map(int, (more / sample["meta"]["source"]).read_text().split())
        start, stop = sample["meta"]["start"], sample["meta"]["stop"]
        assert np.array_equal(sample["frames"], fake_frames(frames, height, width, seed)[start:stop])
        assert sample["label_name"] == sample["meta"]["source"].split("/")[1]
    assert len({sample["meta"]["source"] for sample in new}) == 5  # the repeat and the broken one gave none


def test_added_again_nothing_happens_and_encoding_goes_on_as_before(
    folder: Path, more: Path, encode_fake: Encode
) -> None:
    add(folder, more)
    before = shard_bytes(folder)
    again = add(folder, more)
    assert (again.files, again.listed) == (0, 7) and shard_bytes(folder) == before
    encode_fake()  # the first run's own command
    assert shard_bytes(folder) == before
    (folder / "00007.parquet").unlink()
    encode_fake()
    assert shard_bytes(folder) == before


def test_files_that_came_into_the_same_folder(folder: Path, fake_corpus: Path) -> None:
    (fake_corpus / "train" / "a" / "late.mp4").write_text("5 16 16 900")
    added = add(folder, fake_corpus)
    assert (added.files, added.repeats, added.listed) == (1, 0, 24)
    assert added.manifest.n_videos == 25 and verify_folder(folder) == []


class Killed(FakeCodec):
    def compress_stream(self, *args: Any, **options: Any) -> Any:
        self.clips = getattr(self, "clips", 0) + 1
        if self.clips == 5:
            raise KeyboardInterrupt
        return super().compress_stream(*args, **options)


def test_interrupted_the_same_call_goes_on(folder: Path, more: Path, tmp_path: Path, encode_fake: Encode) -> None:
    calm = Path(encode_fake("calm")[0].output)
    add(calm, more)
    with pytest.raises(KeyboardInterrupt):
        add(folder, more, Killed())
    with pytest.raises(ShardError, match="not finished"):
        LatentShards(folder)
    done = {path.name for path in folder.glob("*_stats.json")}
    with pytest.raises(ShardError, match="shards of the videos in .*more are not finished"):
        add(folder, next(more.rglob("new 1.mp4")).parent, split="train")
    moved = more.rename(tmp_path / "moved")
    add(folder, moved)
    assert done < {path.name for path in folder.glob("*_stats.json")}
    assert {n: d for n, d in shard_bytes(folder).items() if "plan.json" not in n} == {
        n: d for n, d in shard_bytes(calm).items() if "plan.json" not in n
    }
    assert verify_folder(folder) == []


def test_what_does_not_fit_is_refused(folder: Path, more: Path, tmp_path: Path) -> None:
    before = shard_bytes(folder)
    with pytest.raises(ShardError, match="other weights need a folder of their own"):
        add(folder, more, FakeCodec("0" * 32))
    (tmp_path / "odd" / "z").mkdir(parents=True)
    (tmp_path / "odd" / "z" / "x.mp4").write_text("4 16 16 1")
    with pytest.raises(InputError, match="1 labels that .* does not have, such as 'z'"):
        add(folder, tmp_path / "odd", split="train")
    (tmp_path / "odd" / "z").rename(tmp_path / "odd" / "a")
    with pytest.raises(InputError, match="has no split, the folder has"):
        add(folder, tmp_path / "odd")
    assert shard_bytes(folder) == before
    assert add(folder, tmp_path / "odd", split="train").files == 1


def test_the_same_bytes_in_another_split_are_told(folder: Path, fake_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "leak" / "test" / "a").mkdir(parents=True)
    shutil.copy(fake_corpus / "train" / "a" / "clip 01.mp4", tmp_path / "leak" / "test" / "a" / "x.mp4")
    assert add(folder, tmp_path / "leak").warnings == ("1 new files in test are of the same bytes as files in train",)


# ---- merge


def encoded(root: Path, out: Path, **settings: Any) -> Path:
    chosen = EncodingSettings(**{"clip_frames": 5, "block": 2, **settings})
    plan = make_plan(read_annotations(root), out, FakeCodec(), chosen, shard_videos=2)
    encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    return out


def webdataset_keys(folder: Path) -> list[str]:
    """In a process where vidlbc cannot be imported."""
    code = _BLOCK + _WEBDATASET + "\nprint('RESULT' + json.dumps([key for key, *_ in out]))"
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.partition("RESULT")[2])
    assert len(found) == len(set(found))
    return found


@pytest.mark.slow
def test_merging_gives_what_adding_would(folder: Path, more: Path, tmp_path: Path, encode_fake: Encode) -> None:
    second = encoded(more, tmp_path / "second")
    inputs = [shard_bytes(folder), shard_bytes(second)]
    merged: Merged = merge_folders([folder, second], tmp_path / "merged")
    assert [shard_bytes(folder), shard_bytes(second)] == inputs
    assert [(source, Path(origin).name) for source, origin, _ in merged.repeats] == [("train/a/again.mp4", "second")]
    assert verify_folder(tmp_path / "merged") == []
    add(folder, more)
    assert shard_bytes(tmp_path / "merged") == shard_bytes(folder)
    keys = {sample["key"] for sample in LatentShards(tmp_path / "merged")}
    assert set(webdataset_keys(tmp_path / "merged")) == keys
    third = merge_folders(
        [tmp_path / "merged", second], tmp_path / "third"
    )  # a folder of several runs, and all repeats
    assert len(third.repeats) == 6 - 1 + 1 and verify_folder(tmp_path / "third") == []
    keys = [sample["key"] for sample in LatentShards(tmp_path / "third")]
    assert len(keys) == len(set(keys)) == merged.manifest.n_clips


def test_a_merge_goes_on_where_it_was_stopped(folder: Path, more: Path, tmp_path: Path) -> None:
    second = encoded(more, tmp_path / "second")
    merge_folders([folder, second], tmp_path / "calm")

    def stop(shards: int) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            merge_folders([folder, second], tmp_path / "merged", progress=stop)
    merge_folders([folder, second], tmp_path / "merged")
    assert shard_bytes(tmp_path / "merged") == shard_bytes(tmp_path / "calm")


@pytest.mark.slow
def test_what_a_repair_dropped_comes_back_by_merging(folder: Path, fake_corpus: Path, encode_fake: Encode) -> None:
    whole = Path(encode_fake("whole")[0].output)
    before = {sample["key"]: sample["bitstream"] for sample in LatentShards(folder)}
    meta = next(m for m in map(LatentShards(folder).meta, range(len(before))) if m["frames"] == 5)
    data = bytearray((folder / meta["tar"]).read_bytes())
    data[meta["offset"]] ^= 1
    (folder / meta["tar"]).write_bytes(data)
    with pytest.raises(ShardError, match="its sha256 is not the one recorded; repair it first"):
        merge_folders([folder, whole], folder.parent / "refused")
    fake_corpus.rename(fake_corpus.parent / "away")
    repair_folder(folder, apply=True, drop=True)
    merge_folders([folder, whole], folder.parent / "merged")
    assert {s["key"]: s["bitstream"] for s in LatentShards(folder.parent / "merged")} == before
    assert verify_folder(folder.parent / "merged") == []


@pytest.mark.parametrize(
    ("settings", "label", "message"),
    [({"qp": 20}, "a", "qp=32 there, qp=20 here"), ({}, "ab", "label 1 is 'ab', there 'b'; labels are not renumbered")],
)
def test_folders_that_differ_are_not_merged(
    folder: Path, tmp_path: Path, settings: dict[str, Any], label: str, message: str
) -> None:
    for name in ("a", label):
        (tmp_path / "others" / "train" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "others" / "train" / name / "x.mp4").write_text("4 16 16 1")
    other = encoded(tmp_path / "others", tmp_path / "other", **settings)
    with pytest.raises(VidlbcError, match=message):
        merge_folders([folder, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(InputError, match="two or more different folders"):
        merge_folders([folder, folder], tmp_path / "merged")
