"""Writing shards: what is in them, that every file gets its verdict, that bytes depend on the plan alone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shards.fakes import FakeCodec, FakeReader, fake_frames, load_dying, load_fake
from vidlbc.errors import InputError, ShardError
from vidlbc.shards import (
    EncodingSettings,
    LatentShards,
    Manifest,
    Plan,
    encode_corpus,
    encode_shard,
    known_contents,
    make_plan,
    read_annotations,
    time_spent,
)
from vidlbc.shards.clips import cut_clips
from vidlbc.shards.maintain.folder import verify_folder

Encode = Callable[..., tuple[Plan, Manifest]]


def shard_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a shard folder that must not depend on who wrote it."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    varying = ("runs.jsonl", ".lock", ".shards.lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in names if p.name not in varying}


def test_every_file_is_accounted_for(encode_fake: Encode, fake_corpus: Path) -> None:
    plan, manifest = encode_fake()
    assert (manifest.n_videos, manifest.n_failed, manifest.n_damaged, manifest.n_repeats) == (24, 2, 1, 1)
    by_path = {file["path"]: file for file in manifest.files}
    assert set(by_path) == {str(path.relative_to(fake_corpus)) for path in fake_corpus.rglob("*.mp4")}
    assert by_path["train/b/broken.mp4"]["reason"] == "not a fake video"
    assert by_path["test/c/tiny.mp4"]["reason"] == "8x8 pixels: expected at least 16x16"
    assert (by_path["train/b/flipped.mp4"]["status"], by_path["train/b/flipped.mp4"]["frames"]) == ("damaged", 7)
    twins = ("train/a/same.mp4", "train/a/clip 01.mp4")
    first = next(path for path in twins if by_path[path]["repeat_of"] is None)
    (second,) = set(twins) - {first}
    assert (by_path[second]["repeat_of"], by_path[second]["clips"], by_path[second]["status"]) == (first, 0, "ok")
    assert by_path[first]["clips"] == 1
    summary = (Path(plan.output) / "manifest" / "summary.txt").read_text()
    assert "24 videos: 21 ok, 1 damaged, 2 unreadable; 1 repeats" in summary
    assert "damaged (7 frames kept): train/b/flipped.mp4: bits flipped" in summary
    stored = pq.read_table(Path(plan.output) / "manifest" / "manifest.parquet").to_pylist()
    assert [row["status"] for row in stored].count("ok") == 21
    assert json.loads((Path(plan.output) / "manifest" / "labels.json").read_text()) == {"classes": ["a", "b", "c"]}


def test_a_clip_is_stored_as_documented(encode_fake: Encode) -> None:
    plan, manifest = encode_fake()
    rows = [row for path in sorted(Path(plan.output).glob("0*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == manifest.n_clips == len({row["key"] for row in rows})
    assert sum(row["bytes"] for row in rows) == manifest.bytes
    for row in rows:
        assert "." not in row["key"]
        data = (Path(plan.output) / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["bytes"]]
        frames, height, width, seed = map(int, (Path(plan.root) / row["source"]).read_text().split()[:4])
        assert np.array_equal(
            FakeCodec().decompress(data), fake_frames(frames, height, width, seed)[row["start"] : row["stop"]]
        )
        assert row["bits"] == 8 * row["bytes"] and row["estimated_bits"] == row["bits"] - 8 * 64
        assert (row["fps"], row["decoder"], row["decoder_version"]) == ("30000/1001", "fake", "1")
    cut = sorted((row["start"], row["stop"]) for row in rows if row["source"].endswith("clip 19.mp4"))
    assert cut == [(0, 5), (5, 10), (10, 12)]
    assert {row["verdict"] for row in rows} == {"ok", "damaged (7 frames): bits flipped"}
    with tarfile.open(Path(plan.output) / "00000.tar") as tar:
        members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
        by_name = {m.name: tar.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    for name in [name for name in by_name if name.endswith(".json")]:
        meta = json.loads(by_name[name])
        assert meta["key"] + ".vlbc" in by_name and by_name[meta["key"] + ".cls"] == str(meta["label"]).encode()
        assert plan.classes[meta["label"]] == meta["label_name"] == meta["source"].split("/")[1]


def test_shards_hold_one_split_each(encode_fake: Encode) -> None:
    plan, _ = encode_fake()
    for index, shard in enumerate(plan.shards):
        splits = pq.read_table(Path(plan.output) / f"{index:05d}.parquet")["split"].to_pylist()
        assert set(splits) <= {shard.split}


@pytest.mark.slow
def test_bytes_depend_on_the_plan_alone(encode_fake: Encode, fake_corpus: Path, tmp_path: Path) -> None:
    """In another folder, from a moved corpus, in reverse order, in other blocks, in spawned processes: equal bytes."""
    plan, _ = encode_fake()
    moved = fake_corpus.rename(tmp_path / "moved")
    settings = replace(plan.settings, block=7)
    other = make_plan(read_annotations(moved), tmp_path / "other", FakeCodec(), settings, shard_videos=4)
    assert other.identity == plan.identity
    for index in reversed(range(len(other.shards))):
        encode_shard(other, index, FakeCodec(), open_reader=FakeReader)
    spawned = replace(other, output=str(tmp_path / "spawned"))
    encode_corpus(spawned, processes=2, load=load_fake, open_reader=FakeReader, bar=False)
    expected = shard_bytes(Path(plan.output))
    by_hand = shard_bytes(tmp_path / "other")
    assert by_hand == {name: data for name, data in expected.items() if "manifest" not in name}
    in_processes = shard_bytes(tmp_path / "spawned")
    assert {k: v for k, v in in_processes.items() if "plan.json" not in k} == {
        k: v for k, v in expected.items() if "plan.json" not in k
    }


def test_a_finished_run_is_not_repeated(encode_fake: Encode, tmp_path: Path) -> None:
    plan, first = encode_fake(codec=FakeCodec(log=tmp_path / "first"))
    before = {path: path.stat().st_mtime_ns for path in Path(plan.output).glob("0*")}
    _, second = encode_fake(codec=FakeCodec(log=tmp_path / "second"))
    assert second == first and not (tmp_path / "second").exists()
    assert {path: path.stat().st_mtime_ns for path in Path(plan.output).glob("0*")} == before
    frames, seconds, stages = time_spent(plan)
    assert frames == first.frames and seconds > 0
    assert 0 < stages["files"] < seconds and stages["image stage"] == 0


def test_a_lost_or_cut_tar_is_made_again(encode_fake: Encode) -> None:
    plan, _ = encode_fake()
    expected = shard_bytes(Path(plan.output))
    (Path(plan.output) / "00001.tar").unlink()
    with open(Path(plan.output) / "00002.tar", "r+b") as file:
        file.truncate(700)
    encode_fake()
    assert shard_bytes(Path(plan.output)) == expected


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"qp": 20}, "qp=32 there, qp=20 here"),
        ({"codec": FakeCodec("0" * 32)}, "codec weights ffffffff there, 00000000 here"),
        ({"clip_frames": 6, "context": False}, "context=True there, context=False here; clip_frames=5 there"),
        ({"shard_videos": 5}, "other shard sizes (shard_videos)"),
    ],
)
def test_other_settings_need_another_folder(encode_fake: Encode, change: dict[str, object], told: str) -> None:
    plan, _ = encode_fake()
    before = shard_bytes(Path(plan.output))
    with pytest.raises(ShardError, match="holds shards of another run") as caught:
        encode_fake(**change)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert shard_bytes(Path(plan.output)) == before


def test_another_corpus_needs_another_folder(encode_fake: Encode, fake_corpus: Path) -> None:
    encode_fake()
    (fake_corpus / "train" / "a" / "new.mp4").write_text("4 16 16 9")
    with pytest.raises(ShardError, match=r"1 files here, not there, such as train/a/new\.mp4"):
        encode_fake()
    (fake_corpus / "train" / "a" / "new.mp4").unlink()
    (fake_corpus / "train" / "a" / "clip 01.mp4").write_text("4 16 16 10")
    with pytest.raises(ShardError, match="files changed in content, label, group or split"):
        encode_fake()


def test_content_is_hashed_once_and_checked_when_encoded(fake_corpus: Path, tmp_path: Path) -> None:
    corpus = read_annotations(fake_corpus)
    plan = make_plan(corpus, tmp_path / "out", FakeCodec(), EncodingSettings(block=2))
    plan.save()
    assert len(known_contents(tmp_path / "out", corpus)) == len(corpus.items)
    (fake_corpus / "train" / "a" / "clip 02.mp4").write_text("4 16 18 9")
    manifest, _ = encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    changed = next(file for file in manifest.files if file["path"] == "train/a/clip 02.mp4")
    assert (changed["status"], changed["reason"]) == ("unreadable", "changed since the plan was made")


def test_same_content_under_two_labels_keeps_two_samples(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_text("4 16 16 1")
    (tmp_path / "list.csv").write_text("path,label,split\na.mp4,x,train\nb.mp4,y,train\nc.mp4,x,test\na.mp4,x,train\n")
    plan = make_plan(read_annotations(tmp_path / "list.csv"), tmp_path / "out", FakeCodec())
    manifest, _ = encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    assert (manifest.n_videos, manifest.n_repeats, manifest.n_clips) == (4, 1, 3)
    assert len({sample["key"] for sample in LatentShards(tmp_path / "out")}) == 3


def test_frame_ranges_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("12 16 16 1")
    (tmp_path / "list.csv").write_text("path,start,stop\na.mp4,2,9\na.mp4,9,\ngone.mp4,,\n")
    plan = make_plan(
        read_annotations(tmp_path / "list.csv"), tmp_path / "out", FakeCodec(), EncodingSettings(clip_frames=4)
    )
    manifest, _ = encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    assert [(f["path"], f["reason"]) for f in manifest.troubled] == [("gone.mp4", "no such file")]
    spans = sorted((s["meta"]["start"], s["meta"]["stop"]) for s in LatentShards(tmp_path / "out"))
    assert spans == [(2, 6), (6, 9), (9, 12)]
    sample = LatentShards(tmp_path / "out", mode="frames", codec=FakeCodec())[0]
    start, stop = sample["meta"]["start"], sample["meta"]["stop"]
    assert np.array_equal(sample["frames"], fake_frames(12, 16, 16, 1)[start:stop])


def test_videos_inside_tars(tmp_path: Path) -> None:
    (tmp_path / "k1.mp4").write_text("3 16 16 1")
    (tmp_path / "k1.cls").write_text("1")
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name in ("k1.mp4", "k1.cls"):
            tar.add(tmp_path / name, name)
    plan = make_plan(read_annotations(tmp_path / "00000.tar"), tmp_path / "out", FakeCodec())
    encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    sample = LatentShards(tmp_path / "out", mode="frames", codec=FakeCodec())[0]
    assert sample["label"] == 1 and np.array_equal(sample["frames"], fake_frames(3, 16, 16, 1))
    assert not list((tmp_path / "out").glob(".*.tmp"))


class FullDisk(FakeCodec):
    """The disk fills up while the thirtieth clip is written."""

    def compress_stream(self, blocks, sink, **options):  # type: ignore[no-untyped-def]
        self.clips = getattr(self, "clips", 0) + 1
        if self.clips == 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().compress_stream(blocks, sink, **options)


def test_full_disk_is_one_line_and_resumable(encode_fake: Encode, tmp_path: Path) -> None:
    expected, _ = encode_fake("undisturbed")
    with pytest.raises(ShardError, match="the disk is full; finished shards are kept") as caught:
        encode_fake("full", codec=FullDisk())
    assert "\n" not in str(caught.value)
    out = tmp_path / "full"
    assert not list(out.glob(".*.tmp"))
    kept = {path.name for path in out.glob("*_stats.json")}
    assert 0 < len(kept) < len(expected.shards)
    encode_fake("full")
    assert shard_bytes(out) == shard_bytes(Path(expected.output))


def test_full_disk_for_real(encode_fake: Encode, tmp_path: Path) -> None:
    """On a file system of 64 KiB, where one may be mounted."""
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path / "small")]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(ShardError, match="the disk is full"):
            encode_fake("small/out")
        assert not list((tmp_path / "small" / "out").glob(".0*.tmp"))
        remount = ["mount", "-o", "remount,size=64m", str(tmp_path / "small")]
        subprocess.run(remount, check=True, capture_output=True)
        encode_fake("small/out")
        expected, _ = encode_fake("undisturbed")
        assert shard_bytes(tmp_path / "small" / "out") == shard_bytes(Path(expected.output))
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


@pytest.mark.slow
def test_a_dead_worker_is_one_line(fake_corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(read_annotations(fake_corpus), tmp_path / "out", FakeCodec(), shard_videos=4)
    with pytest.raises(ShardError, match="an encoding process died"):
        encode_corpus(plan, processes=2, load=load_dying, open_reader=FakeReader, bar=False)
    encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_wrong_codec_index_and_values(fake_corpus: Path, tmp_path: Path) -> None:
    corpus = read_annotations(fake_corpus)
    plan = make_plan(corpus, tmp_path / "out", FakeCodec())
    with pytest.raises(ShardError, match="planned for weights ffffffff, the codec at hand has 00000000"):
        encode_shard(plan, 0, FakeCodec("0" * 32), open_reader=FakeReader)
    with pytest.raises(ShardError, match="shard 9: the plan of .* has shards 0 to 1"):
        encode_shard(plan, 9, FakeCodec())
    with pytest.raises(InputError, match="qp=64: expected a whole number from 0 to 63"):
        EncodingSettings(qp=64)
    with pytest.raises(InputError, match="clip_frames=0: expected at least 1"):
        EncodingSettings(clip_frames=0)
    with pytest.raises(InputError, match="processes=0"):
        encode_corpus(plan, processes=0)
    with pytest.raises(InputError, match="shard_videos=0"):
        make_plan(corpus, tmp_path / "out", FakeCodec(), shard_videos=0)


def test_output_that_is_no_folder_or_in_use(encode_fake: Encode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder for shards, found a file"):
        encode_fake("file")
    from vidlbc.shards.layout import exclusive

    with exclusive(tmp_path / "busy"), pytest.raises(ShardError, match="another run is writing here"):
        encode_fake("busy")


def test_plan_survives_its_file_and_says_when_it_is_damaged(encode_fake: Encode) -> None:
    plan, _ = encode_fake()
    assert Plan.load(plan.output) == plan and Plan.load(plan.output).identity == plan.identity
    path = Path(plan.output) / "manifest" / "plan.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(ShardError, match="damaged plan"):
        Plan.load(plan.output)
    path.unlink()
    with pytest.raises(ShardError, match="is not a folder of shards"):
        Plan.load(plan.output)


@given(
    lengths=st.lists(st.integers(0, 9), max_size=8),
    sizes=st.lists(st.sampled_from([16, 17]), min_size=8, max_size=8),
    limit=st.integers(1, 12),
    greedy=st.booleans(),
)
def test_cutting_keeps_every_frame(lengths: list[int], sizes: list[int], limit: int, greedy: bool) -> None:
    """Clips hold all frames in order, at most `limit` each, of one size each; full ones but for size changes."""
    total = sum(lengths)
    numbers = iter(range(total))
    blocks = [
        np.stack([np.full((size, 16, 3), next(numbers), np.uint8) for _ in range(n)])
        if n
        else np.empty((0, size, 16, 3), np.uint8)
        for n, size in zip(lengths, sizes, strict=False)
    ]
    seen = []
    clips = []
    for clip in cut_clips(iter(blocks), limit):
        parts = list(clip) if greedy else [next(clip)]
        frames = np.concatenate(parts)
        assert len(frames) <= limit
        clips.append(frames)
        seen += [int(frame[0, 0, 0]) for frame in frames]
    if greedy:
        assert seen == list(range(total))
        for clip, after in zip(clips, clips[1:], strict=False):
            assert len(clip) == limit or clip.shape[1:] != after.shape[1:]


def test_the_time_left_is_told_by_frames(fake_corpus: Path, tmp_path: Path) -> None:
    """One long video of two, by what headers promise, from its first frames on; then by the mean of those finished."""
    from vidlbc.run.progress import progress_bar
    from vidlbc.shards.claims import Claim, Notes
    from vidlbc.shards.launchers.progress import Meter

    plan = make_plan(read_annotations(fake_corpus), tmp_path / "out", FakeCodec())
    files = len(plan.sources)
    with progress_bar(total=files, disable=True) as bar:
        meter = Meter(plan, bar, 0)
        assert meter._left([], 0) is None
        first = Claim(sources=(0,), frames=40, expected=1000)
        assert meter._left([first], 40) == 1000 + (files - 1) * 1000 - 40
        second = Claim(sources=(1,), files=1, frames=1100, expected=1200)
        assert meter._left([second], 1100) == 1200 + (files - 2) * 600 - 1100
    told: list[Claim] = []
    (tmp_path / "work").mkdir()
    with Notes(tmp_path / "work", told.append) as notes:
        notes.take(3)
        notes.expect(100)
        notes.frames(16)
        notes.expect(-84)
        notes.put_down(3, False)
    assert [(claim.frames, claim.expected) for claim in told] == [(16, 100), (16, 16)]


def test_a_partly_labelled_corpus_has_the_same_members_in_every_sample(fake_corpus: Path, tmp_path: Path) -> None:
    """Hugging Face's reader of WebDataset tars refuses samples of different members."""
    files = sorted(path.relative_to(fake_corpus).as_posix() for path in fake_corpus.rglob("*.mp4"))
    lists = {"some": [f"{name},{number % 2 or ''}" for number, name in enumerate(files)], "none": files}
    for name, lines in lists.items():
        path = fake_corpus / f"{name}.csv"
        path.write_text("\n".join(["path,label" if name == "some" else "path", *lines]) + "\n")
        plan = make_plan(read_annotations(path), tmp_path / name, FakeCodec())
        encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
        members: dict[str, set[str]] = {}
        labels = set()
        for tar in sorted((tmp_path / name).glob("*.tar")):
            with tarfile.open(tar) as opened:
                for member in opened:
                    key, _, suffix = member.name.partition(".")
                    members.setdefault(key, set()).add(suffix)
                    if suffix == "cls":
                        file = opened.extractfile(member)
                        labels.add(file.read() if file else b"")
        assert {frozenset(suffixes) for suffixes in members.values()} == {
            frozenset({"vlbc", "json", "cls"} if name == "some" else {"vlbc", "json"})
        }
        assert labels == ({b"1", b"-1"} if name == "some" else set())
        assert verify_folder(tmp_path / name) == []
