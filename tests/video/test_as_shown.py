"""What a file says of how its frames are shown: placement, colours, fields, pixels, times; and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidlbc.errors import InputError
from vidlbc.video import VideoReader, examine, open_source, write_mp4
from vidlbc.video.contract import fitted_size
from vidlbc.video.rates import off_a_constant_rate

pytestmark = pytest.mark.slow
SIZE = (48, 64)


def film(path: Path, pictures: list[np.ndarray], pts: list[int] | None = None, codec: str = "libx264", **set_: object):
    """A video of pictures; `set_`: attributes of the codec context, `options` among them."""
    import av

    with av.open(str(path), "w") as container:
        options = set_.pop("options", {"crf": "10"})
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in set_.items():
            setattr(stream.codec_context, name, value)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corner(height: int = 48, width: int = 64) -> np.ndarray:
    """Black, with the upper left quarter white and the upper right one grey."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255
    picture[: height // 2, width // 2 :] = 128
    return picture


def read(path: Path, **options: object) -> tuple[np.ndarray, VideoReader]:
    reader = VideoReader(path, **options)  # type: ignore[arg-type]
    return np.concatenate(list(reader.blocks())), reader


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_whole_display_matrix_is_applied(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    """Turned, mirrored and both: matrices as phones and editors write them, put into the track's header."""
    path = film(tmp_path / "a.mp4", [corner()] * 3)
    turned = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}[rotation]
    a, b, c, d = turned if not mirrored else (-turned[0], -turned[1], turned[2], turned[3])
    matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    content = path.read_bytes()
    unit = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    track = content.index(unit, content.index(b"tkhd"))
    path.write_bytes(content[:track] + matrix + content[track + 36 :])
    frames, _ = read(path)
    expected = np.rot90(corner()[:, ::-1] if mirrored else corner(), rotation // 90)
    assert frames[0].shape == expected.shape and np.abs(frames[0].astype(int) - expected).mean() < 6
    info = open_source(path).info
    assert (info.rotation, info.mirrored) == (rotation, mirrored) and (info.width, info.height) == expected.shape[1::-1]


def test_untagged_colours_of_hd_are_bt_709(tmp_path: Path) -> None:
    """Untagged as tagged BT.709 from 720 rows on, as players show it; below it stays BT.601; a tag always counts."""
    colours = np.zeros((720, 1280, 3), np.uint8)
    colours[:, :640], colours[:, 640:] = (200, 30, 40), (20, 180, 60)
    frames = {}
    for name, size, tag in (("hd", 720, 2), ("hd709", 720, 1), ("hd601", 720, 5), ("sd", 480, 2), ("sd601", 480, 5)):
        frames[name] = read(film(tmp_path / f"{name}.mp4", [colours[:size]] * 2, colorspace=tag))[0][0].astype(int)
    assert np.abs(frames["hd"] - frames["hd709"]).mean() < 1 < 5 < np.abs(frames["hd"] - frames["hd601"]).mean()
    assert np.abs(frames["sd"] - frames["sd601"]).mean() < 1


def test_hdr_is_noted(tmp_path: Path) -> None:
    for curve, name in ((16, "PQ"), (18, "HLG")):
        path = film(tmp_path / f"{name}.mp4", [corner()] * 2, color_trc=curve)
        assert str(examine(path)[1]) == f"ok; noted: HDR ({name}), read as if SDR"


def test_fields_are_noted_and_parted(tmp_path: Path) -> None:
    """Rows of two moments: half of the picture jumps from frame to frame, until the fields are parted."""
    pictures = []
    for index in range(12):
        picture = np.zeros((*SIZE, 3), np.uint8)
        picture[::2, 4 * index : 4 * index + 12] = 255
        picture[1::2, 4 * index + 2 : 4 * index + 14] = 255
        pictures.append(picture)
    path = film(tmp_path / "a.mp4", pictures, options={"crf": "5", "x264-params": "tff=1"})
    frames, reader = read(path)
    assert str(reader.verdict) == "ok; noted: interlaced, which deinterlace=true undoes"
    parted, reader = read(path, deinterlace=True)
    assert str(reader.verdict) == "ok" and parted.shape == frames.shape

    def combing(x: np.ndarray) -> float:
        return float(np.abs(x[:, 1:-1].astype(float) - (x[:, :-2].astype(float) + x[:, 2:]) / 2).mean())

    assert combing(parted) < combing(frames) / 2
    progressive = film(tmp_path / "b.mp4", pictures)
    assert np.array_equal(read(progressive)[0], read(progressive, deinterlace=True)[0])
    with pytest.raises(InputError, match="deinterlace=true: back end decord cannot, pyav can"):
        read(path, deinterlace=True, backend="decord")


def test_the_shape_of_pixels(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [corner()] * 2, sample_aspect_ratio=Fraction(64, 45))
    info, verdict = examine(path)
    assert info is not None and info.aspect == Fraction(64, 45)
    assert str(verdict) == "ok; noted: pixels are 64:45 wide"
    write_mp4(tmp_path / "b.mp4", [corner()] * 2, 25, aspect=Fraction(64, 45))
    again = examine(tmp_path / "b.mp4")[0]
    assert again is not None and again.aspect == Fraction(64, 45)


def test_a_variable_rate_is_noted_and_written(tmp_path: Path) -> None:
    times = [0, 40, 80, 120, 1500, 1540, 2600, 2640, 2680, 2720]
    path = film(tmp_path / "a.mp4", [corner()] * 10, pts=times)
    _, reader = read(path)
    assert "variable frame rate, up to 0.7" in str(reader.verdict) and reader.verdict.notes
    seconds = np.array(reader.seconds, float)
    assert np.allclose(1000 * (seconds - seconds[0]), times, atol=1)
    write_mp4(tmp_path / "b.mp4", [corner()] * 10, 25, times=[1000 * t + 500_000 for t in times])
    _, again = read(tmp_path / "b.mp4")
    assert np.allclose(1000 * np.array(again.seconds, float), times, atol=1)


def test_what_is_a_constant_rate() -> None:
    assert off_a_constant_rate([]) == off_a_constant_rate([0.0, 9.0]) == off_a_constant_rate([None] * 9) == 0
    assert off_a_constant_rate([0.0, 0.033, 0.067, 0.1, 0.133]) == 0  # a clock of milliseconds
    assert off_a_constant_rate([0.0, 0.04, 0.08, 1.0, 1.04]) == pytest.approx(0.44)
    assert off_a_constant_rate([0.0, 0.04, None, 1.0, 1.04]) == 0


@pytest.mark.parametrize("order", ["cover first", "film first"])
def test_the_film_is_read_and_other_streams_are_named(tmp_path: Path, order: str) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        kinds = ["mjpeg", "libx264"] if order == "cover first" else ["libx264", "mjpeg"]
        streams = {kind: container.add_stream(kind, rate=25) for kind in kinds}
        for kind, stream in streams.items():
            stream.height, stream.width = SIZE if kind == "libx264" else (32, 32)
            stream.pix_fmt = "yuv420p" if kind == "libx264" else "yuvj420p"
        small = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        container.mux(streams["mjpeg"].encode(small))
        container.mux(streams["mjpeg"].encode(None))
        for _ in range(12):
            container.mux(streams["libx264"].encode(av.VideoFrame.from_ndarray(corner(), "rgb24")))
        container.mux(streams["libx264"].encode(None))
    info, verdict = examine(path)
    assert info is not None and (info.height, info.width, verdict.frames) == (*SIZE, 12)
    assert f"stream {kinds.index('mjpeg')} is not read (mjpeg 32x32)" in str(verdict)


def transport_stream(path: Path, numbered_clip: Callable[..., Path], **options: object) -> bytes:
    data = numbered_clip(path, options={"x264-params": "threads=1:keyint=20:min-keyint=20:scenecut=0"}, **options)
    return data.read_bytes()


def test_recordings_joined_in_one_transport_stream(
    numbered_clip: Callable[..., Path], frame_index: Callable, tmp_path: Path
) -> None:
    """Clocks and counters begin anew in the middle: all frames are there, and their times go on rising."""
    one = transport_stream(tmp_path / "one.ts", numbered_clip, frames=30)
    two = transport_stream(tmp_path / "two.ts", numbered_clip, frames=25)
    path = tmp_path / "both.ts"
    path.write_bytes(one + two + one)
    frames, reader = read(path)
    assert [frame_index(frame) for frame in frames] == [*range(30), *range(25), *range(30)]
    assert str(reader.verdict) == "ok; noted: 3 recordings in one, their timestamps joined"
    assert (np.diff(np.array(reader.seconds, float)) > 0).all()
    lost = bytearray(one)
    del lost[188 * 30 : 188 * 33]  # packets lost in the middle are no joining
    path.write_bytes(bytes(lost))
    frames, reader = read(path)
    assert reader.verdict is not None and reader.verdict.status == "damaged"
    assert [frame_index(frame) for frame in frames] == list(range(len(frames)))


def test_a_recording_that_begins_between_key_frames(
    numbered_clip: Callable[..., Path], frame_index: Callable, tmp_path: Path
) -> None:
    import av

    path = tmp_path / "a.ts"
    whole = transport_stream(path, numbered_clip, frames=50)
    with av.open(str(path)) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    head = whole[: 188 * 3]  # tables of programmes
    path.write_bytes(head + whole[at[8] :])
    frames, reader = read(path)
    assert [frame_index(frame) for frame in frames] == list(range(20, 50))
    assert reader.verdict is not None and reader.verdict.status == "ok"
    assert "leading pictures left out, which need some before the file's first" in str(reader.verdict)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_leading_pictures_of_an_open_group(
    numbered_clip: Callable[..., Path], frame_index: Callable, tmp_path: Path, suffix: str, codec: str
) -> None:
    """Packets copied from an open group's key frame on, as editors cut: those shown before it cannot be decoded."""
    import av

    params = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"
    more = ":threads=1" if codec == "libx264" else ":pools=none:frame-threads=1:log-level=none"
    options = {f"{codec[3:]}-params": params + more}
    whole = numbered_clip(tmp_path / f"whole.{suffix}", frames=40, codec=codec, options=options)
    path = tmp_path / f"cut.{suffix}"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        keys = 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if keys >= 2 and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    frames, reader = read(path)
    shown = [frame_index(frame) for frame in frames]
    assert shown == list(range(shown[0], 40)) and shown[0] in (11, 12)
    assert reader.verdict is not None and reader.verdict.status == "ok"
    if "leading" in str(reader.verdict):  # an edit list may hide them
        assert "3 leading pictures left out" in str(reader.verdict)


def test_a_strip_keeps_sixteen_pixels() -> None:
    assert fitted_size(64, 1024, 224) == (16, 256) and fitted_size(1024, 64, 224) == (256, 16)
    assert fitted_size(64, 1024, 512) == (32, 512) and fitted_size(8, 1024, 224) == (8, 1024)
    assert fitted_size(480, 640, 320) == (240, 320)
