"""Table 1 from live models, and CR and RQ over a set of frames from the bytes that were written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vidlbc
from tests.experiments.learning_by_compression.conftest import TINY, VARIANTS
from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.errors import InputError
from vidlbc.experiments.learning_by_compression import Evaluator, Pixels, compression_ratio, element_table
from vidlbc.experiments.learning_by_compression.evaluator import Marks
from vidlbc.experiments.learning_by_compression.held_out import HeldOutSource, read_held_out
from vidlbc.experiments.learning_by_compression.ratio import FrameSet, measure
from vidlbc.experiments.learning_by_compression.schedules import Ramp
from vidlbc.run.atomic_files import dump_json
from vidlbc.train.data.mixed_data import LabelTask


@pytest.fixture
def model(tmp_path):
    """An untrained model with variants, as a folder."""
    torch.manual_seed(0)
    options = {**TINY, "variants": {name: list(kept) for name, kept in VARIANTS.items()}}
    stage = build_image_stage("lbc", **options)
    models.save_image_stage(stage, tmp_path / "image_stage", {"family": "lbc", "options": options})
    (tmp_path / "config.json").write_bytes(dump_json({"format": models.FORMAT, "temporal": "none"}))
    return tmp_path


def test_table_one_is_the_papers(call_tool):
    done = call_tool("learn_by_compression", "table=true")
    assert done.returncode == 0, done.stderr
    printed = [line.replace(" x ", "x").split() for line in done.stdout.splitlines()]
    rows = [row for row in printed if row and (row[0].isdigit() or row[0] == "CR")]
    assert rows == [
        ["0", "256x256", "3", "0", "0", "0"],
        ["1", "64x64", "0", "2", "1", "0"],
        ["2", "32x32", "0", "4", "2", "2"],
        ["3", "16x16", "0", "8", "4", "3"],
        ["4", "8x8", "0", "16", "8", "4"],
        ["CR", "1.0", "12.8", "25.6", "64.0"],
    ]


def test_the_table_counts_what_the_model_gives_not_what_it_was_asked_for():
    stage = build_image_stage("lbc", **{**TINY, "channels": [1, 4, 8, 16]})
    table = element_table(stage, {"V1": (2, 4, 8, 16)}, side=64)
    # The model has one channel at stride 4, so a variant that wants two gets one.
    assert table.rows[1].channels == (0, 1) and table.rows[1].size == (16, 16)
    assert table.ratios[1] == pytest.approx(64 * 64 * 3 / (16 * 16 + 4 * 8 * 8 + 8 * 4 * 4 + 16 * 2 * 2))


def test_compression_ratio_is_of_sums():
    assert compression_ratio([100, 300], [10, 10]) == 20


def test_bytes_are_those_of_the_file_and_quality_that_of_what_it_decodes_to(model, make_frames):
    codec = vidlbc.load(model, device="cpu")
    frames = make_frames(3, (64, 64))
    held_out = FrameSet(frames, Marks.none(3), ("a", "b", "c"))
    evaluator = Evaluator((Pixels(),), {"pixel": Ramp(1, 1)})
    found = {name: measure(codec, held_out, evaluator, 32, name) for name in VARIANTS}
    assert [round(found[name].cr, 1) for name in VARIANTS] == [12.8, 25.6, 64.0]
    for name in VARIANTS:
        data = codec.compress(frames, qp=32, variant=name)
        assert found[name].cr_bytes == pytest.approx(frames.size / len(data))
        assert found[name].bpp == pytest.approx(8 * len(data) / (3 * 64 * 64))
        error = np.abs(codec.decompress(data).astype(float) - frames).mean((1, 2, 3)) / 255
        assert found[name].rq == pytest.approx(float(-np.log(error).mean()), rel=1e-4)
        assert found[name].rq_low <= found[name].rq <= found[name].rq_high
    assert found["V3"].cr_bytes > found["V2"].cr_bytes > found["V1"].cr_bytes


def test_held_out_frames_carry_the_labels_of_the_trainings_tasks(corpus):
    sources = [HeldOutSource(str(corpus / "val")), HeldOutSource(str(corpus / "labels.csv"), split="val", weight=0.5)]
    held_out = read_held_out(sources, 64, [LabelTask("other", ("a",)), LabelTask("motion", ("right", "down"))])
    assert held_out.frames.shape == (4, 64, 64, 3) and held_out.frames.dtype == np.uint8
    told = dict(zip(held_out.names, held_out.marks.label.tolist(), strict=True))
    assert told["right/2.mp4"] == 0 and told["down/2.mp4"] == 1
    assert held_out.marks.label.tolist()[:2] == [-1, -1]
    assert held_out.marks.weight.tolist() == [0, 0, 0.5, 0.5] and held_out.marks.task.tolist()[2:] == [1, 1]


def test_held_out_labels_of_no_task_are_refused(corpus):
    with pytest.raises(InputError, match="its classes are those of no labelled source"):
        read_held_out([HeldOutSource(str(corpus / "labels.csv"), split="val")], 64, [LabelTask("other", ("a", "b"))])
