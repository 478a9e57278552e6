"""Long videos stream: memory does not grow with their length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

SCRIPT = """
import io, json, resource, sys
import numpy as np
import vidlbc

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def blocks(count):
    for start in range(0, count, 8):
        rng = np.random.default_rng(start)
        yield rng.integers(0, 256, (8, 16, 16, 3), np.uint8).repeat(10, 1).repeat(10, 2)

codec = vidlbc.load(sys.argv[1], device="cpu", temporal=sys.argv[2])
peaks = []
for count in (32, 32, 224):
    with open(sys.argv[3], "wb") as sink:
        report = codec.compress_stream(blocks(count), sink, qp=20)
    with open(sys.argv[3], "rb") as source:
        frames = sum(len(block) for block in codec.decompress_stream(source))
    assert report.frames == frames == count
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_peak_memory_is_that_of_a_short_clip(model_folder: Path, tmp_path: Path) -> None:
    """192 more frames of 160x160 are 15 MB as bytes, 59 MB as floats: neither may be held."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model_folder), "lstm", str(tmp_path / "long.vlbc")],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=REPO,
    )
    assert done.returncode == 0, done.stderr
    _, short, long = json.loads(done.stdout)
    assert long - short < 10, f"32 frames: {short:.0f} MB, 224 frames: {long:.0f} MB"
