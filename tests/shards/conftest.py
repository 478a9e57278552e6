"""A fake corpus of 20 videos in two splits and three classes, with repeats, damage and files that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shards.fakes import FakeCodec, FakeReader
from vidlbc.shards import EncodingSettings, LatentShards, Manifest, Plan, encode_corpus, make_plan, read_annotations


@pytest.fixture
def fake_corpus(tmp_path: Path) -> Path:
    """root/split/class/video: 12 frames at most, 3 clips at clip_frames=5."""
    root = tmp_path / "videos"
    for number in range(20):
        split = "train" if number % 3 else "test"
        path = root / split / "abc"[number // 3 % 3] / f"clip {number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{3 + number % 10} {16 + number % 2} 18 {number}")
    (root / "train" / "a" / "same.mp4").write_text((root / "train" / "a" / "clip 01.mp4").read_text())
    (root / "train" / "b" / "broken.mp4").write_text("no video at all")
    (root / "train" / "b" / "flipped.mp4").write_text("9 20 20 77 7")
    (root / "test" / "c" / "tiny.mp4").write_text("4 8 8 5")
    return root


@pytest.fixture
def hostile_corpus(fake_corpus: Path) -> Path:
    """The same, with a file that kills the process that opens it, and one that hangs its decoder."""
    (fake_corpus / "train" / "b" / "deadly.mp4").write_text("deadly")
    (fake_corpus / "train" / "c" / "hangs.mp4").write_text("hangs")
    return fake_corpus


@pytest.fixture
def encode_fake(fake_corpus: Path, tmp_path: Path) -> Callable[..., tuple[Plan, Manifest]]:
    """`encode_fake(out="shards", codec=FakeCodec(), shard_videos=4, **settings)` -> plan, manifest."""

    def encode(
        out: str = "shards", codec: FakeCodec | None = None, shard_videos: int = 4, **settings: object
    ) -> tuple[Plan, Manifest]:
        codec = codec or FakeCodec()
        chosen = EncodingSettings(**{"clip_frames": 5, "block": 2, **settings})  # type: ignore[arg-type]
        plan = make_plan(read_annotations(fake_corpus), tmp_path / out, codec, chosen, shard_videos=shard_videos)
        manifest, _ = encode_corpus(plan, codec=codec, open_reader=FakeReader, bar=False)
        return plan, manifest

    return encode


@pytest.fixture
def fake_shards(encode_fake: Callable[..., tuple[Plan, Manifest]]) -> Callable[..., LatentShards]:
    """`fake_shards(split=None, ...)`: the fake corpus, encoded, opened with the fake codec."""
    plan, _ = encode_fake()

    def open_shards(*args: object, **options: object) -> LatentShards:
        options.setdefault("codec", FakeCodec())
        return LatentShards(plan.output, *args, **options)  # type: ignore[arg-type]

    return open_shards
