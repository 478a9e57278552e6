"""The two studies as a user runs them: a table, figures, pictures; a second run repeats nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.experiments.blocks.command import settings_of as block_settings
from vidlbc.experiments.blocks.study import run_block_study
from vidlbc.experiments.transfer.command import settings_of as transfer_settings
from vidlbc.experiments.transfer.study import run_transfer

REPO = Path(__file__).resolve().parents[3]
HEAD = {
    "frames": 4,
    "strides": "[8,16]",
    "grid": 2,
    "basis": 2,
    "dropout": 0.0,
    "steps": 60,
    "tuned_steps": 2,
    "batch": 4,
    "lr": 0.02,
    "weight_decay": 0.0,
    "ema": 0.5,
}
DENSE = {"steps": 3, "batch": 2, "size": 64, "ema": 0.5}


def arguments(data, model, out):
    parts = [f"classes.train.{name}={value}" for name, value in HEAD.items()]
    for task in ("boundaries", "super_resolution"):
        parts += [f"{task}.training.{name}={value}" for name, value in DENSE.items()]
    return parts + [
        f"model={model}",
        f"out={out}",
        f"data.segmentation={data / 'segmentation'}",
        f"classes.sets=[{{motions: '{data / 'clips' / 'labels.csv'}'}}]",
        "classes.contestants=[pretrained/frozen,random/frozen,random/tuned]",
        "classes.clips.size=64",
        "classes.clips.frames=8",
        "classes.clips.every=1",
        f"boundaries.train=['{data / 'train'}']",
        f"boundaries.test=['{data / 'val'}']",
        "boundaries.contestants=[pretrained/frozen,klt/tuned]",
        f"super_resolution.train=['{data / 'train'}']",
        f"super_resolution.test=[{{squares: '{data / 'val'}'}}]",
        "super_resolution.contestants=[pretrained/frozen+identity]",
    ]


@pytest.mark.slow
def test_transfer_from_start_to_end(run_tool, data, small_model, tmp_path, capsys):
    out = tmp_path / "out"
    given = arguments(data, small_model, out)
    first = run_tool("transfer", *given)
    assert first.returncode == 0, first.stderr
    assert "motions: classification from f, 2 test clips" in first.stdout
    figures = json.loads((out / "metrics.json").read_text())["tasks"]
    assert set(figures) == {"boundaries", "motions", "super_resolution"}
    motions, edges, sharp = figures["motions"], figures["boundaries"], figures["super_resolution"]
    assert set(motions) == {"baseline", "pretrained/frozen", "random/frozen", "random/tuned"}
    assert motions["baseline"]["top1"] == 0.5 and motions["random/tuned"]["steps"] == 2
    for row in motions.values():
        assert row["top1_ci95"][0] <= row["top1"] <= row["top1_ci95"][1] and row["clips"] == 2
    assert motions["pretrained/frozen"]["train_loss"] < 0.6  # chance is 0.69
    assert set(motions["pretrained/frozen"]["top1_above"]) == {"random/frozen", "random/tuned"}
    assert set(edges) == {"baseline", "pretrained/frozen", "klt/tuned"}
    # Within 0.8 pixels; marking everything would give 0.1.
    assert edges["baseline"]["ods"] > 0.2 and edges["baseline"]["pictures"] == 2
    assert all(0 <= row[name] <= 1 for row in edges.values() for name in ("ods", "ois", "ap"))
    squares = sharp["pretrained/frozen+identity"]["squares"]
    assert sharp["baseline"]["squares"]["gain"] == 0 and squares["psnr"] > 0 and squares["pictures"] == 2
    assert squares["gain"] == pytest.approx(squares["psnr"] - sharp["baseline"]["squares"]["psnr"])
    assert (out / "table.txt").read_text() in first.stdout
    for name in ("boundaries.png", "super_resolution.png", "motions_loss.png", "boundaries_loss.png"):
        assert np.array(Image.open(out / name)).std() > 5, name

    # Again: nothing is trained; a row that is missing is, to the same figures.
    kept = (out / "boundaries" / "klt_tuned" / "checkpoint.safetensors").stat().st_mtime_ns
    (out / "super_resolution" / "pretrained_frozen_identity" / "result.json").unlink()
    run_transfer(transfer_settings(compose("transfer", given)))
    assert capsys.readouterr().out in first.stdout
    assert json.loads((out / "metrics.json").read_text())["tasks"] == figures
    assert (out / "boundaries" / "klt_tuned" / "checkpoint.safetensors").stat().st_mtime_ns == kept

    with pytest.raises(InputError, match="super_resolution.scale=2, this one has super_resolution.scale=4"):
        run_transfer(transfer_settings(compose("transfer", [*given, "super_resolution.scale=4"])))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, message",
    [
        ("classes.contestants=[pretrained/best]", "contestant 'pretrained/best': expected START/PART"),
        ("classes.contestants=[klt/tuned+identity]", "a linear head has no use for identity connections"),
        ("boundaries.test=null", "boundaries.test and data.segmentation are needed too"),
        ("super_resolution.scale=1", "super_resolution.scale=1: expected at least 2"),
        ("classes.sets=[actions]", "classes.sets=['actions']: expected [{NAME: PLACE}, ...]"),
    ],
)
def test_what_cannot_be_run_is_one_line(data, small_model, tmp_path, change, message):
    given = [a for a in arguments(data, small_model, tmp_path / "out") if not a.startswith(change.split("=")[0] + "=")]
    if change.startswith("super_resolution"):
        given = [a for a in given if not a.startswith(("classes.sets", "boundaries.train"))]
    with pytest.raises(InputError, match=re.escape(message)):
        run_transfer(transfer_settings(compose("transfer", [*given, change])))
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.slow
def test_blocks_from_start_to_end(run_tool, data, tmp_path, capsys):
    out = tmp_path / "out"
    given = [
        f"data.train=['{data / 'train'}']",
        f"data.val=['{data / 'val'}']",
        f"out={out}",
        "contestants=[depthwise,moga]",
        "blocks.depthwise.encoder_blocks=[0,2,1,1]",
        "blocks.depthwise.decoder_blocks=[1,2,1,1]",
        "blocks.moga.encoder_blocks=[0,1,0,0]",
        "blocks.moga.decoder_blocks=[0,1,0,0]",
        "widths=[12,40,48,48]",
        "floor=[4,4,4,4]",
        "stage.channels=[1,4,4,4]",
        "stage.prior_widths=[32,32,32]",
        "stage.prior_blocks=1",
        "train.steps=3",
        "train.size=64",
        "train.batch=2",
        "eval.qps=[8,24,40,56]",
        "eval.pictures=1",
        "device=cpu",
    ]
    first = run_tool("compare_blocks", *given)
    assert first.returncode == 0, first.stderr
    figures = json.loads((out / "metrics.json").read_text())
    rows = figures["rows"]
    assert figures["reference"] == "depthwise" and set(rows) == {"depthwise", "moga", "moga_time"}
    assert abs(rows["moga"]["multiply_adds"] / rows["depthwise"]["multiply_adds"] - 1) < 0.05
    assert rows["depthwise"]["steps"] == rows["moga"]["steps"] == 3
    seconds = {name: row["step_seconds"] for name, row in rows.items()}
    assert rows["moga_time"]["steps"] == max(1, round(3 * seconds["depthwise"] / seconds["moga"]))
    assert [rate["qp"] for rate in rows["moga"]["val"]] == [8, 24, 40, 56]
    assert rows["depthwise"]["bd_rate"] == 0 and (out / "curves.png").is_file()
    assert "BD-rate against depthwise" in first.stdout
    capsys.readouterr()
    run_block_study(block_settings(compose("compare_blocks", given)))
    assert capsys.readouterr().out in first.stdout  # the table alone: nothing is trained again

    for change, message in {
        "eval.qps=[8,24]": "eval.qps=[8, 24]: a BD-rate needs at least 4",
        "contestants=[depthwise]": "expected the reference and at least one other network",
        "contestants=[depthwise,attention]": "unknown network 'attention', expected depthwise, residual_gdn, moga",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)):
            run_block_study(block_settings(compose("compare_blocks", [*given, change])))
