"""Verify finds every damage, whatever it is, and says where; it never raises."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.shards.fakes import FakeCodec
from vidlbc.errors import InputError, VidlbcError
from vidlbc.shards import LatentShards, Manifest, Plan
from vidlbc.shards.maintain.folder import check_decoding, verify_folder
from vidlbc.shards.maintain.inventory import list_clips, list_shards, statistics
from vidlbc.shards.maintain.repair import repair_folder

Encode = Callable[..., tuple[Plan, Manifest]]


@pytest.fixture
def folder(encode_fake: Encode) -> Path:
    return Path(encode_fake()[0].output)


def told(folder: Path) -> list[str]:
    return [str(problem) for problem in verify_folder(folder)]


@pytest.mark.slow
def test_a_whole_folder_has_no_problem(folder: Path) -> None:
    assert told(folder) == []
    assert [str(p) for p in verify_folder(folder, processes=2)] == []
    shards = LatentShards(folder, codec=FakeCodec())
    seen: list[int] = []
    assert check_decoding(shards, 2, seen.append) == [] and len(seen) == -(-len(shards) // 2)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_is_told(folder: Path, data: st.DataObject) -> None:
    """A flip, a cut, a hole or something else altogether, anywhere in any file of a shard, or in the manifest."""
    names = sorted(path.name for path in folder.glob("0000[0-2]*"))
    path = folder / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "flip", "cut", "insert", "zeros", "other", "missing"]))
    if kind == "missing":
        path.unlink()
    else:
        damaged = {
            "flip": whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :],
            "cut": whole[:at],
            "insert": whole[:at] + b"x" + whole[at:],
            "zeros": whole[:at] + bytes(len(whole[at : at + 600])) + whole[at + 600 :],
            "other": data.draw(
                st.sampled_from([b"", b"[]", b"{}", b"null", b"[" * 100_000, b'{"files": [1]}', b"\xff"])
            ),
        }[kind]
        path.write_bytes(damaged)
    try:
        problems = verify_folder(folder)
        assert problems or path.read_bytes() == whole
        assert any(path.name[:5] in problem.file or "manifest" in problem.file for problem in problems) or not problems
        assert all("\n" not in str(problem) for problem in problems)
        for look in (list_shards, list_clips, statistics, repair_folder):
            with contextlib.suppress(VidlbcError):
                look(folder)  # one line, or none
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_manifest_never_raises(folder: Path, data: st.DataObject) -> None:
    path = folder / "manifest" / data.draw(st.sampled_from(["plan.json", "labels.json", "manifest.parquet"]))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "other"]))
    path.write_bytes(
        {
            "flip": whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :],
            "cut": whole[:at],
            "other": data.draw(st.sampled_from([b"", b"[]", b'{"format": 1}', b"[" * 100_000, b"\xff\xfe"])),
        }[kind]
    )
    try:
        problems = verify_folder(folder)
        # A flip in the name of the corpus' folder is nobody's contradiction, and a cut may take the last line's end.
        assert problems or kind == "flip" or whole[:at] == whole.rstrip()
    finally:
        path.write_bytes(whole)


def test_every_problem_is_told_with_its_place(folder: Path) -> None:
    shards = LatentShards(folder, shuffle=False)
    first, last = shards.meta(0), shards.meta(len(shards) - 1)
    for meta in (first, last):
        tar = folder / meta["tar"]
        data = bytearray(tar.read_bytes())
        data[meta["offset"] + 3] ^= 1
        tar.write_bytes(data)
    (folder / "00001.parquet").unlink()
    for suffix in (".tar", ".parquet", "_stats.json"):
        (folder / f"00002{suffix}").unlink()
    (folder / "00099.tar").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    (folder / ".00002.x.tmp").mkdir()
    lines = told(folder)
    for meta in (first, last):
        assert f"{meta['tar']}: clip {meta['key']}: its sha256 is not the one recorded" in lines
    assert "00001.parquet: missing" in lines
    assert "00002.tar: missing: the shard was not encoded, or its files were removed" in lines
    assert any(line.startswith("00099.tar: no shard of the plan") for line in lines)
    assert "notes.txt: belongs to no shard" in lines
    assert any(line.startswith(".00002.x.tmp: unfinished work") for line in lines)


def test_shards_of_an_older_version_verify(folder: Path) -> None:
    """Stats without sha256."""
    for path in folder.glob("*_stats.json"):
        stats = json.loads(path.read_text())
        del stats["parquet_sha256"], stats["sha256"]
        path.write_text(json.dumps(stats, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    assert told(folder) == []


def test_a_wrong_picture_size_or_count_is_told(folder: Path) -> None:
    class Short(FakeCodec):
        def decompress_stream(self, source: bytes):  # type: ignore[no-untyped-def]
            yield from list(super().decompress_stream(source))[:-1]

    shards = LatentShards(folder, codec=Short())
    problems = check_decoding(shards, 1)
    assert len(problems) == len(shards) and "frames, recorded" in problems[0].what


def test_what_is_no_shard_folder_is_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        verify_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a folder of shards"):
        verify_folder(tmp_path / "empty")
    shutil.rmtree(folder / "manifest")
    assert "plan.json: " in told(folder)[0]
