"""What is written reads back; what fails leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidlbc.errors import InputError
from vidlbc.video import examine, probe, read_blocks, write_mp4, write_pngs, write_side_by_side


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (35, 51)])
def test_mp4_reads_back(make_frames, tmp_path: Path, size: tuple[int, int]) -> None:
    frames = make_frames(12, size)
    path = tmp_path / "folder" / "out.mp4"
    assert write_mp4(path, iter(frames), fps=Fraction(30000, 1001), crf=1) == 12
    info, verdict = examine(path)
    assert str(verdict) == "ok" and verdict.frames == 12 and info is not None
    assert (info.height, info.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert (info.codec, info.pixel_format, info.fps) == ("h264", "yuv420p", Fraction(30000, 1001))
    back = np.concatenate(list(read_blocks(path)))
    errors = back[:, : size[0], : size[1]].astype(float) - frames
    assert np.sqrt((errors**2).mean()) < 6 and abs(errors.mean()) < 2  # chroma subsampling; swscale rounds down
    if size[1] % 2:  # the padding repeats the last column
        assert np.abs(back[:, :, -1].astype(float) - back[:, :, -2]).mean() < 6


def test_fps_in_other_forms(make_frames, tmp_path: Path) -> None:
    for fps, expected in ((12, Fraction(12)), (29.97002997, Fraction(30000, 1001)), ("25/2", Fraction(25, 2))):
        write_mp4(tmp_path / "c.mp4", make_frames(4, (32, 32)), fps)
        assert probe(tmp_path / "c.mp4").fps == expected


def test_pngs_are_lossless(make_frames, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = make_frames(3, (35, 51))
    assert write_pngs(tmp_path / "pngs", frames) == 3
    names = sorted(path.name for path in (tmp_path / "pngs").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    for name, frame in zip(names, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(image.open(tmp_path / "pngs" / name)), frame)


def test_side_by_side(make_frames, tmp_path: Path) -> None:
    left, right = make_frames(5, (48, 64), seed=1), make_frames(5, (48, 64), seed=2)
    assert write_side_by_side(tmp_path / "s.mp4", left, right, 10, crf=1) == 5
    (block,) = read_blocks(tmp_path / "s.mp4")
    assert block.shape == (5, 48, 132, 3)
    assert np.abs(block[:, :, :62].astype(float) - left[:, :, :62]).mean() < 5
    assert np.abs(block[:, :, 70:].astype(float) - right[:, :, 2:]).mean() < 5


def test_side_by_side_of_what_does_not_match(make_frames, tmp_path: Path) -> None:
    path = tmp_path / "s.mp4"
    with pytest.raises(InputError) as caught:
        write_side_by_side(path, make_frames(3, (32, 32)), make_frames(2, (32, 32)), 10)
    assert str(caught.value) == f"{path}: the right video ends after 2 frames, the other goes on"
    with pytest.raises(InputError, match=r"frame 0 is \(32, 32, 3\) on the left and \(32, 48, 3\) on the right"):
        write_side_by_side(path, make_frames(2, (32, 32)), make_frames(2, (32, 48)), 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames to write"),
        ([np.zeros((8, 8, 3))], r"frame 0 is float64 \(8, 8, 3\); expected uint8 \(height, width, 3\)"),
        ([np.zeros((8, 8), np.uint8)], r"frame 0 is uint8 \(8, 8\)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], r"frame 1 is \(8, 10, 3\), the first was"),
    ],
)
def test_bad_frames_leave_nothing(tmp_path: Path, frames: list[np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_mp4(tmp_path / "c.mp4", frames, 25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "fast"])
def test_bad_fps(tmp_path: Path, fps: float) -> None:
    with pytest.raises(InputError, match="expected a positive number"):
        write_mp4(tmp_path / "c.mp4", [np.zeros((8, 8, 3), np.uint8)], fps)


def test_bad_crf(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"crf=52: expected 0 \(lossless\) to 51"):
        write_mp4(tmp_path / "c.mp4", [np.zeros((8, 8, 3), np.uint8)], 25, crf=52)


def test_a_failure_on_the_way_keeps_the_old_file(make_frames, tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    write_mp4(path, make_frames(3, (32, 32)), 25)
    before = path.read_bytes()

    def breaks() -> Iterator[np.ndarray]:
        yield from make_frames(2, (32, 32))
        raise RuntimeError("the decoder gave up")

    with pytest.raises(RuntimeError, match="gave up"):
        write_mp4(path, breaks(), 25)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["c.mp4"]


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_leaves_nothing(make_frames, tmp_path: Path) -> None:
    """A file-size limit in a child process stands in for the full disk: both fail the write."""
    import subprocess
    import sys

    script = """
import resource, signal, sys
import numpy as np
sys.path[:] = sys.argv[2].split("|")
from vidlbc.video import write_mp4
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), dtype=np.uint8)
try:
    write_mp4(sys.argv[1], noise, 25, crf=5)
except OSError as error:
    print("OSError", error.errno)
"""
    path = tmp_path / "c.mp4"
    arguments = [sys.executable, "-c", script, str(path), "|".join(sys.path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("OSError"), done.stderr
    assert list(tmp_path.iterdir()) == []
