"""What every test may use: generated clips, the optional data folder, the tools as a user runs them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ScriptProcess

REPO = Path(__file__).resolve().parent.parent

# Before torch is imported anywhere. Small tensors gain nothing from a second thread, and pytest-xdist runs a worker a
# core: threads that wait for each other there take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HYDRA_FULL_ERROR", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where there is no CUDA device, `compressai` ones where that is not installed."""
    # By their marker: among their keywords are the names of all folders above them.
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    zoo = [item for item in items if item.get_closest_marker("compressai")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    if zoo and importlib.util.find_spec("compressai") is None:
        for item in zoo:
            item.add_marker(pytest.mark.skip(reason="CompressAI is not installed: pip install 'vidlbc[compressai]'"))


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """What a test draws, and how many threads it has, does not depend on the tests before it."""
    import torch

    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real test data: `VIDLBC_DATA`, or `../shared/data` beside the checkout. Skips where neither exists."""
    named = os.environ.get("VIDLBC_DATA")
    folder = Path(named) if named else REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set VIDLBC_DATA to a folder that holds it")
    return folder


def motion_frames(
    frames: int, size: tuple[int, int], motion: tuple[float, float] = (2.0, 1.0), seed: int = 0
) -> np.ndarray:
    """A smooth random texture that moves by `motion` = (right, down) pixels a frame, with a little camera noise.

    `size` is (height, width). Returns uint8 (frames, H, W, 3).
    """
    height, width = size
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    waves = [
        (rng.uniform(-0.35, 0.35, 2), rng.uniform(0, 2 * np.pi), rng.uniform(10, 35, 3) * rng.choice([-1, 1], 3))
        for _ in range(6)
    ]
    clip = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        picture = np.full((height, width, 3), 128.0)
        for (fy, fx), phase, colour in waves:
            angle = fy * (rows - motion[1] * t) + fx * (columns - motion[0] * t) + phase
            picture += np.sin(angle)[..., None] * colour
        picture += rng.normal(0, 2.0, (height, width, 1))
        clip[t] = np.clip(picture, 0, 255).round()
    return clip


def write_clip(
    path: Path | str,
    frames: int = 16,
    size: tuple[int, int] = (64, 96),
    fps: int | Fraction = 24,
    codec: str = "libx264",
    motion: tuple[float, float] = (2.0, 1.0),
    seed: int = 0,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip of a moving texture through PyAV. `size` is (height, width), even for 4:2:0; container by suffix."""
    import av

    from vidlbc.video.encoder_process import at_ordinary_priority

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # x264's macroblock tree gives other bytes from run to run on small pictures; its output also depends on threads.
    repeatable = {"threads": "1", "x264-params": "mbtree=0"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options={**repeatable, **(options or {})})
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        for picture in motion_frames(frames, size, motion, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    at_ordinary_priority()
    return path


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    """`make_clip(path, frames=16, size=(64, 96), fps=24, codec="libx264", motion=(2, 1), seed=0)` -> path."""
    return write_clip


@pytest.fixture
def make_frames() -> Callable[..., np.ndarray]:
    """`make_frames(frames, (height, width), motion=(2, 1), seed=0)` -> uint8 (frames, H, W, 3)."""
    return motion_frames


@pytest.fixture
def run_tool(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_tool("encode", "input=...", timeout=120)` runs `tools/encode.py` as a user would, from another folder.

    Returns the finished process with `stdout`, `stderr` and `returncode`; it is not checked, tests do that. Where the
    process is not the point, `call_tool` is faster still.
    """

    def run(
        name: str, *arguments: str, timeout: float = 240, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        script = REPO / ("tools" if "/" not in name else "") / f"{name}.py"
        return ScriptProcess([str(script), *arguments], cwd or tmp_path, env).finish(timeout)

    return run


@pytest.fixture
def call_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`call_tool("encode", "input=...")`: `run_tool` in this process."""
    from vidlbc.commands import run_command

    def call(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patched, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patched.chdir(tmp_path)
            with pytest.raises(SystemExit) as ended:
                run_command(name, arguments, usage=f"python tools/{name}.py")
        return subprocess.CompletedProcess([name, *arguments], ended.value.code, out.getvalue(), err.getvalue())

    return call
