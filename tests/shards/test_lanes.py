"""Files side by side in a process: the bytes are those of one after another, and so is who is blamed for a death."""

from __future__ import annotations

import errno
import io
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from tests.shards.fakes import FakeCodec, FakeReader, load_fake, open_hostile
from tests.shards.launchers.test_launchers import QUARANTINED, calm, comparable, planned
from vidlbc.errors import ShardError
from vidlbc.run.lanes import in_lanes
from vidlbc.run.stage_clock import OF_MOTION, STAGES, stage_table
from vidlbc.shards import EncodingSettings, Manifest, encode_corpus, encode_shard, make_plan, read_annotations
from vidlbc.video import write_mp4


def test_order_and_how_far_ahead() -> None:
    begun: list[int] = []

    def run(index: int) -> int:
        begun.append(index)
        time.sleep(0.002 * (index % 3))
        return index

    results = in_lanes(run, 20, 3, lambda: None)
    for expected in range(20):
        assert next(results) == expected
        assert len(begun) <= expected + 6  # three at work, three finished and waiting
    with pytest.raises(StopIteration):
        next(results)


def test_a_failure_ends_the_others() -> None:
    stopped, at_work = threading.Event(), threading.Barrier(2)

    def run(index: int) -> None:
        if index < 2:
            at_work.wait(10)
        if index == 0:
            raise ShardError("the disk is full")
        assert index != 1 or stopped.wait(10)

    with pytest.raises(ShardError, match="the disk is full"):
        list(in_lanes(run, 9, 2, stopped.set))


def test_an_encoding_that_fails_does_not_go_on_in_its_other_lanes(fake_corpus: Path, tmp_path: Path) -> None:
    class Full(FakeCodec):
        def compress_stream(self, *args: object, **options: object) -> object:  # type: ignore[override]
            if threading.current_thread().name.endswith("_0"):
                time.sleep(0.1)
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().compress_stream(*args, **options)  # type: ignore[arg-type]

    plan = planned(fake_corpus, tmp_path / "out")
    began = time.monotonic()
    with pytest.raises(ShardError, match="No space left on device|disk is full"):
        encode_corpus(plan, codec=Full(delay=0.05, lanes=2), open_reader=Slow, bar=False)
    assert time.monotonic() - began < 20  # of 10^4 frames, 0.05 s each, in the other lane
    encode_corpus(plan, codec=FakeCodec(), open_reader=FakeReader, bar=False)
    assert comparable(tmp_path / "out") == calm(fake_corpus, tmp_path / "calm")


class Slow(FakeReader):
    """A fake video that does not end soon."""

    def blocks(self):  # type: ignore[no-untyped-def]  # noqa: ANN201
        for _ in range(10**4):
            yield np.zeros((1, 16, 16, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [2, 3, 40])
def test_bytes_are_those_of_one_lane(fake_corpus: Path, tmp_path: Path, lanes: int) -> None:
    encode_corpus(
        planned(fake_corpus, tmp_path / "out"),
        codec=FakeCodec(lanes=lanes, delay=0.001),
        open_reader=FakeReader,
        bar=False,
    )
    assert comparable(tmp_path / "out") == calm(fake_corpus, tmp_path / "calm")
    assert not list((tmp_path / "out").glob(".0*"))


@pytest.mark.slow
def test_who_was_beside_a_file_that_kills_is_not_blamed(
    hostile_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: dict[str, Manifest] = {}
    for lanes in ("1", "3"):
        monkeypatch.setenv("FAKE_CODEC_LANES", lanes)
        monkeypatch.setenv("FAKE_CODEC_DELAY", "0.01")  # so that others are in hand
        plan = planned(hostile_corpus, tmp_path / lanes)
        folders[lanes], _ = encode_corpus(plan, processes=2, load=load_fake, open_reader=open_hostile, bar=False)
    assert comparable(tmp_path / "1") == comparable(tmp_path / "3")
    assert [f["path"] for f in folders["3"].files if f["reason"] == QUARANTINED] == ["train/b/deadly.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rdo"), [("none", False), ("lstm", True)])
def test_a_codec_in_lanes(tmp_path: Path, kind: str, rdo: bool) -> None:
    model = save_small_model(tmp_path / "model", 3)
    (tmp_path / "videos").mkdir()
    for seed in range(5):
        write_mp4(tmp_path / "videos" / f"{seed}.mp4", noisy_frames(5 + seed, 32, 48, seed), 25)
    codec = vidlbc.load(model, device="cpu", temporal=kind)
    settings = EncodingSettings(clip_frames=4, model=str(model), temporal=kind, rdo=rdo)
    plan = make_plan(read_annotations(tmp_path / "videos"), tmp_path / "1", codec, settings)
    reports = {}
    for lanes in (1, 3):
        reports[lanes] = encode_shard(replace(plan, output=str(tmp_path / str(lanes))), 0, codec, lanes=lanes)
        stages = reports[lanes].stages
        assert set(stages) == set(STAGES) and all(seconds > 0 for seconds in stages.values())
    assert comparable(tmp_path / "1") == comparable(tmp_path / "3")
    table = stage_table(reports[1].stages, reports[1].frames, reports[1].seconds)
    assert table.count("<- slowest") == 1 and f"{reports[1].frames} frames in" in table
    shares = [float(line.split("%")[0].split()[-1]) for line in table.splitlines() if "%" in line]
    assert len(shares) == len(STAGES) and sum(shares) == pytest.approx(100, abs=0.4)


def test_what_motion_took_is_in_the_table():
    codec = vidlbc.load("default", device="cpu")
    codec.compress(noisy_frames(3, 32, 64), 32)
    seconds = codec.clock.seconds()
    assert min(seconds[name] for name in OF_MOTION) > 0
    lines = stage_table(seconds, 3, 1.0).splitlines()
    shares = [float(line.split("%")[0].split()[-1]) for line in lines if "%" in line]
    assert len(shares) == len(STAGES) + len(OF_MOTION) and sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.slow
def test_time_of_stages_adds_up(tmp_path: Path) -> None:
    """What is measured by stage is nearly all that the process did, and no more."""
    codec = vidlbc.load(save_small_model(tmp_path / "model", 3), device="cpu", temporal="lstm")
    frames = noisy_frames(48, 64, 64)
    codec.compress(frames)
    began, before = time.process_time(), codec.clock.here()
    sink = io.BytesIO()
    codec.compress_stream([frames], sink)
    spent, measured = time.process_time() - began, codec.clock.here() - before
    assert 0.4 * spent < measured <= 1.01 * spent
