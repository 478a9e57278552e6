"""Accuracy against true bits: the tool on generated clips and a small model; sizes, pairs and resuming."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import vidlbc
from tests.codec.small_models import save_small_model
from tests.conftest import write_clip
from vidlbc.codec.codec import Codec
from vidlbc.commands import run_command
from vidlbc.errors import InputError
from vidlbc.evaluate.plots import plot_accuracy_curve
from vidlbc.experiments.accuracy_curve import media as accuracy_curve_media
from vidlbc.experiments.accuracy_curve.media import videos_of
from vidlbc.experiments.accuracy_curve.points import CurvePoint, differences
from vidlbc.experiments.accuracy_curve.report import tables
from vidlbc.experiments.accuracy_curve.study import CurveSettings, run_curve
from vidlbc.shards import LatentShards

FAST = (
    "device=cpu",
    "data.max_side=32",
    "data.every=2",
    "qps=[20,50]",
    "eval.frames=4",
    "eval.grid=2",
    "eval.epochs=2",
    "eval.heads=[linear]",
    "eval.rates=[1e-3]",
    "eval.decays=[0.05]",
    "speed.clips=1",
    "speed.rounds=1",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small", kinds=("lstm",))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of motions, 6 train, 2 val and 4 test videos of 9 frames, 64 x 48 pixels."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path,label,group,split"]
    for number in range(12):
        split = "train" if number < 6 else "val" if number < 8 else "test"
        label, motion = (("across", (3.0, 0.0)), ("down", (0.0, 3.0)))[number % 2]
        write_clip(folder / f"c{number}.mp4", frames=9, size=(48, 64), motion=motion, seed=number)
        lines.append(f"c{number}.mp4,{label},p{number // 2},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command("accuracy_curve", arguments)
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def out(corpus: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One whole run. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("curve") / "out"
    assert call(f"data.root={corpus}", f"model={model}", f"out={folder}", *FAST) == 0
    yield folder


def points_of(out: Path) -> dict[tuple[str, int | None], dict]:
    return {(p["medium"], p["qp"]): p for p in json.loads((out / "points.json").read_text())}


@pytest.mark.slow
def test_every_input_has_a_point_at_every_qp(out: Path) -> None:
    found = points_of(out)
    coded = ["latents, lstm", "latents, none", "decoded frames, lstm"]
    expected = {(name, qp) for name in (*coded, "x264 medium") for qp in (20, 50)}
    assert set(found) == expected | {("source pixels", None), ("source pixels, full size", None)}
    for (name, qp), point in found.items():
        assert point["clips"] == 4 and 0 <= point["ci95"][0] <= point["top1"] <= point["ci95"][1] <= 1
        assert point["bytes"] > 0 and point["corpus_bytes"] > 0
        assert (point["bpp"] is None) == (qp is None) and point["head"] == "linear"
        if name.startswith("source"):
            assert point["source_bytes_ratio"] == 1
    rows = list(csv.DictReader((out / "points.csv").read_text().splitlines()))
    assert [float(row["top1"]) for row in rows] == [p["top1"] for p in json.loads((out / "points.json").read_text())]
    assert (out / "curve.png").stat().st_size > 5000 and "data-accuracy" in (out / "report" / "index.html").read_text()


@pytest.mark.slow
def test_rates_are_the_sizes_of_real_bitstreams(out: Path, corpus: Path, model: Path) -> None:
    """Of the kind that was encoded, of kinds that share its symbols, and of the source files."""
    point = points_of(out)
    shards = LatentShards(out / "shards" / "lstm-qp20", "test")
    rows = [shards.meta(i) for i in range(len(shards))]
    assert {(row["frames"], row["fps"], row["width"], row["height"]) for row in rows} == {(5, "12", 32, 24)}
    lstm = point["latents, lstm", 20]
    assert lstm["bytes"] == np.mean([row["bytes"] for row in rows])
    assert lstm["bpp"] == 8 * lstm["bytes"] / (5 * 24 * 32)
    assert lstm["kbps"] == pytest.approx(8 * lstm["bytes"] / (5 / 12) / 1000)
    codecs = {kind: vidlbc.load(model, "cpu", kind) for kind in ("lstm", "none")}
    again = [codecs["lstm"].transcode(shards.bitstream(i), codecs["none"])[0] for i in range(len(shards))]
    assert point["latents, none", 20]["bytes"] == np.mean([len(data) for data in again]) != lstm["bytes"]
    assert point["latents, none", 20]["top1"] == lstm["top1"]
    whole = LatentShards(out / "shards" / "lstm-qp20")
    total = sum(whole.meta(i)["bytes"] for i in range(len(whole)))
    files = sum(path.stat().st_size for path in corpus.parent.glob("*.mp4"))
    assert (lstm["corpus_bytes"], lstm["source_bytes_ratio"]) == (total, total / files)
    tests = [corpus.parent / row["source"] for row in rows]
    assert point["source pixels", None]["bytes"] == np.mean([path.stat().st_size for path in tests])


@pytest.mark.slow
def test_the_first_kind_alone_has_shards_and_probes(out: Path) -> None:
    assert {path.name for path in (out / "shards").iterdir()} == {"lstm-qp20", "lstm-qp50"}
    probes = {path.stem for path in (out / "probes").glob("*.json")}
    assert {"latents-lstm-qp20-linear", "decoded-lstm-qp20-linear"} <= probes
    assert not any("none" in name for name in probes)
    assert {path.name for path in (out / "sizes").glob("none-*")} == {
        f"none-qp{qp}-{split}.json" for qp in (20, 50) for split in ("train", "val", "test")
    }
    assert list((out / "features").iterdir()) == []


@pytest.mark.slow
def test_differences_are_paired_and_told_with_the_bytes(out: Path) -> None:
    figures = json.loads((out / "metrics.json").read_text())
    pairs = {(d["of"], d["qp"], d["against"]): d for d in figures["differences"]}
    right = {
        name: json.loads((out / "probes" / f"{name}-linear.json").read_text())["correct"]
        for name in ("latents-lstm-qp50", "pixels")
    }
    assert right["pixels"].keys() == right["latents-lstm-qp50"].keys()  # videos have one name in all inputs
    expected = np.mean([right["latents-lstm-qp50"][key] - right["pixels"][key] for key in right["pixels"]])
    assert pairs["latents, lstm", 50, "source pixels"]["difference"] == expected
    assert pairs["latents, lstm", 50, "decoded frames, lstm"]["bytes_ratio"] == 1
    assert pairs["latents, lstm", 50, "decoded frames, lstm"]["clips"] == 4
    assert not any(of == "latents, none" for of, _, _ in pairs)
    readers = [row["reader"] for row in figures["speed"]]
    cached = "latents, lstm, later epochs (symbols cached)"
    assert readers[:3] == ["latents, lstm", cached, "latents, none"] and "source files, PyAV" in readers
    assert all(row["clips_per_s"] > 0 for row in figures["speed"])
    text = tables(figures)
    assert "the same videos of the split, paired" in text
    small = [d for d in figures["differences"] if d["source_bytes_ratio"] <= 0.1 and "source" in d["against"]]
    assert (f"Of {len(small)} differences to source pixels" if small else "No latents take 10%") in text


@pytest.mark.slow
def test_the_same_command_resumes_and_another_is_refused(
    out: Path,
    corpus: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(out, tmp_path / "run")
    (run / "points.json").unlink()
    command = (f"data.root={corpus}", f"model={model}", f"out={run}", *FAST)
    with monkeypatch.context() as patched:
        for name in ("padded_symbols", "compress_stream"):
            patched.setattr(Codec, name, lambda *args, **kwargs: pytest.fail("done again"))
        assert call(*command, "speed.clips=0") == 0
    assert (run / "points.json").read_bytes() == (out / "points.json").read_bytes()
    capsys.readouterr()
    assert call(*command, "data.every=3") == 2
    assert "holds a run with data.every=2, this one has data.every=3" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on(
    corpus: Path, model: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while x264 is at its second split: the points of the run that was left alone, nothing probed twice."""
    settings = CurveSettings(
        str(corpus),
        tmp_path / "out",
        str(model),
        ("none",),
        (20,),
        max_side=32,
        every=2,
        full_pixels=False,
        speed_clips=0,
        device="cpu",
        probe=small_probe(),
    )
    real, calls = accuracy_curve_media.nearest, []

    def dying(*arguments: object) -> tuple[float, bytes]:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(accuracy_curve_media, "nearest", dying)
    with pytest.raises(KeyboardInterrupt):
        run_curve(settings)
    assert not (tmp_path / "out" / "points.json").exists()
    probe = tmp_path / "out" / "probes" / "latents-none-qp20-linear.json"
    stamp, before = probe.stat().st_mtime_ns, len(calls)
    calls += [1] * 7  # it lives on
    figures = run_curve(settings)
    assert probe.stat().st_mtime_ns == stamp and len(calls) - before - 7 == 6  # val and test; train was kept
    assert figures["points"][0]["bytes"] == points_of(out)["latents, none", 20]["bytes"]
    assert figures["points"][0]["top1"] == points_of(out)["latents, none", 20]["top1"]


@pytest.mark.slow
def test_choices_are_made_without_the_test_split(corpus: Path, model: Path, tmp_path: Path) -> None:
    settings = CurveSettings(
        str(corpus),
        tmp_path / "out",
        str(model),
        ("none",),
        (20,),
        ("linear", "lstm"),
        split="val",
        max_side=32,
        every=2,
        x264=False,
        full_pixels=False,
        speed_clips=0,
        device="cpu",
        probe=small_probe(),
    )
    figures = run_curve(settings)
    shards = LatentShards(tmp_path / "out" / "shards" / "none-qp20")
    assert set(videos_of([shards]).splits.values()) == {"train", "val"}
    assert [(p["head"], p["medium"]) for p in figures["points"]] == [
        (head, name)
        for head in ("linear", "lstm")
        for name in ("latents, none", "decoded frames, none", "source pixels")
    ]
    assert {point["clips"] for point in figures["points"]} == {2}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"curve-linear.png", "curve-lstm.png"}
    assert "of the train split" in figures["settings"]["chosen_on"]


def small_probe() -> vidlbc.pipeline.EvaluationSettings:
    return vidlbc.pipeline.EvaluationSettings(frames=4, grid=2, epochs=2, rates=(1e-3,), decays=(0.05,))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, line",
    [
        (("temporal=[lstm,foo]",), "temporal: unknown 'foo', expected some of none, transformer, lstm"),
        (("temporal=[transformer]",), "temporal=['transformer']: model {model} has none, lstm"),
        (("qps=[20,20]",), "qps=[20, 20]: expected at least one, none twice"),
        (("eval.heads=[ridge]",), "eval.heads: unknown 'ridge', expected some of linear, attentive, lstm"),
        (("data.split=train",), "data.split=train: expected val, test or null"),
        (("data.every=0",), "every=0: expected at least 1"),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...], line: str, corpus: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(f"data.root={corpus}", f"model={model}", f"out={tmp_path / 'out'}", *FAST, *options) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: " + line.format(model=model)


def made_point(medium: str, source: str, size: float, correct: str, qp: int | None = 8) -> CurvePoint:
    right = {str(i): int(c) for i, c in enumerate(correct)}
    top1 = sum(right.values()) / len(right)
    return CurvePoint(
        medium, source, "linear", qp, size, 0.1, 1.0, top1, (0, 1), 1, top1, len(right), 0, 1, 0.05, right
    )


def test_x264_of_other_bytes_is_not_compared() -> None:
    points = [
        made_point("latents, a", "latents-a-qp8", 100, "1101"),
        made_point("latents, b", "latents-a-qp8", 90, "1101"),
        made_point("latents, c", "latents-c-qp8", 70, "1111"),
        made_point("x264 medium", "x264-qp8", 101, "0001"),
        made_point("source pixels", "pixels", 1000, "011", None),
    ]
    found = {(d["of"], d["against"]): d for d in differences(points)}
    assert set(found) == {
        ("latents, a", "x264 medium"),
        ("latents, a", "source pixels"),
        ("latents, c", "source pixels"),
    }
    assert found["latents, a", "x264 medium"]["difference"] == 0.5
    fewer = found["latents, a", "source pixels"]  # a file could not be read: over the three that both read
    assert (fewer["clips"], fewer["difference"]) == (3, 0.0)


def test_a_plot_needs_points(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no accuracy to plot"):
        plot_accuracy_curve(tmp_path / "a.png", [])


def test_rates_without_a_frame_rate_are_unknown() -> None:
    videos = accuracy_curve_media.Videos({"a": 10}, {"a": 99}, {"a": 40}, {"a": float("nan")}, {"a": "test"})
    result = {"top1": 1.0, "top1_ci95": [1, 1], "top5": 1, "mean_class": 1, "n_videos": 1, "n_failed": 0, "correct": {}}
    point = CurvePoint.of("x", "x", "linear", 8, {"a": 10}, videos, "test", result)
    assert (point.kbps, point.bpp, point.source_bytes_ratio) == (None, 2.0, 10 / 99)


def test_frames_between_are_left_out(make_clip: Callable[..., Path], model: Path, tmp_path: Path) -> None:
    """`every` in shards: the frames, their rate, spans across clips, and what the sources give again."""
    from vidlbc.pipeline.sources import source_frames
    from vidlbc.shards import EncodingSettings, encode_corpus, make_plan, read_annotations
    from vidlbc.video import VideoReader

    make_clip(tmp_path / "videos" / "a.mp4", frames=20, size=(32, 48), fps=24)
    codec = vidlbc.load(model, "cpu", "none")
    how = EncodingSettings(qp=40, every=3, clip_frames=4, block=8)
    plan = make_plan(read_annotations(tmp_path / "videos"), tmp_path / "out", codec, how)
    assert plan.identity != make_plan(read_annotations(tmp_path / "videos"), tmp_path / "out", codec).identity
    encode_corpus(plan, codec=codec, bar=False)
    shards = LatentShards(tmp_path / "out", mode="frames", codec=codec, shuffle=False)
    frames = np.concatenate(list(VideoReader(tmp_path / "videos" / "a.mp4").blocks()))[::3]
    rows = sorted((shards.meta(i) for i in range(len(shards))), key=lambda row: row["start"])
    assert [(row["start"], row["stop"], row["frames"]) for row in rows] == [(0, 10, 4), (12, 19, 3)]
    assert {Fraction(row["fps"]) for row in rows} == {Fraction(8)}
    for row, part in zip(rows, (frames[:4], frames[4:]), strict=True):
        assert np.array_equal(source_frames(shards, row), part)
        data = next(s["bitstream"] for s in shards if s["key"] == row["key"])
        assert data == codec.compress(part, qp=40, fps=8)
