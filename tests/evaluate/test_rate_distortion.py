"""tools/evaluate.py and what it is made of, on generated clips and a small untrained model.

python -m pytest tests/evaluate/test_rate_distortion.py
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vidlbc
from tests.codec.small_models import KINDS, noisy_frames, save_small_model
from vidlbc.codec.codec import Codec
from vidlbc.codec.motion.search import EFFORTS
from vidlbc.errors import InputError, VideoError, VidlbcError
from vidlbc.evaluate.codecs import Anchor, Jpeg, build_anchors
from vidlbc.evaluate.codecs.ours import load_codecs
from vidlbc.evaluate.rate_distortion import job as rate_distortion_job
from vidlbc.evaluate.rate_distortion.clips import Clip, find_clips
from vidlbc.evaluate.rate_distortion.job import EvaluateSettings, evaluate_clips
from vidlbc.evaluate.rate_distortion.measure import Point, measure_anchor, measure_clip
from vidlbc.evaluate.rate_distortion.tables import tables, write_csv
from vidlbc.video.distortion import ms_ssim, psnr

Tool = Callable[..., subprocess.CompletedProcess[str]]
MakeClip = Callable[..., Path]
JPEG: dict[str, Anchor] = {"jpeg": Jpeg()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def codecs(model: Path) -> dict[str, Codec]:
    return {kind: vidlbc.load(model, "cpu", temporal=kind) for kind in KINDS}


@pytest.fixture
def data(tmp_path: Path, make_clip: MakeClip) -> Path:
    """A video and a picture that read, one that does not of each, names that repeat, and files that are neither."""
    root = tmp_path / "data"
    make_clip(root / "a" / "clip.mp4", frames=5, size=(48, 64))
    make_clip(root / "b" / "clip.mp4", frames=4, size=(32, 32), seed=1)
    Image.fromarray(noisy_frames(1, 40, 56)[0]).save(root / "picture.png")
    (root / "broken.mp4").write_bytes(bytes(1000))
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    Image.fromarray(noisy_frames(1, 8, 8)[0]).save(root / "tiny.png")
    (root / "labels.csv").write_text("path,label\n")
    return root


def job(data: Path, out: Path, **values: object) -> EvaluateSettings:
    return replace(EvaluateSettings(data, out, frames=4), **values)  # type: ignore[arg-type]


# ---- what is measured


@pytest.mark.slow
def test_kinds_share_pixels_and_sizes_are_those_of_bitstreams(codecs: dict[str, Codec]) -> None:
    frames = noisy_frames(4, 40, 56)
    points = {p.kind: p for p in measure_clip("clip", frames, codecs, qp=20)}
    assert list(points) == list(KINDS)
    assert len({(p.psnr, p.ms_ssim) for p in points.values()}) == 1
    for kind, point in points.items():
        data = codecs[kind].compress(frames, qp=20)
        assert point.bytes == len(data)
        assert point.bytes_no_context == len(codecs[kind].compress(frames, qp=20, context=False))
        assert point.bpp == 8 * len(data) / (4 * 40 * 56)
        decoded = codecs[kind].decompress(data)
        assert point.psnr == pytest.approx(float(np.mean(psnr(decoded, frames))), abs=1e-9)
        assert point.ms_ssim == pytest.approx(float(np.mean(ms_ssim(decoded, frames))), abs=1e-6)
        assert point.weights == codecs[kind].fingerprint
        assert Point.from_json(json.loads(json.dumps(point.to_json()))) == point
    # With context the encoder may take the intra prior for every frame of random weights, and sizes meet.
    assert len({p.bytes_no_context for p in points.values()}) == len(KINDS)


@pytest.mark.slow
def test_a_kind_that_decodes_to_other_symbols_stops_the_run(
    codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    lstm = codecs["lstm"]
    true_symbols = lstm.padded_symbols
    monkeypatch.setattr(lstm, "padded_symbols", lambda data: [q + (q == q.max()) for q in true_symbols(data)])
    frames = noisy_frames(2, 32, 32)
    with pytest.raises(VidlbcError) as error:
        measure_clip("clip", frames, {"lstm": lstm}, qp=20)
    assert str(error.value) == "clip: temporal=lstm at qp 20 decodes to other symbols than were coded"
    assert len(measure_clip("clip", frames, {"lstm": lstm}, qp=20, verify=False)) == 1


@pytest.mark.slow
def test_two_models_in_one_comparison(codecs: dict[str, Codec], model: Path, tmp_path: Path) -> None:
    """The second model's kinds are named after it; its kinds share its pictures, told against its own none."""
    other = save_small_model(tmp_path / "other", seed=100, kinds=("lstm",))
    both, left_out = load_codecs([str(model), str(other)], ["none", "lstm", "transformer"], "cpu", "fp32", rdo=True)
    assert list(both) == [
        "none",
        "lstm",
        "transformer",
        "none@other",
        "lstm@other",
        "lstm-rdo",
        "transformer-rdo",
        "lstm@other-rdo",
    ]
    assert left_out == {"transformer@other": f"model {other} has no temporal stage transformer"}
    assert both["lstm"].fingerprint == codecs["lstm"].fingerprint != both["lstm@other"].fingerprint
    points = {p.kind: p for p in measure_clip("clip", noisy_frames(4, 40, 56), both, qp=20)}
    assert points["lstm"].psnr == points["none"].psnr != points["none@other"].psnr == points["lstm@other"].psnr
    alone = measure_clip("clip", noisy_frames(4, 40, 56), {"lstm": both["lstm@other"]}, qp=20)[0]
    assert alone.bytes == points["lstm@other"].bytes
    below = 100 * (1 - points["lstm@other"].bytes / points["none@other"].bytes)
    row = next(line for line in tables(list(points.values()), {}).splitlines() if line.startswith("qp 20 lstm@other "))
    assert row.split()[-2] == f"{below:.1f}"


def test_models_that_cannot_be_told_apart_or_are_not_there(model: Path, tmp_path: Path) -> None:
    same_name = save_small_model(tmp_path / model.name, seed=100, kinds=())
    with pytest.raises(InputError, match="the folders' names must differ"):
        load_codecs([str(model), str(same_name)], None, "cpu", "fp32", rdo=False)
    with pytest.raises(InputError, match="no model 'nowhere'"):
        load_codecs([str(model), "nowhere"], None, "cpu", "fp32", rdo=False)


def test_options_are_part_of_a_kinds_name(tmp_path: Path) -> None:
    moved = save_small_model(tmp_path / "moved", moved=True, copies=True)
    names = ["lstm", "lstm+fast", "lstm+best+keyint2"]
    found, _ = load_codecs([str(moved)], names, "cpu", "fp32", rdo=True)
    assert list(found) == [*names, *(f"{name}-rdo" for name in names)]
    plain, fast, best = (found[name] for name in names)
    assert (plain.effort, fast.effort, best.effort) == (EFFORTS["default"], EFFORTS["fast"], EFFORTS["best"])
    assert (plain.keyint, best.keyint) == (0, 2)
    points = {p.kind: p for p in measure_clip("clip", noisy_frames(5, 40, 56), {n: found[n] for n in names}, qp=20)}
    assert list(points) == names and points["lstm"].psnr == points["lstm+best+keyint2"].psnr
    for wrong in ("lstm+slow", "lstm+keyint", "lstm+keyint-1"):
        with pytest.raises(InputError, match=f"^temporal={re.escape(wrong)}: unknown option .*, expected refine, fast"):
            load_codecs([str(moved)], [wrong], "cpu", "fp32", rdo=False)


def test_jpeg_counts_the_bytes_of_files_and_rises_with_quality(tmp_path: Path) -> None:
    frames = noisy_frames(3, 48, 64)
    low, high = (measure_anchor("clip", frames, Jpeg(), quality) for quality in (20, 90))
    assert low.bytes < high.bytes and low.psnr < high.psnr and low.ms_ssim < high.ms_ssim
    size, values = 0, []
    for frame in frames:
        file = tmp_path / "frame.jpg"
        Image.fromarray(frame).save(file, quality=90, optimize=True)
        size += file.stat().st_size
        values.append(psnr(np.asarray(Image.open(file))[None], frame[None])[0])
    assert (high.bytes, high.bytes_no_context, high.kind, high.qp) == (size, size, "jpeg", 90)
    assert high.psnr == pytest.approx(np.mean(values)) and high.bpp == 8 * size / (3 * 48 * 64)


# ---- what is read


def test_raw_video_and_pictures_are_read(tmp_path: Path, make_clip: MakeClip) -> None:
    make_clip(tmp_path / "bare.264", frames=3, size=(32, 48))
    planes = np.full((2, 32 * 48 * 3 // 2), 128, np.uint8)
    planes[1, : 32 * 48] = 200
    (tmp_path / "grey_48x32_30fps.yuv").write_bytes(planes.tobytes())
    picture = noisy_frames(1, 40, 56)[0]
    Image.fromarray(picture).save(tmp_path / "picture.png")
    (tmp_path / "notes.txt").write_text("neither")
    clips = {clip.name: clip.read(2) for clip in find_clips(tmp_path)}
    assert list(clips) == ["bare.264", "grey_48x32_30fps.yuv", "picture.png"]
    assert [(clip.frames.shape, clip.damage) for clip in clips.values()] == [
        ((2, 32, 48, 3), ""),
        ((2, 32, 48, 3), ""),
        ((1, 40, 56, 3), ""),
    ]
    grey = clips["grey_48x32_30fps.yuv"][0]
    assert grey[1].min() > grey[0].max()
    assert np.array_equal(clips["picture.png"][0][0], picture)
    assert len(Clip("bare.264", tmp_path / "bare.264").read()[0]) == 3


@pytest.mark.slow
def test_a_damaged_video_gives_its_good_frames_and_says_so(tmp_path: Path, make_clip: MakeClip) -> None:
    whole = make_clip(tmp_path / "whole.264", frames=24, size=(64, 96), options={"g": "4"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.264"
    cut.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    frames, damage, _ = Clip("cut.264", cut).read()
    assert 0 < len(frames) < 24 and damage.startswith(f"damaged ({len(frames)} frames)")


@pytest.mark.slow
def test_nothing_to_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("neither video nor picture")
    with pytest.raises(InputError) as error:
        find_clips(tmp_path)
    assert str(error.value) == f"data={tmp_path}: holds no video and no picture"
    (tmp_path / "broken.mp4").write_bytes(bytes(1000))
    with pytest.raises(VideoError, match="unreadable"):
        Clip("broken.mp4", tmp_path / "broken.mp4").read()


# ---- a folder


@pytest.mark.slow
def test_a_folder_is_measured_and_what_is_not_is_told(data: Path, tmp_path: Path, codecs: dict[str, Codec]) -> None:
    settings = job(data, tmp_path / "out", qualities={"jpeg": (50,)})
    points, problems = evaluate_clips(settings, codecs, JPEG)
    measured = ["a/clip.mp4", "b/clip.mp4", "picture.png"]
    assert [p.clip for p in points] == [name for name in measured for _ in range(4)]
    assert [p.kind for p in points[:4]] == [*KINDS, "jpeg"]
    assert {p.clip: p.frames for p in points} == {"a/clip.mp4": 4, "b/clip.mp4": 4, "picture.png": 1}
    assert sorted(problems) == ["broken.mp4", "broken.png", "tiny.png"]
    assert all(why.startswith("left out: ") and "\n" not in why for why in problems.values())
    assert problems["tiny.png"] == "left out: frames are 8x8: expected at least 16 pixels a side"
    text = tables(points, problems)
    assert "3 files left out or damaged:" in text and "broken.mp4: left out: unreadable" in text
    assert "qp 32 transformer" in text and "jpeg 50" in text
    mean = np.mean([1 - p.bytes / p.bytes_no_context for p in points if p.kind == "lstm"])
    (row,) = [line.split() for line in text.splitlines() if line.startswith("qp 32 lstm")]
    assert row[3] == "3" and row[10] == f"{100 * mean:.1f}"
    assert all(p.encode_seconds > 0 and p.decode_seconds > 0 for p in points)
    assert {p.clip: p.fps for p in points} == {"a/clip.mp4": 24.0, "b/clip.mp4": 24.0, "picture.png": 0.0}
    write_csv(tmp_path / "points.csv", points)
    with open(tmp_path / "points.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["clip"], line["kind"], int(line["bytes"])) for line in lines] == [
        (p.clip, p.kind, p.bytes) for p in points
    ]
    assert float(lines[0]["kbps"]) == pytest.approx(8 * points[0].bytes * 24 / 4 / 1000) and lines[-1]["kbps"] == ""


@pytest.mark.slow
def test_a_rerun_keeps_what_is_done_and_adds_what_is_missing(
    data: Path, tmp_path: Path, codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {kind: codecs[kind] for kind in ("none", "lstm")}
    first, _ = evaluate_clips(job(data, tmp_path / "out"), few)
    asked = []

    def counted(name: str, frames: np.ndarray, kinds: dict[str, Codec], qp: int, *rest: Any) -> list[Point]:
        asked.append((name, list(kinds), qp))
        return measure_clip(name, frames, kinds, qp, *rest)

    monkeypatch.setattr(rate_distortion_job, "measure_clip", counted)
    again, problems = evaluate_clips(job(data, tmp_path / "out"), few)
    # Only what failed is tried again.
    assert again == first and [name for name, *_ in asked] == ["tiny.png"] and len(problems) == 3
    asked.clear()
    (data / "tiny.png").unlink()
    settings = job(data, tmp_path / "out", qps=(32, 8), qualities={"jpeg": (50,)})
    more, _ = evaluate_clips(settings, codecs, JPEG)
    assert asked[:2] == [("a/clip.mp4", ["transformer"], 32), ("a/clip.mp4", list(KINDS), 8)]
    assert len(more) == 3 * (2 * 3 + 1) and set(first) < set(more)
    stored = json.loads((tmp_path / "out" / "points.json").read_text())["points"]
    assert {Point.from_json(entry) for entry in stored} == set(more)


@pytest.mark.slow
def test_damage_is_told_on_a_rerun_too(tmp_path: Path, codecs: dict[str, Codec], make_clip: MakeClip) -> None:
    data = make_clip(tmp_path / "whole.264", frames=24, size=(32, 32), options={"g": "4"}).read_bytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cut.264").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    settings = job(tmp_path / "data", tmp_path / "out", frames=None)
    none = {"none": codecs["none"]}
    first, again = evaluate_clips(settings, none), evaluate_clips(settings, none)
    assert first == again and first[1]["cut.264"].startswith("damaged (")
    assert first[1]["cut.264"].endswith("; its good frames are measured")


@pytest.mark.slow
def test_other_weights_or_settings_are_refused(data: Path, tmp_path: Path, codecs: dict[str, Codec]) -> None:
    out = tmp_path / "out"
    evaluate_clips(job(data, out), {"none": codecs["none"]})
    other = vidlbc.load(save_small_model(tmp_path / "other", seed=100, kinds=()), "cpu")
    with pytest.raises(InputError) as error:
        evaluate_clips(job(data, out), {"none": other})
    was, now = codecs["none"].fingerprint[:8], other.fingerprint[:8]
    assert str(error.value) == (
        f"{out / 'points.json'} holds figures of other weights or settings (none: {was}..., these are {now}...): "
        "choose another out="
    )
    with pytest.raises(InputError) as error:
        evaluate_clips(job(data, out, frames=3), {"none": codecs["none"]})
    assert "holds a run with frames=4, this one has frames=3: choose another out=" in str(error.value)
    evaluate_clips(job(data, out, qualities={"x264": (40,)}), {}, build_anchors(["x264"])[0])
    with pytest.raises(InputError, match=r"\(x264: .*preset medium, .*, these are .*preset slow, .*\): choose another"):
        evaluate_clips(job(data, out), {}, build_anchors(["x264"], {"x264": "slow"})[0])
    (out / "points.json").write_text("[]")
    with pytest.raises(InputError, match="is no file of rate and distortion points"):
        evaluate_clips(job(data, out), {"none": codecs["none"]})


def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    for values, message in (
        ({"qps": (64,)}, "qp=64: expected an integer from 0 to 63"),
        ({"frames": 0}, "frames=0: expected at least 1, or null for all"),
    ):
        with pytest.raises(InputError) as error:
            job(tmp_path, tmp_path, **values)
        assert str(error.value) == message
    with pytest.raises(InputError, match="nothing to measure"):
        evaluate_clips(job(tmp_path, tmp_path), {})
    with pytest.raises(InputError, match="jpeg=0: expected qualities from 1 to 100"):
        evaluate_clips(job(tmp_path, tmp_path, qualities={"jpeg": (0,)}), {}, JPEG)


# ---- the tool


@pytest.mark.slow
def test_the_tool_prints_the_tables_and_says_where_the_figures_are(
    run_tool: Tool, call_tool: Tool, data: Path, tmp_path: Path, model: Path
) -> None:
    other = save_small_model(tmp_path / "other", seed=100, kinds=())
    command = [
        f"data={data}",
        "out=rd",
        f"model={model}",
        "frames=2",
        "qp=[8,24,40,56]",
        "codecs=[vidlbc,x264,jpeg]",
        "quality.x264=[45,40,35,30]",
        "quality.jpeg=[30]",
        "device=cpu",
        f"other_models=[{other}]",
        "temporal=[none,lstm,transformer]",
        "rdo=true",
    ]
    done = run_tool("evaluate", *command)
    assert done.returncode == 0, done.stderr
    assert "3 files left out or damaged:" in done.stdout and "qp 40 transformer" in done.stdout
    assert "BD-rate in % at equal PSNR" in done.stdout and "x264 45" in done.stdout
    assert "every figure: rd/points.csv, points.json, bd_rate.json; curves: rd/rd.png" in done.stdout
    assert (tmp_path / "rd" / "rd.png").stat().st_size > 5000
    pairs = json.loads((tmp_path / "rd" / "bd_rate.json").read_text())["differences"]
    kinds = (*KINDS, "lstm-rdo", "transformer-rdo", "none@other")
    assert {d["of"] for d in pairs} == {*(f"vidlbc {kind}" for kind in kinds), "x264"}, "jpeg has one quality: no curve"
    points = json.loads((tmp_path / "rd" / "points.json").read_text())["points"]
    assert len(points) == 3 * (4 * 6 + 4 + 1)
    bits = {kind: sum(p["estimated_bits"] for p in points if p["kind"] == kind) for kind in ("lstm", "lstm-rdo")}
    assert bits["lstm-rdo"] < bits["lstm"]
    again = call_tool("evaluate", *command)
    assert again.returncode == 0 and again.stdout == done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=nowhere"], "error: data=nowhere: no such file or folder (expected videos or pictures)"),
        (["data=text"], "error: data=text: none of 1 clips can be measured; broken.mp4: left out: unreadable"),
        (["data=text", "codecs=[x266]"], "error: codecs: unknown 'x266', expected vidlbc or some of x264, x265"),
        (["data=text", "other_models=[gru]"], "error: no model 'gru': expected a model folder or one of default"),
        (["data=text", "temporal=[gru]"], "has no temporal stage 'gru': it has none, lstm, transformer"),
    ],
)
def test_bad_input_is_one_line(
    call_tool: Tool, tmp_path: Path, model: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "broken.mp4").write_text("no video")
    done = call_tool("evaluate", f"model={model}", "out=rd", *arguments)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert message in done.stderr
