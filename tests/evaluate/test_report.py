"""Metrics on disk, the table, and pictures that are there and not empty."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidlbc.errors import InputError
from vidlbc.evaluate import REQUIRED_METRICS, plots, write_metrics
from vidlbc.run.tables import format_table

GOOD = dict.fromkeys(REQUIRED_METRICS, 0.5) | {"n_videos": 127, "n_failed": 0}


def test_metrics_are_json_without_nan(tmp_path: Path) -> None:
    extra = {"loss": math.nan, "per_clip": [1.0, math.inf], "array": np.arange(3), "scalar": np.float32(0.25)}
    write_metrics(tmp_path / "deep" / "metrics.json", GOOD | {"top1": None, "extra": extra})
    text = (tmp_path / "deep" / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    read = json.loads(text)
    assert read["top1"] is None and read["n_videos"] == 127
    assert read["extra"] == {"loss": None, "per_clip": [1.0, None], "array": [0, 1, 2], "scalar": 0.25}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bpp": math.nan}, "metric 'bpp' must be a finite number or null, got nan"),
        ({"psnr": "35 dB"}, "metric 'psnr' must be a finite number or null, got '35 dB'"),
        ({"top1": 34.6}, r"metric 'top1' must be in \[0, 1\], got 34.6"),
        ({"n_failed": None}, "metric 'n_failed' must be a finite number or null, got None"),
        ({"n_videos": 1.5}, "metric 'n_videos' must be a count, got 1.5"),
        ({"encode_fps": -1}, "metric 'encode_fps' must not be negative, got -1"),
    ],
)
def test_wrong_metrics_are_refused_and_the_old_file_stays(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, GOOD)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        write_metrics(path, GOOD | change)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_missing_metrics_are_named(tmp_path: Path) -> None:
    short = {k: v for k, v in GOOD.items() if k not in ("bpp", "top5")}
    with pytest.raises(InputError, match="metrics lack bpp, top5"):
        write_metrics(tmp_path / "metrics.json", short)


def test_a_failure_in_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_metrics(tmp_path / "metrics.json", GOOD | {"extra": object()})
    assert list(tmp_path.iterdir()) == []


def test_table() -> None:
    text = format_table([["latents", 0.3457, 127], ["pixels", None, 127]], ["input", "top-1", "videos"], "Accuracy")
    assert text.splitlines() == [
        "Accuracy",
        "input    top-1  videos",
        "----------------------",
        "latents  0.346     127",
        "pixels       -     127",
    ]
    assert format_table([["a", 1e-5], ["b", 123.456]]) == "a  1.00e-05\nb     123.5"


def opened(path: Path) -> np.ndarray:
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[0] > 200 and picture.shape[1] > 200 and picture.std() > 5
    assert not path.with_name(path.name + ".part").exists()
    return picture


@pytest.mark.slow
def test_plots_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plots.plot_frame_bits(tmp_path / "bits.png", rng.uniform(1e3, 2e3, 30), rng.uniform(2e3, 4e3, 30), "clip")
    clip = rng.integers(0, 256, (2, 48, 80, 3), dtype=np.uint8)
    plots.plot_reconstruction(tmp_path / "panel.png", clip, clip // 2, ["0.05 bit/pixel, 31.2 dB"])
    bars = [
        dict(name="latents", top1=0.35, ci95=(0.27, 0.43), bpp=0.0412),
        dict(name="source pixels", top1=0.36, ci95=(0.28, 0.44), bpp=None),
    ]
    plots.plot_accuracy(tmp_path / "accuracy.png", bars, chance=1 / 17)
    plots.plot_confusion(tmp_path / "confusion.png", rng.integers(0, 9, (17, 17)), [f"class {i}" for i in range(17)])
    loss = [float(v) for v in 1 / np.arange(1, 301)]
    plots.plot_training(tmp_path / "train.png", range(300), {"loss": loss, "bpp": [None, *loss[1:]]})
    for name in ("bits", "panel", "accuracy", "confusion", "train"):
        opened(tmp_path / f"{name}.png")


def test_one_frame_and_one_step_are_drawn(tmp_path: Path) -> None:
    plots.plot_frame_bits(tmp_path / "bits.png", [0.0], [0.0])
    plots.plot_training(tmp_path / "train.png", [0], {"loss": [1.0]})
    opened(tmp_path / "bits.png")


def test_plot_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bits of the same frames, got 2 and 1"):
        plots.plot_frame_bits(tmp_path / "a.png", [1.0, 2.0], [1.0])
    with pytest.raises(InputError, match=r"expected counts of shape \(2, 2\), got \(3, 3\)"):
        plots.plot_confusion(tmp_path / "a.png", np.zeros((3, 3)), ["a", "b"])
    assert list(tmp_path.iterdir()) == []
