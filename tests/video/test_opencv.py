"""OpenCV, for where PyAV is missing: the same frames, and never one in place of a frame that does not decode."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vidlbc.errors import InputError, VideoError
from vidlbc.video import VideoReader, examine, open_source, probe
from vidlbc.video.backends import candidates

needs_opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not installed")


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (("av", "decord", "cv2"), ["pyav", "decord"]),
        (("av", "cv2"), ["pyav"]),
        (("decord", "cv2"), ["opencv"]),  # decord's back end needs PyAV
        (("cv2",), ["opencv"]),
    ],
)
def test_which_back_end_is_taken(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], chosen: list[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    assert candidates("auto") == chosen


def test_where_nothing_reads_videos_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, numbered_clip, tmp_path: Path
) -> None:
    clip = numbered_clip(tmp_path / "c.mp4")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        probe(clip)
    assert str(caught.value) == (
        "no library that reads videos is installed: pip install av (or opencv-python-headless)"
    )


@needs_opencv
def test_probe(numbered_clip, tmp_path: Path) -> None:
    info = probe(numbered_clip(tmp_path / "c.mp4", frames=30, size=(48, 64), fps=15), "opencv")
    assert (info.width, info.height, info.frames, float(info.fps), info.duration) == (64, 48, 30, 15.0, 2.0)
    assert (info.codec, info.rotation, info.backend) == ("h264", 0, "opencv")


@pytest.mark.slow
@needs_opencv
@pytest.mark.parametrize("suffix", ["mp4", "avi", "264", "mkv"])
def test_bit_flips_end_the_good_part(numbered_clip, frame_index, tmp_path: Path, suffix: str) -> None:
    """Of itself OpenCV would leave the damaged frame out and go on with the next."""
    options = {"g": "1", "crf": "10"} if suffix != "avi" else {"g": "1"}
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = numbered_clip(tmp_path / f"c.{suffix}", frames=40, codec=codec, options=options, size=(96, 128))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    for at in rng.integers(len(content) * 4 // 10, len(content) * 7 // 10, 30):
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    reader = VideoReader(path, backend="opencv")
    frames = [frame for block in reader.blocks() for frame in block]
    assert reader.verdict is not None and reader.verdict.status == "damaged"
    assert f"frame {len(frames)} does not decode (" in reader.verdict.reason
    assert 1 < len(frames) < 30
    assert [frame_index(frame) for frame in frames] == list(range(len(frames)))
    assert examine(path)[1].status == "damaged"  # PyAV says so too


@pytest.mark.slow
@needs_opencv
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_file_cut_off(numbered_clip, frame_index, tmp_path: Path, suffix: str) -> None:
    faststart = {"movflags": "faststart"} if suffix == "mp4" else None
    path = numbered_clip(
        tmp_path / f"c.{suffix}", 60, codec="mpeg4" if suffix == "avi" else "libx264", container_options=faststart
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 8 // 10])
    reader = VideoReader(path, backend="opencv")
    frames = [frame for block in reader.blocks() for frame in block]
    assert reader.verdict is not None and reader.verdict.status == "damaged" and 5 < len(frames) < 60
    assert [frame_index(frame) for frame in frames] == list(range(len(frames)))


@pytest.mark.slow
@needs_opencv
def test_what_is_no_video(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "picture.mp4", format="png")
    (tmp_path / "notes.mp4").write_text("version 1\n" * 20)
    (tmp_path / "clip_64x48.yuv").write_bytes(bytes(64 * 48 * 3))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "playlist.mp4").write_text(playlist)
    for name, reason in (
        ("picture.mp4", "is a picture, not a video"),
        ("notes.mp4", "OpenCV cannot open it: "),
        ("clip_64x48.yuv", "raw .yuv files need PyAV (pip install av)"),
        ("playlist.mp4", "OpenCV cannot open it: "),
    ):
        with pytest.raises(VideoError) as caught:
            open_source(tmp_path / name, "opencv")
        assert str(caught.value).startswith(f"{tmp_path / name}: unreadable: {reason}")


@needs_opencv
@pytest.mark.slow
def test_every_hostile_file_gets_a_verdict(shared_data: Path) -> None:
    """PyAV's, but for AV1 and for losses that no error goes with (docs/video.md)."""
    folder = shared_data / "hostile"
    if not folder.is_dir():
        pytest.skip("no hostile/ in the test data")
    verdicts = {}
    for path in sorted(folder.iterdir()):
        if path.suffix != ".md":
            info, verdict = examine(path, deadline_s=20, backend="opencv")
            assert "\n" not in verdict.reason and (verdict.frames > 0) == (verdict.status != "unreadable")
            verdicts[path.name] = verdict
    for name, status, frames in (
        ("dmlc__corrupted.mp4", "damaged", 28),
        ("androidx__sample_with_invalid_nalu.mp4", "damaged", 26),
        ("made__bikes_400bytes_flipped.mp4", "damaged", 31),
        ("torchvision__hmdb51_Turnk_r_Pippi_Michel_cartwheel.avi", "ok", 83),
        ("androidx__roadtrip-vp92-10bit.webm", "ok", 72),
        ("meta-pyt__discard_first_keyframe.mp4", "ok", 25),
        ("meta-pyt__nasa_13013_two_video_streams.mp4", "ok", 325),
        ("meta-pyt__animated.gif", "ok", 4),
        ("made__zero_length.mp4", "unreadable", 0),
        ("androidx__sample_audio_only.mp4", "unreadable", 0),
        ("mozilla__tiny_av1.mp4", "unreadable", 0),
    ):
        assert (verdicts[name].status, verdicts[name].frames) == (status, frames), name
    assert sum(v.status == "ok" for v in verdicts.values()) >= 52  # OpenCV 4.11; 54 with 5.0
