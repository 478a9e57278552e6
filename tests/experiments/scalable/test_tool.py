"""tools/scalable.py from a folder of clips and pictures to a table; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.scalable.command import settings_of
from vidlbc.experiments.scalable.report import Measured, compare
from vidlbc.experiments.scalable.settings import ANCHORS, PartSettings, ScalableSettings
from vidlbc.experiments.scalable.study import run_scalable_study
from vidlbc.train.data.pictures import PictureSource

pytestmark = pytest.mark.compressai

SMALL = [
    "image_stage.N=8",
    "image_stage.M_base=8",
    "image_stage.M_enhancement=16",
    "image_stage.N_preview=4",
    "image_stage.prior_widths=[8,8,8]",
    "image_stage.prior_blocks=1",
    "clips.size=64",
    "clips.frames=6",
    "clips.every=1",
    "task.frames=2",
    "task.batch=2",
    "task.head_steps=1",
    "base.steps=2",
    "enhancement.steps=2",
    "enhancement.size=64",
    "enhancement.batch=2",
    "eval.frames=2",
    "eval.clips=2",
    "eval.qps=[5,25,45,60]",
]


@pytest.fixture(scope="session")
def data(tmp_path_factory, make_clip) -> Path:
    """A folder of the form that the experiment expects."""
    from PIL import Image

    from tests.conftest import motion_frames

    folder = tmp_path_factory.mktemp("data")
    lines = ["path,label,group,split"]
    for index in range(8):
        motion = (3.0, 0.0) if index % 2 else (0.0, 3.0)
        make_clip(folder / f"actions/c{index}.mp4", frames=8, size=(72, 96), motion=motion, seed=index)
        label, split = "across" if index % 2 else "down", "train" if index < 4 else "test"
        lines.append(f"c{index}.mp4,{label},p{index // 2},{split}")
    (folder / "actions/labels_coarse.csv").write_text("\n".join(lines) + "\n")
    make_clip(folder / "clips/a.mp4", frames=4, size=(80, 96), seed=20)
    for name in ("images/imagenet/a.png", "images/bsds/train_b.png"):
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(motion_frames(1, (90, 90), seed=len(name))[0]).save(folder / name)
    return folder


@pytest.mark.slow
def test_the_experiment_runs_resumes_and_refuses_another_request(data, tmp_path, run_tool, capsys):
    out = tmp_path / "out"
    command = ["scalable", "experiment=scalable_actions", f"data.folder={data}", f"out={out}", *SMALL]
    run = run_tool(*command)
    assert run.returncode == 0, run.stderr
    assert "base alone, of" in run.stdout and "stand-alone" in run.stdout
    figures = json.loads((out / "metrics.json").read_text())
    assert list(figures["points"]) == ["beta 0", "beta 0.01", *ANCHORS.values()] and figures["clips"] == 2
    for name, points in figures["points"].items():
        assert [p["qp"] for p in points] == [5, 25, 45, 60]
        for p in points:
            assert ("base_bpp" in p) is name.startswith("beta")
            assert p.get("base_bpp", 0) < p["bpp"] and p["psnr"] > 5
    for row in figures["base_alone"]:
        assert row["read_behind_base"] == 0 and 0 < row["bytes_read"] < 1
    # The rate of the scalable codec is what lies on disk: the base's bytes and the enhancement's.
    rows = json.loads((out / "points/both_0/qp45.json").read_text())
    assert figures["points"]["beta 0"][2]["bpp"] == pytest.approx(8 * sum(r["bytes"] for r in rows) / (2 * 2 * 64**2))
    assert (out / "rates.png").is_file() and (out / "previews.png").is_file()

    for part in ANCHORS:  # as many steps as a base and an enhancement together
        assert json.loads((out / part / "request.json").read_text())["enhancement"]["steps"] == 2 + 2
    # The enhancement's folder holds the base that was trained, to the byte, and its head.
    from safetensors.torch import load_file

    base = load_file(out / "base_0.01/image_stage/model.safetensors")
    both = load_file(out / "both_0.01/image_stage/model.safetensors")
    assert all((base[n] == both[n]).all() for n in base if n.startswith(("f_b.", "h_b.", "g_a.")))
    assert (out / "both_0.01/head.safetensors").read_bytes() == (out / "base_0.01/head.safetensors").read_bytes()

    before = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    assert run_scalable_study(settings_of(compose("scalable", command[1:]))) is not None
    assert capsys.readouterr().out == run.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == before

    with pytest.raises(InputError, match="choose another out=, or give the old value to resume"):
        run_scalable_study(settings_of(compose("scalable", [*command[1:], "task.strength_low=0.5"])))


def settings(data: Path, out: Path, **changes) -> ScalableSettings:
    return ScalableSettings(
        actions=data / "actions/labels_coarse.csv",
        pictures=(PictureSource(str(data / "images/imagenet")),),
        out=out,
        clips=ClipSettings(64, 6, 1),
        cache=data / "cache",
        base=PartSettings(2),
        enhancement=PartSettings(2),
        **changes,
    )


@pytest.mark.slow
def test_phases_out_of_order_are_told(data, tmp_path):
    with pytest.raises(InputError, match=r"holds no trained base: run phases=\[base\] betas=\[0.5\] first"):
        run_scalable_study(settings(data, tmp_path, phases=("enhancement",), betas=(0.5,)))
    with pytest.raises(InputError, match="holds no trained model"):
        run_scalable_study(settings(data, tmp_path, phases=("evaluate",)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"phases": ("bases",)}, "unknown 'bases'"),
        ({"betas": ()}, "expected different numbers of at least 0"),
        ({"betas": (0.1, 0.1)}, "expected different numbers of at least 0"),
        ({"eval_qps": (64,)}, "expected an integer from 0 to 63"),
        ({"eval_frames": 0}, "expected at least 1"),
    ],
)
def test_settings_that_cannot_be_are_told(data, tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        settings(data, tmp_path, **changes)


@pytest.mark.parametrize(
    ("override", "told"),
    [("image_stage=lbc", "needs image_stage=scalable"), ("image_stage.layers=base", "leave it at both")],
)
def test_the_tool_refuses_other_stages(override, told):
    arguments = ["data.actions=a", "data.pictures=[b]", "out=c", override]
    with pytest.raises(InputError, match=told):
        settings_of(compose("scalable", arguments))


# ---- figures


def measured(name: str, base: float, enhancement: float, layered: bool = True) -> Measured:
    """Four clips at four QPs; 6 dB for every doubling of the rate; `base` and `enhancement` scale the bytes."""
    clips, steps = np.arange(1, 5)[:, None], np.arange(4)[None]
    own, more = 100 * clips * 2.0**steps, 300 * clips * 2.0**steps
    columns = {"pixels": 1000.0 * clips + 0 * steps, "psnr": 30 + 6.0 * steps + 0 * clips, "seconds": 1.0 + 0 * own}
    if not layered:
        return Measured(name, (8, 24, 40, 56), {**columns, "bytes": enhancement * (own + more)})
    own, more = base * own, enhancement * more
    columns |= {"bytes": own + more, "base_bytes": own, "enhancement_bytes": more}
    columns |= {"nats": 2 - 0.3 * steps + 0 * clips, "preview_psnr": 20 + steps + 0.0 * clips, "right": 0.5 + 0 * own}
    return Measured(name, (8, 24, 40, 56), columns)


def test_comparisons_have_the_right_sign_and_anchor():
    models = [measured("beta 0", 1, 1), measured("beta 0.01", 1.2, 0.8), measured("stand-alone", 0, 0.5, layered=False)]
    rows = {(row["what"], row["of"], row["against"]): row for row in compare(models, draws=10)}
    assert rows["base: cross-entropy", "beta 0.01", "beta 0"]["bd_rate"] == pytest.approx(20, abs=0.1)
    assert rows["base: preview", "beta 0.01", "beta 0"]["bd_rate"] == pytest.approx(20, abs=0.1)
    assert rows["enhancement: its own bits", "beta 0.01", "beta 0"]["bd_rate"] == pytest.approx(-20, abs=0.1)
    whole = rows["base + enhancement", "beta 0.01", "beta 0"]
    assert whole["bd_rate"] == pytest.approx(-10, abs=0.1) and whole["ci95"] == pytest.approx([-10, -10], abs=0.1)
    assert rows["base + enhancement", "beta 0", "stand-alone"]["bd_rate"] == pytest.approx(100, abs=0.1)
    # Top-1 that does not rise with the rate gives no BD-rate, rather than a number.
    assert rows["base: top-1", "beta 0.01", "beta 0"]["bd_rate"] is None
