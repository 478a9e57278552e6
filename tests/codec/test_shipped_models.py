"""The weights in the package: every kind of every model codes a plain scene well and decodes in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import vidlbc
from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.video.distortion import psnr

SIDE, FRAMES, QP = 96, 9, 32
SHIPPED = sorted(path.name for path in models.SHIPPED.iterdir() if path.is_dir())
KINDS = [(name, kind) for name in SHIPPED for kind in models.kinds_of(models.SHIPPED / name)]
_DECODE = """
import sys, json, numpy as np, vidlbc
codec = vidlbc.load(sys.argv[1], "cpu", temporal=sys.argv[2])
with open(sys.argv[3], "rb") as file:
    levels = codec.symbols(file.read())
np.savez(sys.argv[4], *[level.numpy() for level in levels])
"""


@cache
def scene() -> np.ndarray:
    """uint8 (9, 96, 96, 3): a picture with a steep spectrum (1/f^1.5), over which a patch of another moves."""
    back, front = (_texture(key) for key in (7, 8))
    frames = np.stack([back] * FRAMES)
    for t in range(FRAMES):
        frames[t, 30:62, 10 + 4 * t : 42 + 4 * t] = front[:32, :32]
    return frames


def _texture(key: int) -> np.ndarray:
    phases = np.random.Generator(np.random.Philox(key)).uniform(0, 2 * np.pi, (SIDE, SIDE))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = np.inf
    grey = np.fft.ifft2(np.exp(1j * phases) / frequency**1.5).real
    return (128 + 40 * grey[..., None] / grey.std() * np.array([1.0, 0.9, 0.7])).clip(0, 255).astype(np.uint8)


@cache
def codec_of(name: str, kind: str) -> Codec:
    return vidlbc.load(name, "cpu", temporal=kind)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_scene_in_another_process(name: str, kind: str, tmp_path: Path) -> None:
    codec, frames = codec_of(name, kind), scene()
    encoded = codec.encode(frames, QP)
    (tmp_path / "a.vlbc").write_bytes(encoded.data)
    command = [sys.executable, "-c", _DECODE, name, kind, tmp_path / "a.vlbc", tmp_path / "a.npz"]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    with np.load(tmp_path / "a.npz") as found:
        decoded = [found[key] for key in found]
    own = codec.unpadded(encoded.symbols, SIDE, SIDE)
    assert codec.compress(frames, QP) == encoded.data
    assert [q.shape for q in decoded] == [tuple(q.shape) for q in own]
    assert all(np.array_equal(q, r.numpy()) for q, r in zip(decoded, own, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_quality_and_rate_are_those_of_trained_weights(name: str, kind: str) -> None:
    """Far from chance: random weights give 10 dB. A prior that sees the past saves half here."""
    codec, frames = codec_of(name, kind), scene()
    low, data = codec.compress(frames, 8), codec.compress(frames, QP)
    quality = float(np.mean(psnr(codec.decompress(data), frames)))
    assert quality > 31 and len(low) < 0.5 * len(data)
    if kind != "none":
        assert len(data) < 0.6 * len(codec_of(name, "none").compress(frames, QP))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_names_every_part(name: str) -> None:
    folder = models.SHIPPED / name
    card = (folder / "README.md").read_text()
    for config in folder.rglob("config.json"):
        if config.parent.parent.name == "temporal":
            assert f"temporal/{config.parent.name}/model.safetensors" in card
        assert json.loads(config.read_text())["format"] == models.FORMAT
    assert "# Model card: `" + name + "`" in card and "## Bias, risks and limitations" in card and "## Licence" in card


def test_all_are_at_most_40_mb() -> None:
    assert sum(path.stat().st_size for path in models.SHIPPED.rglob("*") if path.is_file()) <= 40e6
