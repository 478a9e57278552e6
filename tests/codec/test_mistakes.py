"""What is passed by mistake gives the result, or one line that says what was expected."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import noisy_frames
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError

FRAMES = noisy_frames(3, 32, 48)
HUGE = "1e999999999"


@pytest.fixture(scope="module")
def codec(model_folder: Path) -> Codec:
    return vidlbc.load(model_folder, device="cpu", temporal="none")


@pytest.fixture(scope="module")
def data(codec: Codec) -> bytes:
    return codec.compress(FRAMES, qp=30)


@pytest.mark.parametrize(
    "frames",
    [list(FRAMES), [frame.tolist() for frame in FRAMES.astype("uint8")], torch.from_numpy(FRAMES), FRAMES[:, ::-1]],
    ids=["list of arrays", "nested lists", "tensor", "view"],
)
def test_frames_as_they_come(codec: Codec, frames: Any) -> None:
    given = np.asarray(frames) if not isinstance(frames, torch.Tensor) else frames.numpy()
    if given.dtype != np.uint8:
        with pytest.raises(InputError, match="expected uint8"):
            codec.compress(frames)
    else:
        assert codec.compress(frames) == codec.compress(np.ascontiguousarray(given))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([FRAMES[0], FRAMES[1][:16]], "frames differ in size: expected uint8"),
        (
            FRAMES / 255.0,
            r"frames are float64 \(3, 32, 48, 3\): expected uint8 .*; of numbers from 0 to 1: \(255 \* fra",
        ),
        (torch.rand(2, 32, 48, 3), "of numbers from 0 to 1"),
        (FRAMES.astype(float), r"frames are float64 \(3, 32, 48, 3\): expected uint8 \(T, H, W, 3\)$"),
        (FRAMES.astype(int), "frames are int64 "),
        (FRAMES.transpose(0, 3, 1, 2), "to move channels behind"),
        (FRAMES[0], r"frames are uint8 \(32, 48, 3\): .*; one frame is frames\[None\]"),
        (FRAMES[..., :1], "expected uint8"),
        (None, "frames are NoneType: expected uint8"),
        ("clip.mp4", "expected uint8"),
        ((frame for frame in FRAMES), "frames are generator: expected uint8"),
        ({"frames": FRAMES}, "frames are dict: expected uint8"),
        ([], "expected uint8"),
    ],
)
def test_what_are_no_frames_is_one_line(codec: Codec, frames: Any, message: str) -> None:
    for call in (codec.compress, lambda x: codec.analyse(x, 30), codec.encode):
        with pytest.raises(InputError, match=message) as caught:
            call(frames)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [("24000/1001", Fraction(24000, 1001)), ("25", 25), (None, 0), (29.97, Fraction("29.97")), (0, 0)],
)
def test_a_rate_as_rows_have_it(codec: Codec, fps: Any, rate: Fraction) -> None:
    assert vidlbc.inspect(codec.compress(FRAMES, fps=fps)).fps == rate


@pytest.mark.parametrize(
    "options",
    [
        {"fps": "fast"},
        {"fps": HUGE},
        {"fps": "1/0"},
        {"fps": -1},
        {"fps": float("nan")},
        {"fps": [25]},
        {"qp": "32"},
        {"qp": 32.5},
        {"qp": None},
        {"qp": 64},
        {"context": "no"},
        {"variant": 3},
        {"skip": "a"},
        {"skip": -1},
        {"rdo": "yes"},
        {"psnr": "38"},
        {"psnr": 30, "bitrate": 100},
        {"bitrate": 100},
    ],
    ids=repr,
)
def test_values_that_are_none_are_one_line(codec: Codec, options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        codec.compress(FRAMES, **options)
    assert "\n" not in str(caught.value) and next(iter(options)) in str(caught.value)


def test_a_bitstream_in_whatever_form(codec: Codec, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.vlbc"
    path.write_bytes(data)
    array = np.frombuffer(data, np.uint8)
    expected = codec.decompress(data)
    forms: list[Any] = [bytearray(data), memoryview(data), array, torch.from_numpy(array.copy()), path, str(path)]
    for form in forms:
        assert np.array_equal(codec.decompress(form), expected)
        assert vidlbc.inspect(form) == vidlbc.inspect(data)
        assert all(torch.equal(a, b) for a, b in zip(codec.symbols(form), codec.symbols(data), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(codec.latents(form), codec.latents(data), strict=True))
    with open(path, "rb") as file:
        assert np.array_equal(codec.decompress(file), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a bitstream is NoneType: expected bytes, a path, or a file open for reading bytes"),
        (3, "expected bytes, a path"),
        (FRAMES, r"a bitstream is uint8 \(3, 32, 48, 3\): expected bytes"),
        (np.zeros(9), r"a bitstream is float64 \(9,\): expected bytes"),
        ({"data": b""}, "a bitstream is dict: expected bytes"),
        ("no/such/file.vlbc", "no/such/file.vlbc: no bitstream can be read .No such file"),
        (Path("/"), "no bitstream can be read"),
        ("a\0b", "is no path"),
    ],
)
def test_what_is_no_bitstream_is_one_line(codec: Codec, source: Any, message: str) -> None:
    calls: list[Callable[[Any], Any]] = [codec.decompress, codec.latents, vidlbc.inspect, codec.decode]
    for call in calls:
        with pytest.raises(InputError, match=message) as caught:
            call(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("span", [2, "02", (1,), (0, 1, 2), (0.0, 2.0), (2, 1), (-1, 2), None])
def test_spans(codec: Codec, data: bytes, span: Any) -> None:
    if span is None:
        assert len(codec.decompress(data, span)) == 3
        return
    for call in (codec.decompress, lambda d, s: codec.latents(d, span=s)):
        with pytest.raises(InputError, match="two numbers of frames"):
            call(data, span)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "mps"}, "unknown device 'mps': expected auto, cpu or cuda"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": None}, "unknown device None"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"temporal": 3}, "no temporal stage 3"),
        ({"effort": "slow"}, "effort='slow': expected fast, default, best"),
        ({"max_pixels": "big"}, "max_pixels=big: expected at least 1"),
        ({"keyint": "24"}, "keyint='24'"),
    ],
)
def test_loading(model_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        vidlbc.load(model_folder, **{"device": "cpu", **options})


def test_a_quality_out_of_reach_is_told(codec: Codec) -> None:
    with pytest.warns(UserWarning, match=r"psnr=200: .* is the nearest that this codec comes"):
        codec.compress(FRAMES, psnr=200)
    with pytest.warns(UserWarning, match=r"bitrate=0.01: .* is the nearest"):
        codec.compress(FRAMES, bitrate=0.01, fps=25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.compress(FRAMES, psnr=5)


def test_a_sink_that_is_none(codec: Codec) -> None:
    with pytest.raises(InputError, match="a bitstream is to go to str: expected a file open for writing bytes"):
        codec.compress_stream([FRAMES], "clip.vlbc")  # type: ignore[arg-type]
    assert codec.compress_stream([FRAMES], io.BytesIO()).frames == 3
