"""Frames are exact: index i is the i-th frame, from every back end, at any size, rotation and pixel format."""

from __future__ import annotations

import os
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vidlbc.errors import InputError, VideoError
from vidlbc.video import VideoInfo, VideoReader, examine, open_source, probe, read_blocks
from vidlbc.video.raw_yuv import parse_name

OPENCV = pytest.param("opencv", marks=pytest.mark.skipif(find_spec("cv2") is None, reason="OpenCV is not installed"))
BACKENDS = ["pyav", "decord", OPENCV]


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_are_exact_and_in_order(numbered_clip, frame_index, tmp_path: Path, backend: str) -> None:
    # B frames and keyframes every 7: what a seeking reader gets wrong
    clip = numbered_clip(tmp_path / "c.mp4", frames=60, options={"g": "7", "bf": "3"})
    source = open_source(clip, backend)
    assert [frame_index(frame) for frame in source.frames()] == list(range(60))
    assert [frame_index(frame) for frame in source.frames(13, 17)] == [13, 14, 15, 16]
    wanted = [41, 3, 3, 59, 0, 40]
    frames = source.frames_at(wanted)
    assert frames.shape == (6, 48, 64, 3) and frames.dtype == np.uint8
    assert [frame_index(frame) for frame in frames] == wanted
    assert source.frames_at([]).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("backend", ["decord", OPENCV])
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (50, 70), (35, 51)])  # 48 wide: decord's padded lines
def test_back_ends_give_the_same_pixels(numbered_clip, tmp_path: Path, size: tuple[int, int], backend: str) -> None:
    pixel_format = "yuv444p" if size[0] % 2 else "yuv420p"
    clip = numbered_clip(tmp_path / "c.mkv", frames=30, size=size, pixel_format=pixel_format)
    indices = [0, 7, 8, 29]
    reference = open_source(clip, "pyav").frames_at(indices)
    np.testing.assert_array_equal(open_source(clip, backend).frames_at(indices), reference)
    np.testing.assert_array_equal(open_source(clip).frames_at(indices), reference)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_that_is_not_there_is_an_error_that_names_it(numbered_clip, tmp_path: Path, backend: str) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", frames=12)
    source = open_source(clip, backend)
    with pytest.raises(VideoError) as caught:
        source.frames_at([3, 12])
    assert str(caught.value) == f"{clip}: frame 12 cannot be had: the video has 12 frames"
    with pytest.raises(VideoError, match="frame -1 does not exist; indices count from 0"):
        source.frames_at([-1])


def test_probe(numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", frames=30, size=(48, 64), fps=15)
    info = probe(clip)
    assert (info.width, info.height, info.frames, info.fps, info.duration) == (64, 48, 30, Fraction(15), 2.0)
    assert (info.codec, info.pixel_format, info.rotation, info.backend) == ("h264", "yuv420p", 0, "pyav")
    assert info.path == str(clip) and "libavcodec" in info.backend_version
    assert VideoInfo.from_json(info.to_json()) == info and info.to_json()["fps"] == "15/1"


@pytest.mark.parametrize("backend", BACKENDS)
def test_timestamps(numbered_clip, tmp_path: Path, backend: str) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", frames=24, fps=12)
    times = open_source(clip, backend).timestamps()
    assert times.dtype == np.float64
    np.testing.assert_allclose(times, np.arange(24) / 12, atol=1e-6)


def test_timestamps_of_a_file_without_any(numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.264", frames=10)
    np.testing.assert_allclose(open_source(clip).timestamps(), np.arange(10) / 25)  # FFmpeg's rate for raw H.264


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {"size": (35, 51), "codec": "libx264", "pixel_format": "yuv444p"}),
        ("mkv", {"size": (33, 47), "codec": "ffv1", "pixel_format": "yuv420p"}),
        ("webm", {"size": (37, 45), "codec": "libvpx-vp9"}),
        ("mp4", {"codec": "libx264", "pixel_format": "yuv420p10le"}),
        ("mp4", {"codec": "libsvtav1", "size": (64, 64)}),
        ("mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("avi", {"codec": "mpeg4"}),
        ("gif", {"codec": "gif", "pixel_format": "rgb8"}),
        ("y4m", {"codec": "rawvideo"}),
        ("264", {"codec": "libx264"}),
        ("ts", {"codec": "libx264"}),
        ("mov", {"codec": "libx264", "size": (16, 16)}),
    ],
)
def test_formats_and_odd_sizes(numbered_clip, frame_index, tmp_path: Path, suffix: str, options: dict) -> None:
    clip = numbered_clip(tmp_path / f"c.{suffix}", frames=9, **options)
    size = options.get("size", (48, 64))
    reader = VideoReader(clip, block=4)
    blocks = list(reader.blocks())
    assert [block.shape for block in blocks] == [(4, *size, 3), (4, *size, 3), (1, *size, 3)]
    assert str(reader.verdict) == "ok"
    if min(size) > 16:
        assert [frame_index(frame) for frame in np.concatenate(blocks)] == list(range(9))
    if hasattr(os, "sched_getscheduler"):  # where SVT-AV1 wrote the clip, the rest of the suite would run before all
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_one_frame_is_a_video(numbered_clip, frame_index, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", frames=1)
    assert probe(clip).frames == 1
    (block,) = read_blocks(clip)
    assert block.shape == (1, 48, 64, 3) and frame_index(block[0]) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied(numbered_clip, tmp_path: Path, backend: str, rotation: int) -> None:
    upright = open_source(numbered_clip(tmp_path / "u.mp4", frames=2)).frames_at([1])[0]
    clip = numbered_clip(tmp_path / "r.mp4", frames=2, rotation=rotation)
    info = probe(clip, backend)
    assert (info.height, info.width) == ((48, 64) if rotation == 180 else (64, 48))
    assert backend == "decord" or info.rotation == rotation % 360
    np.testing.assert_array_equal(open_source(clip, backend).frames_at([1])[0], np.rot90(upright, rotation // 90))


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_side_averages_and_never_enlarges(numbered_clip, tmp_path: Path, backend: str) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", size=(48, 64), frames=3)
    full = np.concatenate(list(read_blocks(clip, backend=backend)))
    small = np.concatenate(list(read_blocks(clip, backend=backend, max_side=32)))
    assert small.shape == (3, 24, 32, 3)
    averaged = full.reshape(3, 24, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(averaged - small).mean() < 3
    assert np.concatenate(list(read_blocks(clip, backend=backend, max_side=500))).shape == full.shape


def test_max_side_of_a_rotated_clip(numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", size=(48, 64), frames=2, rotation=90)
    assert np.concatenate(list(read_blocks(clip, max_side=32))).shape == (2, 32, 24, 3)


@pytest.mark.slow
def test_blocks_are_full_whatever_the_slots_hold(numbered_clip, frame_index, tmp_path: Path) -> None:
    # 1080p frames travel 3 to a slot; blocks of 5 straddle slots
    clip = numbered_clip(tmp_path / "c.mp4", size=(1080, 1920), frames=14, options={"preset": "ultrafast"})
    blocks = list(read_blocks(clip, block=5, start=1))
    assert [len(block) for block in blocks] == [5, 5, 3]
    assert [frame_index(frame) for block in blocks for frame in block] == list(range(1, 14))


def test_start_beyond_the_end_gives_nothing(numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", frames=4)
    reader = VideoReader(clip, start=9)
    assert list(reader.blocks()) == []
    assert reader.verdict is not None and reader.verdict.frames == 4
    with pytest.raises(InputError, match="reads the file once"):
        list(reader.blocks())


@pytest.mark.slow
def test_the_first_of_several_video_streams_is_read(tmp_path: Path) -> None:
    import av

    clip = tmp_path / "two.mp4"
    with av.open(str(clip), "w") as container:
        streams = []
        for size, grey in (((32, 48), 60), ((64, 96), 200)):  # the second is larger: decord would take it
            stream = container.add_stream("libx264", rate=10)
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            streams.append((stream, np.full((*size, 3), grey, np.uint8)))
        for stream, picture in streams:
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode(None))
    (block,) = read_blocks(clip)
    assert block.shape == (5, 32, 48, 3) and abs(block.mean() - 60) < 3
    with pytest.raises(VideoError, match="holds 2 video streams, of which decord cannot select the first"):
        probe(clip, "decord")


def test_titles_that_are_not_utf8(numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.avi", codec="mpeg4", metadata={"title": "TTTTTTTT"}, frames=6)
    content = clip.read_bytes()
    assert content.count(b"TTTTTTTT") == 1
    clip.write_bytes(content.replace(b"TTTTTTTT", b"\xd3\xff\xfe\x80TTTT"))
    assert [str(examine(clip, backend=backend)[1]) for backend in ("auto", "pyav", "decord")] == ["ok"] * 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cisco_320x192_12fps.yuv", (320, 192, "yuv420p", 12)),
        ("RaceHorses_832x480_2f_420p8.yuv", (832, 480, "yuv420p", 30)),
        ("C_Race_2frames_832x480_50Hz_8bit_P420.yuv", (832, 480, "yuv420p", 50)),
        ("Beauty_1920x1080_120fps_420_10bit_YUV.yuv", (1920, 1080, "yuv420p10le", 120)),
        ("Cactus_1920x1080_50.yuv", (1920, 1080, "yuv420p", 50)),
        ("x_64x48_444p12_29.97fps.yuv", (64, 48, "yuv444p12le", Fraction("29.97"))),
        ("x_64x48_422.yuv", (64, 48, "yuv422p", 30)),
        ("x_64x48_400.yuv", (64, 48, "gray", 30)),
    ],
)
def test_names_of_raw_files(name: str, expected: tuple[int, int, str, int]) -> None:
    raw = parse_name(f"/anywhere/{name}")
    assert (raw.width, raw.height, raw.pixel_format, raw.fps) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pixel_format", "tag"), [("yuv420p", "420p8"), ("yuv422p", "422"), ("yuv444p10le", "444p10"), ("gray", "400")]
)
def test_raw_files(numbered_frame, frame_index, tmp_path: Path, pixel_format: str, tag: str) -> None:
    import av

    clip = tmp_path / f"c_51x35_7fps_{tag}.yuv"
    with clip.open("wb") as file:
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, 35, 51), "rgb24").reformat(format=pixel_format)
            file.write(frame.to_ndarray().tobytes() if pixel_format == "gray" else _planes(frame))
    reader = VideoReader(clip)
    (block,) = reader.blocks()
    assert [frame_index(frame) for frame in block] == list(range(5)) and str(reader.verdict) == "ok"
    assert reader.info is not None and (reader.info.fps, reader.info.frames) == (Fraction(7), 5)
    with clip.open("ab") as file:
        file.write(b"half a frame")
    assert str(examine(clip)[1]) == "damaged (5 frames): packet 5 is damaged in the container"


def _planes(frame) -> bytes:
    """Planes without the padding at the ends of their lines."""
    sample = 2 if frame.format.name.endswith("le") else 1
    lines = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        lines.append(rows[:, : plane.width * sample].tobytes())
    return b"".join(lines)


@pytest.mark.slow
def test_a_raw_file_without_its_size(tmp_path: Path) -> None:
    clip = tmp_path / "clip.yuv"
    clip.write_bytes(bytes(100))
    with pytest.raises(VideoError, match="a raw .yuv file needs its size in its name, as in name_352x288_30fps"):
        probe(clip)
