"""Codecs to compare with: files that decode to what was coded, and the differences between codecs."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import motion_frames
from vidlbc.errors import InputError
from vidlbc.evaluate.codecs import build_anchors, ffmpeg
from vidlbc.evaluate.rate_distortion.comparison import compare, comparison_table
from vidlbc.evaluate.rate_distortion.measure import Point, measure_anchor
from vidlbc.video.distortion import psnr

VIDEO = ("x264", "x264-ld", "x265", "x265-ld", "svtav1", "svtav1-ld")
FPS = Fraction(25)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return motion_frames(12, (72, 97), motion=(1.0, 2.0))  # an odd width: 4:2:0 needs a column more


@pytest.mark.parametrize("name", [*VIDEO, "jpeg"])
def test_a_file_decodes_to_the_pictures_and_better_files_are_larger(name, frames):
    codec = build_anchors([name])[0][name]
    sizes, qualities = [], []
    for quality in (codec.qualities[0], codec.qualities[-1]):
        data = codec.encode(frames, quality, FPS)
        decoded = codec.decode(data, *frames.shape[1:3])
        assert decoded.shape == frames.shape and decoded.dtype == np.uint8
        sizes.append(len(data))
        qualities.append(psnr(decoded, frames).mean())
    assert sizes[0] < sizes[1] and qualities[0] < qualities[1] and qualities[1] > 27


def test_streams_do_not_pay_for_the_encoders_own_text(frames):
    """x265 would write 2.3 kB of settings into each stream, as much as a short clip needs at a low rate."""
    for name, codec in build_anchors(VIDEO)[0].items():
        data = codec.encode(np.zeros((4, 64, 64, 3), np.uint8), codec.qualities[0], FPS)
        assert b"x26" not in data and b"options" not in data and len(data) < 256, f"{name}: {len(data)}"


def test_low_delay_never_reorders(frames, tmp_path):
    import av
    from av.video.frame import PictureType

    codecs = build_anchors(["x264", "x264-ld", "x265", "x265-ld"])[0]
    reordered = {}
    for name, codec in codecs.items():
        path = tmp_path / f"{name}{codec.suffix}"
        path.write_bytes(codec.encode(np.concatenate([frames] * 3), 30, FPS))
        with av.open(str(path)) as container:
            reordered[name] = any(frame.pict_type == PictureType.B for frame in container.decode(video=0))
        assert ("low delay" in codec.settings) == name.endswith("-ld")
    assert reordered == {"x264": True, "x264-ld": False, "x265": True, "x265-ld": False}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="priorities are read as Linux tells them")
def test_no_encoder_leaves_the_process_at_real_time_priority(frames):
    for name in VIDEO:
        codec = build_anchors([name])[0][name]
        codec.encode(frames, codec.qualities[0], FPS)
        for process in ("self", str(ffmpeg._PROCESS._running().pid)):
            policies = {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{process}/task")}
            assert policies <= {os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE}, name


@pytest.mark.slow
def test_an_encoder_that_dies_is_tried_again_and_at_last_is_one_line(frames, monkeypatch):
    codec = build_anchors(["x264"])[0]["x264"]
    ffmpeg._PROCESS._running().kill()
    assert codec.decode(codec.encode(frames, 30, FPS), 72, 97).shape == frames.shape
    dying = "import os, sys; sys.stdin.buffer.readline(); os.abort()"
    monkeypatch.setattr(ffmpeg, "_PROCESS", ffmpeg.EncoderProcess([sys.executable, "-c", dying]))
    with pytest.raises(InputError, match="x264 cannot code pictures of 97x72 .its process ended .* 3 times in a row"):
        codec.encode(frames, 30, FPS)


def test_a_picture_alone_is_coded(frames):
    for name in (*VIDEO, "jpeg"):
        codec = build_anchors([name])[0][name]
        data = codec.encode(frames[:1], codec.qualities[2], FPS)
        assert codec.decode(data, *frames.shape[1:3]).shape == frames[:1].shape


def test_qualities_off_the_scale_are_told():
    for name, wrong, message in (
        ("x264", 52, "x264=52: expected a CRF from 0 to 51"),
        ("svtav1-ld", -1, "svtav1-ld=-1: expected a CRF from 0 to 63"),
        ("jpeg", 101, "jpeg=101: expected qualities from 1 to 100"),
    ):
        with pytest.raises(InputError, match=message):
            build_anchors([name])[0][name].check(wrong)


def test_an_unknown_preset_is_one_line(frames):
    codec = build_anchors(["x264"], {"x264": "quick"})[0]["x264"]
    with pytest.raises(InputError, match="x264 cannot code pictures of 97x72"):
        codec.encode(frames, 30, FPS)


@pytest.mark.slow
def test_compressai_models_need_the_users_checkpoints(tmp_path, frames):
    names = ["compressai-hyperprior", "compressai-ssf2020"]
    found, left_out = build_anchors(names)
    assert not found and list(left_out) == names
    assert "bmshj2018-hyperprior-QUALITY-HASH.pth.tar: give their folder as compressai_weights=" in left_out[names[0]]
    with pytest.raises(InputError, match="codec compressai-gpt: expected compressai- and one of hyperprior"):
        build_anchors(["compressai-gpt"])


@pytest.mark.compressai
def test_compressai_models_code_files(tmp_path, frames):
    from vidlbc.codec.image_stage.compressai_families import import_compressai

    zoo = import_compressai().zoo
    torch.manual_seed(0)
    state = zoo.image_models["bmshj2018-hyperprior"](quality=2, pretrained=False).state_dict()
    torch.save(state, tmp_path / "bmshj2018-hyperprior-2-00aa.pth.tar")
    (tmp_path / "readme.txt").write_text("other files do not matter")
    codec = build_anchors(["compressai-hyperprior"], weights=tmp_path)[0]["compressai-hyperprior"]
    assert codec.qualities == (2,) and codec.settings == "bmshj2018-hyperprior-2-00aa"
    point = measure_anchor("clip", frames[:2], codec, 2)
    data = codec.encode(frames[:2], 2, FPS)
    assert point.bytes == len(data) and point.frames == 2
    decoded = codec.decode(data, 72, 97)
    assert point.psnr == pytest.approx(psnr(decoded, frames[:2]).mean())
    with pytest.raises(InputError, match=r"compressai-hyperprior=3: expected one of \[2\]"):
        codec.check(3)
    torch.save({"a": torch.zeros(1)}, tmp_path / "mbt2018-mean-1-00bb.pth.tar")
    wrong = build_anchors(["compressai-mbt2018-mean"], weights=tmp_path)[0]["compressai-mbt2018-mean"]
    with pytest.raises(InputError, match="no checkpoint of mbt2018-mean"):
        wrong.encode(frames[:1], 1, FPS)


# ---- differences


def points(kind: str, rates: list[float], clip: str = "a", quality: float = 30.0) -> list[Point]:
    """1,000 pixels; a dB more for every rate."""
    return [
        Point(clip, kind, i, 1, 10, 100, round(125 * rate), 0, 0.0, quality + i, 0.9 + i / 100)
        for i, rate in enumerate(rates)
    ]


def test_half_the_rate_at_equal_quality_is_minus_fifty_percent():
    rates = [0.4, 0.8, 1.6, 3.2]
    ours, anchor = points("ours", [r / 2 for r in rates]), points("anchor", rates)
    found = {(d.of, d.against): d for d in compare([*ours, *anchor])}
    assert found["ours", "anchor"].bd_rate == pytest.approx(-50.0, abs=0.01)
    assert found["anchor", "ours"].bd_rate == pytest.approx(100.0, abs=0.02)
    assert found["ours", "anchor"].clips == 1 and found["ours", "anchor"].left_out == 0
    table = comparison_table(list(found.values()))
    assert "-50.0" in table and "+100.0" in table and "*" not in table


def test_clips_without_overlap_are_left_out_and_counted():
    rates = [0.4, 0.8, 1.6, 3.2]
    near = [*points("ours", rates, "a"), *points("anchor", rates, "a")]
    far = [*points("ours", rates, "b", quality=20.0), *points("anchor", rates, "b")]
    falling = [*points("ours", rates, "c"), *points("anchor", rates[::-1], "c")]
    found = {(d.of, d.against): d for d in compare([*near, *far, *falling])}
    pair = found["ours", "anchor"]
    assert pair.bd_rate == pytest.approx(0.0, abs=1e-6) and (pair.clips, pair.left_out) == (1, 2)
    text = comparison_table(list(found.values()))
    assert "+0.0*" in text or "-0.0*" in text
    assert "2 of 3 are left out" in text
    alone = {(d.of, d.against): d for d in compare(far)}
    assert alone["ours", "anchor"].bd_rate is None


def test_too_few_rates_are_no_curve():
    assert compare([*points("ours", [0.4, 0.8, 1.6]), *points("anchor", [0.4, 0.8, 1.6, 3.2])]) == []
    assert comparison_table([]) == ""
