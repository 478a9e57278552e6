"""Rate and distortion of clips under several temporal kinds, from real bitstreams.

    clip -> analysis -> symbols, once a QP -+-> each kind codes the same symbols -> bytes, decoded and compared
                                            +-> synthesis, once -> pixels, which all kinds share

Every rate is a file size. `jpeg` is the anchor without any learning.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidlbc.codec import Codec
from vidlbc.errors import InputError, VidlbcError
from vidlbc.evaluation.distortion import ms_ssim, psnr
from vidlbc.evaluation.rate import bits_per_pixel

JPEG = "jpeg"


@dataclass(frozen=True)
class Point:
    """One clip at one quality under one kind: `none`, `lstm`, `transformer`, or `jpeg` (whose `qp` is its quality).

    `bytes_no_context`: the same network's null context. `weights`: fingerprint, empty for jpeg. `psnr` (dB) and
    `ms_ssim`: means over the frames. `damage`: what kept a video from being measured whole.
    """

    clip: str
    kind: str
    qp: int
    frames: int
    height: int
    width: int
    bytes: int
    bytes_no_context: int
    estimated_bits: float
    psnr: float
    ms_ssim: float
    weights: str = ""
    damage: str = ""

    @property
    def bpp(self) -> float:
        return bits_per_pixel(self.bytes, self.frames, self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bpp": self.bpp}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Point":
        return cls(**{name: value for name, value in data.items() if name != "bpp"})


def check_kinds(codecs: Mapping[str, Codec]) -> None:
    """Raises InputError where the codecs have different image stages: their symbols would not be the same."""
    if len({codec.image.digest for codec in codecs.values()}) > 1:
        raise InputError("kinds are compared on the same symbols: all codecs must have the same image stage")


def measure_clip(
    name: str, frames: np.ndarray, codecs: Mapping[str, Codec], qp: int, verify: bool = True
) -> list[Point]:
    """One point a kind; frames are uint8 (T, H, W, 3). With `verify`, each bitstream is decoded and compared.

    Raises VidlbcError where a kind decodes to other symbols, InputError where frames are none or image stages differ.
    """
    check_kinds(codecs)
    first = next(iter(codecs.values()))
    height, width = frames.shape[1:3]
    symbols = first.analyse(frames, qp)
    decoded = first.synthesize(first.dequantise(symbols, qp), qp, height, width)
    quality, similarity = _quality(decoded, frames)
    points = []
    for kind, codec in codecs.items():
        data, report = codec.compress_symbols(symbols, qp, height, width)
        null = data if kind == "none" else codec.compress_symbols(symbols, qp, height, width, context=False)[0]
        if verify:
            for stream in {data, null}:
                _same_symbols(codec, stream, symbols, f"{name}: temporal={kind} at qp {qp}")
        points.append(
            Point(
                name, kind, qp, len(frames), height, width, len(data), len(null), report.estimated_bits, quality,
                similarity, codec.fingerprint,
            )
        )  # fmt: skip
    return points


def _same_symbols(codec: Codec, data: bytes, symbols: Sequence[Any], what: str) -> None:
    if any(bool((a != b).any()) for a, b in zip(codec.padded_symbols(data), symbols, strict=True)):
        raise VidlbcError(f"{what} decodes to other symbols than were coded")


def measure_jpeg(name: str, frames: np.ndarray, quality: int) -> Point:
    """Each frame as a JPEG file (Pillow, 4:2:0, optimised tables)."""
    from PIL import Image

    size, decoded = 0, np.empty_like(frames)
    for index, frame in enumerate(frames):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality, optimize=True)
        size += len(file.getvalue())
        decoded[index] = np.asarray(Image.open(file).convert("RGB"))
    height, width = frames.shape[1:3]
    return Point(name, JPEG, quality, len(frames), height, width, size, size, 8.0 * size, *_quality(decoded, frames))


def _quality(decoded: np.ndarray, frames: np.ndarray) -> tuple[float, float]:
    return float(np.mean(psnr(decoded, frames))), float(np.mean(ms_ssim(decoded, frames)))
