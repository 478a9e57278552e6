"""The study from start to end on generated motions: resumed, shared between runs, refused where it is another one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import vidlbc
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet, ClipSettings, load_clips
from vidlbc.experiments.machine_perception.copies import CopySettings, make_copies
from vidlbc.experiments.machine_perception.data import TaskClips, TaskSettings, compression_crops
from vidlbc.experiments.machine_perception.encoder import EncoderSettings, HeadSettings
from vidlbc.experiments.machine_perception.lowshot import LowShotSettings
from vidlbc.experiments.machine_perception.probe import ProbeSettings
from vidlbc.experiments.machine_perception.study import StudySettings, run_study
from vidlbc.heads.resnet import ResNetSettings
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.schedule import Budget


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_clip) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    motions = {"down": (0.0, 2.0), "left": (-2.0, 0.0), "right": (2.0, 0.0), "up": (0.0, -2.0)}
    rows = ["path,label,group,split"]
    for label, motion in motions.items():
        for number, split in enumerate(("train", "train", "val", "test")):
            make_clip(folder / f"{label}{number}.mp4", frames=4, size=(64, 64), motion=motion, seed=number)
            rows.append(f"{label}{number}.mp4,{label},g{number},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> StudySettings:
    head = HeadSettings(ResNetSettings(width=4, depths=(1, 1, 1, 1), norm="group"), "lstm", state=4, change=True)
    encoder = EncoderSettings(
        "codevilla",
        {"N": 8, "z_stride": 64, "prior_widths": [8, 8], "prior_blocks": 1},
        (PictureSource(str(corpus)),),
        Budget(steps=2),
        size=64,
        batch=2,
        bf16=False,
        task=TaskSettings(2, 2, 1, 4),
        head=head,
    )
    return StudySettings(
        str(corpus / "labels.csv"),
        ClipSettings(64, 4, 1),
        corpus / "cache",
        tmp_path / "out",
        encoder,
        ("naive", "action_base"),
        qps=(40,),
        coded_every=1,
        sample=4,
        copies=CopySettings(count=2),
        probe=ProbeSettings(steps=1, batch=2, seeds=1, frames=2, kept=2),
        low_shot=LowShotSettings(novel=("left", "right"), shots=(1, 2), draws=2, seeds=1),
    )


@pytest.mark.slow
def test_the_study_runs_resumes_and_is_told(settings, capsys):
    # Parts first, as several machines would: an encoder, then the heads of one medium.
    assert run_study(replace(settings, only="action_base")) is None
    request = json.loads((settings.out / "encoders" / "action_base" / "training" / "request.json").read_text())
    head_alone = settings.out / "encoders" / "action_base" / "training" / "head" / "log.jsonl"
    assert json.loads(head_alone.read_text().splitlines()[-1])["step"] == 1
    assert request["classes"] == ["down", "up"], "an encoder for low-shot must not be informed by the novel classes"
    assert run_study(replace(settings, media=("x264",))) is None
    assert not (settings.out / "metrics.json").exists()
    head_log = settings.out / "heads" / "qp40" / "x264" / "full" / f"lr{settings.probe.lrs[0]:g}-seed0" / "log.jsonl"
    before = head_log.stat().st_mtime_ns

    figures = run_study(settings)
    assert figures is not None and head_log.stat().st_mtime_ns == before, "a trained head is taken as it is"
    rate = figures["rates"][0]
    assert list(rate["media"]) == ["naive", "action_base", "x264", "jpeg", "rgb"]
    for name, medium in rate["media"].items():
        if name == "rgb":
            assert medium["bytes"] is None
            continue
        streams = settings.out / "media" / "qp40" / name / "streams.bin"
        assert medium["bytes"] == streams.stat().st_size and 0.5 < medium["bytes"] / rate["target"] < 2
        with safe_open(streams.with_name("frames.safetensors"), "pt") as kept:
            assert kept.get_slice("0").get_shape()[0] == 16 + 2 * 8, "16 clips, two copies of 8 training clips"
    for kind in ("resnet", "linear"):
        assert set(rate[kind]["full"]) == {"naive", "x264", "jpeg", "rgb"}
        assert set(rate[kind]["low_shot"]) == {"naive", "action_base", "x264", "jpeg", "rgb"}
        assert "difference" not in rate[kind]["full"]["naive"] and "difference" in rate[kind]["full"]["rgb"]
        assert rate[kind]["low_shot"]["rgb"]["2"]["clips"] == 2
    printed = capsys.readouterr().out
    assert "ResNet top-1 [95%]" in printed and "action_base" in printed
    assert (settings.out / "plots" / "low_shot_linear_qp40.png").stat().st_size > 1000

    stored = (settings.out / "metrics.json").read_bytes()
    assert run_study(settings) == figures
    assert (settings.out / "metrics.json").read_bytes() == stored

    codec = vidlbc.load(settings.out / "encoders" / "action_base", device="cpu")
    assert codec.levels[0].channels == 8

    other = replace(settings, encoder=replace(settings.encoder, weight=9.0))
    with pytest.raises(InputError, match="holds a run with task.weight=1.0, this one has task.weight=9.0"):
        run_study(other)
    other = replace(settings, copies=replace(settings.copies, count=3))
    with pytest.raises(InputError, match="holds a run with copies.count=2, this one has copies.count=3"):
        run_study(other)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"encoders": ("clever",)}, "encoder 'clever': expected one of naive, class, action, class_base, action_base"),
        ({"encoders": ("action_base",)}, "expected at least one, the first not"),
        ({"anchors": ("x265",)}, "anchors: unknown 'x265', expected some of x264, jpeg, rgb"),
        ({"media": ("class",)}, "media: 'class' is neither among encoders nor among anchors"),
        ({"qps": (64,)}, "64"),
    ],
)
def test_wrong_settings_are_told(settings, change, message):
    with pytest.raises(InputError, match=message):
        replace(settings, **change)


@pytest.fixture(scope="module")
def clips(corpus: Path) -> ClipSet:
    return load_clips(corpus / "labels.csv", ClipSettings(64, 4, 1), corpus / "cache").split("train")


@pytest.mark.slow
def test_task_clips_are_a_pure_function_of_the_step(clips):
    batches = TaskClips(clips, TaskSettings(clips=6, frames=3), seed=1, classes=[1, 3])
    a, b, c = batches(5), batches(5), batches(6)
    assert torch.equal(a.clips, b.clips) and torch.equal(a.labels, b.labels)
    assert not torch.equal(a.clips, c.clips)
    assert a.clips.shape == (6, 3, 3, 64, 64) and set(a.labels.tolist()) <= {0, 1}
    assert 0 <= float(a.clips.min()) and float(a.clips.max()) <= 1


def test_task_clips_need_clips_of_every_class(clips):
    with pytest.raises(InputError, match="class up has no clip in the train split"):
        TaskClips(clips.subset([i for i in range(len(clips)) if clips.labels[i] != 3]), TaskSettings(), 0, [0, 3])


def test_crops_come_from_pictures_and_from_task_clips(clips, tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(tmp_path / "a.png")
    crops = compression_crops([PictureSource(str(tmp_path))], clips, 2, 64, 4, 0)
    assert len(crops.pictures) == 1 + 2 * len(clips)
    frames, qp = crops(0)
    assert frames.shape == (4, 3, 64, 64) and qp.shape == (4,)
    with pytest.raises(InputError, match="as large as train.size=128"):
        compression_crops([PictureSource(str(tmp_path))], clips, 2, 128, 4, 0)


def test_copies_are_changed_alike_over_a_clip_and_always_the_same(clips):
    frames = np.repeat(clips.clips[0][:1], 3, axis=0)
    some = make_copies([frames, clips.clips[1]], [0, 1], CopySettings(count=2), seed=3)
    again = make_copies([frames, clips.clips[1]], [1], CopySettings(count=2), seed=3)
    assert some.origin.tolist() == [0, 1, 0, 1] and some.of([1], clips=10) == [11, 13]
    assert all(np.array_equal(a, b) for a, b in zip(some.clips[1::2], again.clips, strict=True))
    first, second = some.clips[0], some.clips[2]
    assert first.shape == frames.shape and first.dtype == np.uint8
    assert (first == first[:1]).all(), "frames that are alike stay alike"
    assert not np.array_equal(first, second) and not np.array_equal(first, frames)
    assert abs(first.mean() - frames.mean()) < 40, "still a picture of the same scene"
    same = make_copies([frames], [0], CopySettings(1, 0.0, 0.0, 0.0), seed=3).clips[0]
    assert np.abs(same.astype(int) - frames).max() <= 1
    assert make_copies([frames], [0], CopySettings(count=0), seed=3).clips == []


@pytest.mark.parametrize("wrong", [{"count": -1}, {"scale": 1.0}, {"shift": -0.1}])
def test_copies_that_cannot_be_are_told(wrong):
    with pytest.raises(InputError, match=f"copies.{next(iter(wrong))}="):
        CopySettings(**wrong)
