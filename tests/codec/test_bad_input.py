"""Bad input is one line that says what was found and what was expected, word for word."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidlbc
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError, VidlbcError

FRAMES = np.zeros((2, 16, 16, 3), np.uint8)


@pytest.fixture
def codec(codec_of: Callable[..., Codec]) -> Codec:
    return codec_of("lstm")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FRAMES.astype(np.float32), "frames are float32 (2, 16, 16, 3): expected uint8 (T, H, W, 3)"),
        (torch.zeros(2, 16, 16, 3), "frames are float32 (2, 16, 16, 3): expected uint8 (T, H, W, 3)"),
        (FRAMES.astype(np.uint16), "frames are uint16 (2, 16, 16, 3): expected uint8 (T, H, W, 3)"),
        (FRAMES[0], "frames are uint8 (16, 16, 3): expected uint8 (T, H, W, 3)"),
        (FRAMES[..., :1], "frames are uint8 (2, 16, 16, 1): expected uint8 (T, H, W, 3)"),
        (FRAMES.transpose(0, 3, 1, 2), "frames are uint8 (2, 3, 16, 16): expected uint8 (T, H, W, 3)"),
        ("a.mp4", "frames are <U5 (): expected uint8 (T, H, W, 3)"),
        (None, "frames are NoneType: expected uint8 (T, H, W, 3)"),
        (FRAMES[:, :15], "frames are 15x16: expected at least 16 pixels a side"),
        (FRAMES[:, :, :1], "frames are 16x1: expected at least 16 pixels a side"),
        (np.zeros((1, 16, 65537, 3), np.uint8), "frames are 16x65537: expected at most 65536 pixels a side"),
        (FRAMES[:0], "nothing to encode: expected at least one frame"),
    ],
)
def test_frames(codec: Codec, frames: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        codec.compress(frames)
    assert str(error.value).partition("; ")[0] == message


def test_streams(codec: Codec) -> None:
    def message(blocks: Any) -> str:
        with pytest.raises(InputError) as error:
            codec.compress_stream(blocks, io.BytesIO())
        return str(error.value)

    wide = np.zeros((1, 16, 24, 3), np.uint8)
    assert message([]) == "nothing to encode: expected at least one frame"
    assert message([FRAMES, wide]) == "frame size changes from (16, 16) to (16, 24): expected one size a clip"
    assert message(FRAMES).startswith("frames are uint8 (16, 16, 3): expected uint8 (T, H, W, 3)")
    report = codec.compress_stream([FRAMES[:0], FRAMES, FRAMES[:0]], io.BytesIO())
    assert report.frames == 2


@pytest.mark.parametrize(
    ("qp", "shown"), [(-1, "-1"), (64, "64"), (32.0, "32.0"), ("32", "'32'"), (None, "None"), (True, "True")]
)
def test_qp(codec: Codec, qp: Any, shown: str) -> None:
    with pytest.raises(InputError) as error:
        codec.compress(FRAMES, qp=qp)
    assert str(error.value) == f"qp={shown}: expected an integer from 0 to 63"


@pytest.mark.parametrize("fps", [-25, float("nan"), float("inf"), 1e12, "fast"])
def test_frame_rate(codec: Codec, fps: Any) -> None:
    with pytest.raises(InputError) as error:
        codec.compress(FRAMES, fps=fps)
    assert str(error.value) == f"fps={fps!r}: expected frames a second, or 0 where unknown"


@pytest.mark.parametrize("fps", [0, 25, 29.97, Fraction(30000, 1001), 4000])
def test_frame_rate_is_kept(codec: Codec, fps: Any) -> None:
    assert vidlbc.inspect(codec.compress(FRAMES, fps=fps)).fps == Fraction(fps).limit_denominator(1_000_000)


def test_a_failed_encode_writes_nothing(codec: Codec) -> None:
    sink = io.BytesIO()
    cases: list[tuple[Any, dict[str, Any]]] = [
        ([], {}),
        ([FRAMES[:, :4]], {}),
        ([FRAMES], {"qp": 99}),
        ([FRAMES], {"fps": -1}),
    ]
    for blocks, options in cases:
        with pytest.raises(InputError):
            codec.compress_stream(blocks, sink, **options)
    assert sink.getvalue() == b""


def test_loading(model_folder: Path, tmp_path: Path) -> None:
    def message(*arguments: Any, **options: Any) -> str:
        with pytest.raises(VidlbcError) as error:
            vidlbc.load(*arguments, **options)
        return str(error.value)

    assert (
        message(model_folder, temporal="foo")
        == f"model {model_folder} has no temporal stage 'foo': it has none, lstm, transformer"
    )
    assert message(model_folder, precision="fp16") == "unknown precision 'fp16': expected fp32 or bf16"
    assert message(model_folder, device="tpu?") == "unknown device 'tpu?': expected auto, cpu or cuda"
    assert message("no such").startswith("no model 'no such': expected a model folder or one of ")
    assert (
        message(tmp_path, device="cpu")
        == f"{tmp_path / 'image_stage'} is no model folder: {tmp_path / 'image_stage' / 'config.json'} does not exist"
    )
    if not torch.cuda.is_available():
        expected = "device 'cuda' was asked for, but torch finds no CUDA GPU: use device=cpu or device=auto"
        assert message(model_folder, device="cuda") == expected
