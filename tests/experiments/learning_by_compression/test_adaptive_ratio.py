"""Policies that choose a setting per clip, on made-up points; the tool on real files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.codec.small_models import save_small_model
from vidlbc.experiments.learning_by_compression.adaptive_ratio import POLICIES, Choice, bytes_at, policy_curve


def points() -> list[Choice]:
    """Six clips whose rate-distortion curves differ in height and slope; the short variant is better at low rates."""
    out = []
    for clip in range(6):
        for qp in range(0, 64, 8):
            for variant, floor, gain in (("short", 0.0, 0.5), ("long", 3.0, 0.8)):
                quality = 28 + 3 * clip / 5 + gain * qp / 4 - floor
                size = int((400 + 250 * clip) * 2 ** (qp / (14 - clip)))
                out.append(Choice(f"clip{clip}", variant, qp, 10_000, size, quality))
    return out


@pytest.mark.parametrize("policy", POLICIES)
def test_a_curve_rises_and_holds_every_clip_once(policy: str) -> None:
    curve = policy_curve(policy, points())
    assert len(curve) >= 4
    for lower, higher in zip(curve[:-1], curve[1:], strict=True):
        assert lower.bytes < higher.bytes and lower.psnr < higher.psnr
    assert all(math.isclose(sum(total.shares.values()), 1) for total in curve)


def test_slope_is_never_worse_than_any_other_policy() -> None:
    """It minimises bytes - price * PSNR over all choices, so no point of another policy lies under its hull."""
    slope = policy_curve("slope", points())
    for policy in POLICIES[:3]:
        for total in policy_curve(policy, points()):
            best = bytes_at(slope, total.psnr)
            assert best is None or best <= total.bytes * 1.03  # between two points of the hull


def test_a_constant_ratio_wastes_bytes_on_clips_that_have_enough() -> None:
    """Half of the clips gain next to nothing beyond their first bytes."""
    clips = [
        Choice(f"{kind}{n}", None, qp, 10_000, 500 * 2 ** (qp // 8), 36 + (0.1 if kind == "plain" else 0.75) * qp / 8)
        for kind in ("plain", "rich")
        for n in range(3)
        for qp in range(0, 64, 8)
    ]
    curves = {name: policy_curve(name, clips) for name in POLICIES}
    for quality in (37.0, 38.0):
        sizes = {name: bytes_at(curve, quality) for name, curve in curves.items()}
        assert all(size is not None for size in sizes.values())
        assert sizes["slope"] < 0.9 * sizes["constant ratio"] and sizes["slope"] < 0.9 * sizes["constant setting"]
    assert bytes_at(curves["target"], 0.0) is None


def test_constant_settings_are_the_same_for_all_clips() -> None:
    for total in policy_curve("constant setting", points()):
        assert set(total.shares.values()) == {1.0}


@pytest.mark.slow
def test_the_tool_measures_and_resumes(
    run_tool: Callable, call_tool: Callable, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    model = save_small_model(tmp_path / "model", kinds=(), variants={"V2": [1, 2, 2, 3]})
    for number in range(2):
        make_clip(tmp_path / "videos" / f"{number}.mp4", frames=2, seed=number)
    (tmp_path / "labels.csv").write_text(
        "path,label,group,split\n"
        + "".join(f"videos/{n}.mp4,a,g{n},{split}\n" for n, split in enumerate(("train", "test")))
    )
    out = tmp_path / "out"
    command = (
        "adaptive_ratio",
        f"data.path={tmp_path / 'labels.csv'}",
        f"model={model}",
        f"out={out}",
        "device=cpu",
        "clips.size=32",
        "clips.frames=2",
        "prices=[0.05]",
        "qps=[8,24,40,56]",
    )
    done = run_tool(*command)
    assert done.returncode == 0, done.stderr
    assert "BD-rate, target against constant ratio" in done.stdout
    figures = json.loads((out / "metrics.json").read_text())
    (made,) = figures["encoder"]
    assert made["bytes"] > 0 and made["shares"] in ({"V2": 1.0}, {"None": 1.0})
    assert (figures["clips"], figures["points"]) == (1, 4) and (out / "adaptive_ratio.png").stat().st_size > 1000
    lines = (out / "points.jsonl").read_text()
    (out / "points.jsonl").write_text(lines[: len(lines) * 2 // 3])  # killed in the middle of a line
    assert call_tool(*command).returncode == 0
    assert (out / "points.jsonl").read_text() == lines
    refused = call_tool(*command[:-1], "qps=[8,24]")
    assert refused.returncode == 2 and refused.stderr.strip().endswith("expected at least 4 different ones, for curves")
