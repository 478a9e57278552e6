"""The fixtures themselves: a generated clip is real media with the motion that was asked for."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import REPO


def test_make_clip_writes_the_frames_asked_for(make_clip, make_frames, tmp_path):
    import av

    path = make_clip(tmp_path / "a.mp4", frames=7, size=(48, 80), fps=12)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 12
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == (7, 48, 80, 3)
    source = make_frames(7, (48, 80))
    assert np.abs(frames.astype(float) - source).mean() < 12
    moved = np.abs(np.roll(source[0], (1, 2), (0, 1)).astype(float) - source[1])[4:-4, 4:-4].mean()
    assert moved < 6 < np.abs(source[0].astype(float) - source[1])[4:-4, 4:-4].mean()


@pytest.mark.slow
def test_a_folder_called_gpu_skips_nothing(tmp_path):
    checkout = tmp_path / "gpu"
    (checkout / "tests").mkdir(parents=True)
    for name in ("conftest.py", "processes.py"):
        shutil.copy(REPO / "tests" / name, checkout / "tests")
    (checkout / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = --import-mode=importlib\nmarkers = gpu\n")
    (checkout / "tests" / "test_it.py").write_text(
        "import pytest\n\n\ndef test_here():\n    pass\n\n\n@pytest.mark.gpu\ndef test_there():\n    pass\n"
    )
    done = subprocess.run([sys.executable, "-m", "pytest"], cwd=checkout, capture_output=True, text=True, timeout=240)
    there = "2 passed" if torch.cuda.is_available() else "1 passed, 1 skipped"
    assert there in done.stdout, done.stdout
