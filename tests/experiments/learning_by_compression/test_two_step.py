"""The loop: its plan, asymmetric dropout, the threshold, and that a killed run goes on to the same history."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vidlbc
from tests.experiments.learning_by_compression.conftest import VARIANTS
from tests.processes import ScriptProcess
from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.experiments.learning_by_compression.command import settings_of
from vidlbc.experiments.learning_by_compression.study import StudySettings, run_study
from vidlbc.experiments.learning_by_compression.two_step import TwoStepSettings, plan

REPO = Path(__file__).resolve().parents[3]
SETTINGS = TwoStepSettings(first=100, raising=40, holding=60, keep_earlier=0.5)


def test_the_plan_holds_then_raises_variant_after_variant():
    phases = plan(VARIANTS, SETTINGS)
    assert [(p.variant, p.kind, p.steps, p.offset) for p in phases] == [
        ("V1", "hold", 100, 0),
        ("V2", "raise", 40, 100),
        ("V2", "hold", 60, 140),
        ("V3", "raise", 40, 200),
        ("V3", "hold", 60, 240),
    ]


def test_dropout_keeps_first_channels_between_both_variants_and_arrives():
    raising = plan(VARIANTS, SETTINGS)[3]
    drawn = [raising.channels(step, seed=0, keep_earlier=0.0) for step in range(40)]
    low, high = VARIANTS["V3"], VARIANTS["V2"]
    assert all(a <= k <= b for kept in drawn for a, k, b in zip(low, kept, high, strict=True))
    assert len(set(drawn[:30])) > 5 and set(drawn[30:]) == {low}
    assert drawn == [raising.channels(step, seed=0, keep_earlier=0.0) for step in range(40)]
    assert drawn != [raising.channels(step, seed=1, keep_earlier=0.0) for step in range(40)]


def test_a_share_of_the_steps_keeps_earlier_variants_alive():
    holding = plan(VARIANTS, SETTINGS)[4]
    drawn = [holding.channels(step, seed=0, keep_earlier=0.5) for step in range(400)]
    counts = {name: drawn.count(kept) for name, kept in VARIANTS.items()}
    assert sum(counts.values()) == 400
    assert 160 < counts["V3"] < 240 and min(counts["V1"], counts["V2"]) > 60
    assert {holding.channels(step, seed=0, keep_earlier=0.0) for step in range(50)} == {VARIANTS["V3"]}


def test_variants_must_be_nested():
    with pytest.raises(InputError, match=r"stage\.variants: V2 .* does not truncate"):
        plan({"V1": (1, 2, 4, 8), "V2": (0, 3, 4, 8)}, SETTINGS)


def settings(arguments: list[str]) -> StudySettings:
    return settings_of(compose("learn_by_compression", arguments))


def kill_when(process: ScriptProcess, there: Path) -> None:
    deadline = time.monotonic() + 240
    while not there.exists() and process.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there.exists() and process.running()
    process.kill()
    process.finish(timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_command_raises_cr_twice_and_survives_a_kill(command, run_tool, tmp_path, make_frames, capsys):
    run_study(settings(command(tmp_path / "whole")))
    printed = capsys.readouterr().out
    checkpoint = tmp_path / "killed" / "phases" / "03-V2-hold" / "checkpoint.safetensors"
    script = str(REPO / "tools" / "learn_by_compression.py")
    kill_when(ScriptProcess([script, *command(tmp_path / "killed")], tmp_path), checkpoint)
    last = run_tool("learn_by_compression", *command(tmp_path / "killed"))
    assert last.returncode == 0, last.stderr
    for name in ("phases/history.json", "metrics.json", "model/image_stage/model.safetensors", "streams/V3.vlbc"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    assert (tmp_path / "whole" / "history.png").stat().st_size > 1000

    history = json.loads((tmp_path / "whole" / "phases" / "history.json").read_text())
    assert history["accepted"] == ["V1", "V2", "V3"]
    assert [list(p["measured"]) for p in history["phases"]] == [["V1"], *[["V1", "V2"]] * 2, *[["V1", "V2", "V3"]] * 2]
    figures = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert figures["last_above_threshold"] == "V3"
    assert [task["frames"] for task in figures["recogniser"].values()] == [2]
    assert all(stream["same_in_another_process"] for stream in figures["streams"].values())
    assert "3 of 3 variants to the same frames" in printed and "last variant above the threshold: V3" in printed

    codec = vidlbc.load(tmp_path / "whole" / "model", device="cpu")
    frames = make_frames(2, (64, 96))
    sizes = [len(codec.compress(frames, qp=32, variant=name)) for name in ("V1", "V2", "V3")]
    assert sizes == sorted(sizes, reverse=True)
    assert np.asarray(codec.decompress(codec.compress(frames, qp=32, variant="V2"))).shape == frames.shape


@pytest.mark.slow
def test_the_loop_stops_at_the_threshold_and_keeps_the_weights_before_it(command, tmp_path):
    out = tmp_path / "out"
    # Nothing is learned in single steps this small: V2 stays below V1, and the threshold is put between them.
    steps = ["loop.first=1", "loop.raising=1", "loop.holding=1", "train.lr=1e-6", "recogniser.steps=1"]
    with pytest.raises(InputError, match=r"loop\.rq_threshold: V1: RQ [\d.]+ is below 9 after 1 steps"):
        run_study(settings(command(out, *steps, "loop.rq_threshold=9")))
    rq = json.loads((out / "phases" / "history.json").read_text())["phases"][0]["measured"]["V1"]["rq"]

    # A lower threshold goes on with the run.
    run_study(settings(command(out, *steps, f"loop.rq_threshold={rq - 1e-3:.6f}")))
    history = json.loads((out / "phases" / "history.json").read_text())
    assert history["accepted"] == ["V1"] and history["stopped"].startswith("V2: RQ ")
    assert len(history["phases"]) == 3
    # The model is the one before V2 was tried, and offers no variant that did not hold.
    assert vidlbc.load(out / "model", device="cpu").variants == ("V1",)
    tensors = load_file(out / "model" / "image_stage" / "model.safetensors")
    kept = load_file(out / "phases" / "01-V1-hold" / "model" / "image_stage" / "model.safetensors")
    assert tensors.keys() == kept.keys() and all(torch.equal(tensors[name], kept[name]) for name in kept)


def test_another_command_in_the_same_folder_is_refused(command, tmp_path):
    (tmp_path / "request.json").write_text('{"seed": 1}')
    with pytest.raises(InputError, match="choose another out="):
        run_study(settings(command(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("out=null", "data.train, data.val and out must be given"),
        ("train.size=48", "train.size=48: expected a multiple of 32"),
        ("loop.holding=0", "loop.holding=0: expected at least 1 step"),
        ("loop.keep_earlier=1.0", "loop.keep_earlier=1.0: expected a share"),
        ("loss.corr_join=[0.0]", "loss.corr_join has 1 values, loss.corr_distance 3"),
        ("evaluator.pixel=null", None),
    ],
)
def test_bad_settings_are_one_line(command, tmp_path, change, told):
    if told is None:  # a proxy may be left out
        assert set(settings(command(tmp_path, change)).evaluator) == {"patch", "semantic"}
        return
    with pytest.raises(InputError) as error:
        run_study(settings(command(tmp_path, change)))
    assert str(error.value).startswith(told) and "\n" not in str(error.value)
