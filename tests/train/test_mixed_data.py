"""Mixed supervision: what a batch says of each sample is true of its source; a batch is a function of its step alone.

Every file has one brightness, so that a crop tells what it was cut from.
"""

from __future__ import annotations

import json
from collections import Counter

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vidlbc.errors import InputError
from vidlbc.train.data.mixed_data import LabelTask, MixedSampler, MixedSource

CPU = torch.device("cpu")
SIZE = 16


def save(path, value, width=40, height=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, value, value)).save(path)


def save_clip(path, values, side=32):
    """Lossless frames of the brightnesses `values`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = "bgr0"
        for value in values:
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`clips`: two classes, brightness 10 or 20; `weak`: class folders, 100 to 102; `plain`: 200 to 203."""
    root = tmp_path_factory.mktemp("mixed")
    rows = ["path,label,group,split"]
    for name, value, split in (("a", 10, "train"), ("b", 20, "train"), ("c", 30, "test"), ("d", 15, "train")):
        save_clip(root / "clips" / f"{name}.mkv", [value] * 3)
        rows.append(f"{name}.mkv,{'' if name == 'd' else 'up' if value != 20 else 'down'},{name},{split}")
    (root / "clips" / "labels.csv").write_text("\n".join(rows))
    for i, name in enumerate(("train/ape/1.png", "train/cow/2.png", "train/cow/3.png", "val/cow/9.png")):
        save(root / "weak" / name, 100 + i, width=400, height=100)
    for i in range(4):
        save(root / "plain" / f"{i} ü.png", 200 + i)
    (root / "plain" / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    save(root / "plain" / "small.png", 250, width=15)
    return root


def sampler_of(*entries, batch=8, size=SIZE, seed=0, **more):
    return MixedSampler([MixedSource.of(entry) for entry in entries], size, batch, 64, seed, CPU, **more)


def mixed(data, **more):
    return sampler_of(
        {"path": str(data / "clips" / "labels.csv"), "labels": "full", "share": 0.25},
        {"path": str(data / "weak"), "labels": "weak", "weight": 0.25},
        str(data / "plain"),
        **more,
    )


def rows_of(sampler, steps):
    """(brightness, label, weight, task) of every sample."""
    for step in range(steps):
        batch = sampler(step)
        assert batch.frames.shape == (sampler.batch, 3, sampler.size, sampler.size)
        for crop, label, weight, task in zip(batch.frames, batch.label, batch.weight, batch.task, strict=True):
            assert crop.min() == crop.max()
            yield round(crop.max().item() * 255), label.item(), round(weight.item(), 6), task.item()


@pytest.mark.slow
def test_labels_weights_and_tasks_are_those_of_the_source(data):
    sampler = mixed(data)
    assert sampler.tasks == (LabelTask("clips", ("down", "up")), LabelTask("weak", ("ape", "cow")))
    seen = Counter(rows_of(sampler, 40))
    assert set(seen) == {
        (10, 1, 1.0, 0),
        (20, 0, 1.0, 0),
        (15, -1, 0.0, -1),  # d.mkv has no label
        (100, 0, 0.25, 1),
        (101, 1, 0.25, 1),
        (102, 1, 0.25, 1),  # brought down, colours kept
        (200, -1, 0.0, -1),
        (201, -1, 0.0, -1),
        (202, -1, 0.0, -1),
        (203, -1, 0.0, -1),
    }
    batch = sampler(0)
    assert batch.frames.dtype == batch.weight.dtype == torch.float32
    assert batch.label.dtype == batch.task.dtype == batch.qp.dtype == torch.int64
    assert {qp for step in range(40) for qp in sampler(step).qp.tolist()} > {0, 31, 63}


def test_shares_hold_in_every_batch(data):
    """A quarter by its share; the rest by the root of the files, 3 to 6 (two of which cannot be read)."""
    sampler = mixed(data)
    rest = 0.75 / (3**0.5 + 6**0.5)
    assert sampler.shares == pytest.approx([0.25, rest * 3**0.5, rest * 6**0.5])
    assert "25% of a batch, full labels of 'clips'" in sampler.describe().splitlines()[0]
    rows = list(rows_of(sampler, 30))
    for step in range(30):
        values = [value for value, *_ in rows[8 * step : 8 * step + 8]]
        assert sum(value <= 30 for value in values) == 2
        assert sum(100 <= value < 200 for value in values) in (2, 3)


def test_a_batch_is_a_pure_function_of_seed_rank_and_step(data):
    first = mixed(data)
    batches = [first(step) for step in range(6)]
    again = mixed(data)
    for step in (5, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(again(step), batches[step], strict=True))
    assert not torch.equal(batches[0].frames, batches[1].frames)
    for other in (mixed(data, seed=1), mixed(data, rank=1)):
        assert not torch.equal(other(0).frames, batches[0].frames)


def test_pools_bound_memory_and_a_step_needs_no_earlier_pool(tmp_path):
    for i in range(6):
        save(tmp_path / f"{i}.png", 10 * i, width=700, height=300)  # 0.6 MiB
    seen = []
    pooled = sampler_of(str(tmp_path), pool_mb=1, steps_per_pool=4, on_read=lambda done, total: seen.append(done))
    batches = [pooled(step) for step in range(12)]
    assert max(seen) == 2 and seen.count(1) == 3
    assert all(len(torch.unique(batch.frames)) <= 2 for batch in batches)
    assert len(torch.unique(torch.cat([batch.frames for batch in batches]))) > 2
    late = sampler_of(str(tmp_path), pool_mb=1, steps_per_pool=4)
    for step in (9, 2):
        assert torch.equal(late(step).frames, batches[step].frames)


def test_what_cannot_be_read_is_told_once_and_counted(data, capsys):
    sampler = mixed(data)
    for step in range(3):
        sampler(step)
    told = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": ")[1].rpartition("/")[2] for line in told) == ["damaged.jpg", "small.png"]
    assert len(sampler.skipped) == 2
    mixed(data, rank=1)(0)
    assert capsys.readouterr().err == ""


def test_a_file_read_again_for_a_later_pool_is_not_told_again(tmp_path, capsys):
    for i in range(4):
        save(tmp_path / f"{i}.png", 10 * i, width=700, height=300)
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    reads = []
    sampler = sampler_of(str(tmp_path), pool_mb=1, steps_per_pool=1, on_read=lambda done, total: reads.append(done))
    for step in range(12):
        sampler(step)
    assert reads.count(1) == 12 and reads.count(3) >= 2  # 12 pools of two pictures; the damaged one in several
    assert capsys.readouterr().err.count("left out") == len(sampler.skipped) == 1


def test_many_that_cannot_be_read_are_told_as_a_number(tmp_path, capsys):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    save(tmp_path / "good.png", 5)
    sampler = sampler_of(str(tmp_path))
    sampler(0)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and told[-1] == f"left out: 6 more files of {tmp_path}" and len(sampler.skipped) == 9


def test_a_video_gives_frames_from_all_of_it_or_of_its_range(tmp_path):
    save_clip(tmp_path / "long.mkv", range(200))
    (tmp_path / "labels.csv").write_text("path,label,start,stop\nlong.mkv,a,,\nlong.mkv,b,50,60\n")
    entry = {"path": str(tmp_path / "labels.csv"), "labels": "full", "frames_per_video": 4}
    seen = {label: set() for label in (0, 1)}
    for value, label, _, _ in rows_of(sampler_of(entry), 30):
        seen[label].add(value)
    assert seen[1] == {50, 53, 56, 59}
    assert len(seen[0]) == 4 and min(seen[0]) == 0 and max(seen[0]) >= 190


def test_sources_of_the_same_classes_share_a_task_in_any_order(tmp_path):
    for folder, value in (("one", 10), ("two", 50)):
        for offset, name in enumerate(("x", "y")):
            save(tmp_path / folder / f"{name}.png", value + offset)
    (tmp_path / "one" / "labels.csv").write_text("path,label\nx.png,left\ny.png,right\n")
    (tmp_path / "two" / "labels.csv").write_text("path,label\nx.png,0\ny.png,1\n")
    (tmp_path / "two" / "classes.txt").write_text("right\nleft\n")
    entries = [{"path": str(tmp_path / name / "labels.csv"), "labels": "full"} for name in ("one", "two")]
    sampler = sampler_of(*entries)
    assert sampler.tasks == (LabelTask("one", ("left", "right")),)
    assert {(value, label) for value, label, _, _ in rows_of(sampler, 10)} == {(10, 0), (11, 1), (50, 1), (51, 0)}


def test_tasks_of_the_same_name_are_told_apart(tmp_path):
    for place in ("a/set", "b/set"):
        for name in ("train/1", "train/2"):
            save(tmp_path / place / name.replace("train/", f"train/{place[0]}") / "p.png", 5)
    sampler = sampler_of(*({"path": str(tmp_path / p / "set"), "labels": "full"} for p in "ab"))
    assert [task.name for task in sampler.tasks] == ["set", "set-2"]


def test_labelled_pictures_are_not_turned_and_not_mirrored_where_that_changes_the_label(tmp_path):
    ramp = np.repeat(np.linspace(0, 250, 20).astype(np.uint8)[None], 20, 0)
    for name in ("train/a/1.png", "train/b/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / name)

    def slopes(**more):
        frames = torch.cat([sampler_of({"path": str(tmp_path), **more})(step).frames for step in range(6)])
        right = (frames[:, 0, 0, -1] - frames[:, 0, 0, 0]).sign().tolist()
        down = (frames[:, 0, -1, 0] - frames[:, 0, 0, 0]).sign().tolist()
        return set(zip(right, down, strict=True))

    assert slopes(labels="full", flip=False) == {(1, 0)}
    assert slopes(labels="full") == {(1, 0), (-1, 0)}
    assert slopes() == {(1, 0), (-1, 0), (0, 1), (0, -1)}


@pytest.mark.slow
def test_a_picture_set_gives_its_train_pictures_and_no_masks(tmp_path, data):
    root = tmp_path / "cityscapes"
    save(root / "leftImg8bit/train/aachen/aachen_0_1_leftImg8bit.png", 60)
    save(root / "leftImg8bit/val/ulm/ulm_0_1_leftImg8bit.png", 70)
    save(root / "gtFine/train/aachen/aachen_0_1_gtFine_labelIds.png", 80)
    assert {value for value, *_ in rows_of(sampler_of(str(root)), 4)} == {60}
    assert {value for value, *_ in rows_of(sampler_of({"path": str(root), "form": "files"}), 8)} == {60, 70, 80}
    with pytest.raises(InputError, match=r"labels=full, expected a source with class labels \(cityscapes: none\)"):
        sampler_of({"path": str(root), "labels": "full"})
    unlabelled = sampler_of(str(data / "weak"))
    assert unlabelled.tasks == () and {row[1:] for row in rows_of(unlabelled, 2)} == {(-1, 0.0, -1)}


def test_weak_labels_cannot_be_taken_for_full_ones(tmp_path):
    save(tmp_path / "train" / "00ab.jpg", 60)
    (tmp_path / "class-descriptions.csv").write_text("/m/1,Dog\n")
    (tmp_path / "train-annotations-human-imagelabels.csv").write_text("ImageID,LabelName,Confidence\n00ab,/m/1,1\n")
    with pytest.raises(InputError, match="the labels of openimages are weak, expected labels: weak"):
        sampler_of({"path": str(tmp_path), "labels": "full"})
    sampler = sampler_of({"path": str(tmp_path), "labels": "weak", "weight": 0.5})
    assert {row[1:] for row in rows_of(sampler, 2)} == {(0, 0.5, 0)}


def test_a_listed_picture_that_is_missing_is_left_out(tmp_path):
    save(tmp_path / "train2017" / "1.png", 60)
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 24} for i in (1, 2)]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(
        json.dumps({"images": images, "categories": [], "annotations": []})
    )
    sampler = sampler_of(str(tmp_path))
    assert {value for value, *_ in rows_of(sampler, 2)} == {60}
    assert [path.rpartition("/")[2] for path in sampler.skipped] == ["2.png"]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"folder": "x"}, r"expected a path, or {path: ...} with any of \['labels', 'weight'"),
        ({"path": "x", "lables": "full"}, "expected a path, or {path: ...}"),
        (7, "expected a path, or {path: ...}"),
        ({"path": "x", "labels": "yes"}, "x: labels='yes', expected full, weak or none"),
        ({"path": "x", "weight": 2}, "x: weight=2, expected a number from 0 to 1"),
        ({"path": "x", "weight": True}, "x: weight=True, expected a number from 0 to 1"),
        ({"path": "x", "every": 0}, "x: every=0, expected an integer of at least 1"),
        ({"path": "x", "frames_per_video": 0}, "x: frames_per_video=0, expected at least 1"),
        ({"path": "x", "share": 1.5}, "x: share=1.5, expected above 0, at most 1"),
        ({"path": "x", "flip": "no"}, "x: flip='no', expected true or false"),
        ({"path": "x", "form": "mnist"}, "x: form='mnist', expected auto, files, coco"),
    ],
)
def test_entries_that_are_wrong(entry, says):
    with pytest.raises(InputError, match=says) as caught:
        MixedSource.of(entry)
    assert "\n" not in str(caught.value)


def test_sources_that_are_wrong(data, tmp_path):
    plain = str(data / "plain")
    with pytest.raises(InputError, match="data sources: none given"):
        sampler_of()
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        sampler_of(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no picture and no video"):
        sampler_of(str(tmp_path))
    with pytest.raises(InputError, match="shares add up to 1.2, expected 1"):
        sampler_of({"path": plain, "share": 0.5}, {"path": plain, "share": 0.7})
    with pytest.raises(InputError, match="shares add up to 1, expected less than 1, as others have none"):
        sampler_of({"path": plain, "share": 1.0}, plain)
    with pytest.raises(InputError, match="none of 6 files gives 300 pixels a side; .*png: smaller than 300"):
        sampler_of(plain, size=300)(0)
    with pytest.raises(InputError, match="batch=0: expected at least 1"):
        sampler_of(plain, batch=0)
    (tmp_path / "val.csv").write_text("path,label\nx.png,a\n")
    save(tmp_path / "x.png", 3)
    with pytest.raises(InputError, match=r"val.csv: no train split \(splits found: val\)"):
        sampler_of({"path": str(tmp_path / "val.csv"), "labels": "full"})
