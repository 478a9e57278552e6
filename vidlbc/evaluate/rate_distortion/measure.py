"""Rate, distortion and time of clips under several temporal kinds and under other codecs, from real bitstreams.

    clip -> analysis -> symbols, once a QP -+-> each kind codes the same symbols -> bytes, decoded and compared
                                            +-> synthesis, once -> pixels, which all kinds share
    clip -> another codec (vidlbc.evaluate.codecs) -> the bytes of a file -> pixels

Every rate is a file size.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from vidlbc.codec.bitstream.rates import bits_per_pixel, kilobits_per_second
from vidlbc.codec.codec import Codec
from vidlbc.errors import VidlbcError
from vidlbc.evaluate.codecs import Anchor
from vidlbc.evaluate.codecs.ours import RDO
from vidlbc.video.distortion import ms_ssim, psnr

# What a still picture is shown for, where a codec of videos wants to know.
_STILL = Fraction(25)


@dataclass(frozen=True)
class Point:
    """One clip at one quality under one kind: `none`, `transformer`, `transformer-rdo`, `none@large`, ... (see
    vidlbc.evaluate.codecs.ours), or another codec, whose `qp` is its own quality (CRF, JPEG's quality).

    `bytes_no_context`: the same network's null context, but for symbols that were chosen for the context. `weights`:
    fingerprint, or the other codec's settings. `psnr` (dB) and `ms_ssim`: means over the frames. `damage`: what kept a
    video from being measured whole. `fps`: of the clip, 0 for a picture. `encode_seconds`: analysis and entropy coding;
    `decode_seconds`: entropy decoding and synthesis, 0 where nothing was decoded; both of RGB frames in memory to bytes
    in memory and back.
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
    fps: float = 0.0
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def learned(self) -> bool:
        """Of this package: it has an estimate of its bits."""
        return self.estimated_bits > 0

    @property
    def with_context(self) -> bool:
        """It can be compared with its own null context at the same pixels."""
        return self.learned and not self.kind.startswith("none") and not self.kind.endswith(RDO)

    @property
    def codec(self) -> str:
        """Its name beside others: `vidlbc transformer`, `x265`."""
        return f"vidlbc {self.kind}" if self.learned else self.kind

    @property
    def kbps(self) -> float | None:
        return kilobits_per_second(self.bytes, self.frames, self.fps) if self.fps else None

    @property
    def bpp(self) -> float:
        return bits_per_pixel(self.bytes, self.frames, self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bpp": self.bpp}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Point":
        return cls(**{name: value for name, value in data.items() if name != "bpp"})


def measure_clip(
    name: str, frames: np.ndarray, codecs: Mapping[str, Codec], qp: int, verify: bool = True, fps: float = 0.0
) -> list[Point]:
    """One point a kind; frames are uint8 (T, H, W, 3). With `verify`, each bitstream is decoded and compared.

    Kinds of one image stage share the pictures, but for codecs that refine them, which decode their own bitstream, and
    kinds whose name ends in RDO: their symbols are chosen under their own priors.
    Raises VidlbcError where a kind decodes to other symbols, InputError where frames are none.
    """
    points = []
    same: dict[bytes | str, dict[str, Codec]] = {}  # kinds that code the same symbols
    for kind, codec in codecs.items():
        same.setdefault(kind if kind.endswith(RDO) else codec.image.digest, {})[kind] = codec
    for kinds in same.values():
        points += _measure_kinds(name, frames, kinds, qp, verify, fps)
    return points


def _measure_kinds(
    name: str, frames: np.ndarray, codecs: Mapping[str, Codec], qp: int, verify: bool, fps: float
) -> list[Point]:
    """Of codecs that code the same symbols: analysis and synthesis once for all."""
    rdo, first = next((kind.endswith(RDO), codec) for kind, codec in codecs.items())
    count, height, width, _ = frames.shape
    analysis = synthesis = 0.0
    symbols: list[Tensor] = []
    shared = (math.nan, math.nan)
    if not rdo:
        start = time.perf_counter()
        symbols = first.analyse(frames, qp)
        analysed = time.perf_counter()
        decoded = first.synthesize(first.dequantise(symbols, qp), qp, height, width)
        analysis, synthesis = analysed - start, time.perf_counter() - analysed
        shared = _quality(decoded, frames)
    points = []
    for kind, codec in codecs.items():
        start = time.perf_counter()
        if rdo:
            # At once, as a user would: motion is searched for while symbols are chosen.
            data, symbols, report = codec.encode(frames, qp, rdo=True)
        else:
            data, report = codec.compress_symbols(symbols, qp, height, width)
        coding, decoding = time.perf_counter() - start, 0.0
        null = data
        if codec.kind != "none" and not rdo:
            null = codec.compress_symbols(symbols, qp, height, width, context=False)[0]
        if verify:
            what = f"{name}: temporal={kind} at qp {qp}"
            decoding = _same_symbols(codec, data, symbols, what) + synthesis
            if null != data:
                _same_symbols(codec, null, symbols, what)
        seen = shared
        if codec.refines or rdo:
            start = time.perf_counter()
            refined = codec.decompress(data)
            decoding, seen = time.perf_counter() - start, _quality(refined, frames)
        points.append(
            Point(
                name,
                kind,
                qp,
                count,
                height,
                width,
                len(data),
                len(null),
                report.estimated_bits,
                *seen,
                codec.picture_fingerprint,
                fps=fps,
                encode_seconds=analysis + coding,
                decode_seconds=decoding,
            )
        )
    return points


def _same_symbols(codec: Codec, data: bytes, symbols: Sequence[Any], what: str) -> float:
    """Seconds that decoding took."""
    start = time.perf_counter()
    decoded = codec.padded_symbols(data)
    seconds = time.perf_counter() - start
    if any(bool((a != b).any()) for a, b in zip(decoded, symbols, strict=True)):
        raise VidlbcError(f"{what} decodes to other symbols than were coded")
    return seconds


def measure_anchor(name: str, frames: np.ndarray, anchor: Anchor, quality: int, fps: float = 0.0) -> Point:
    """One clip under another codec. Raises VidlbcError where it does not give back as many frames of the same size."""
    height, width = frames.shape[1:3]
    start = time.perf_counter()
    data = anchor.encode(frames, quality, Fraction(fps).limit_denominator(1001) if fps else _STILL)
    coded = time.perf_counter()
    decoded = anchor.decode(data, height, width)
    end = time.perf_counter()
    if decoded.shape != frames.shape:
        raise VidlbcError(f"{name}: {anchor.name} decodes {decoded.shape}, expected {frames.shape}")
    return Point(
        name,
        anchor.name,
        quality,
        len(frames),
        height,
        width,
        len(data),
        len(data),
        0.0,
        *_quality(decoded, frames),
        anchor.settings,
        fps=fps,
        encode_seconds=coded - start,
        decode_seconds=end - coded,
    )


def _quality(decoded: np.ndarray, frames: np.ndarray) -> tuple[float, float]:
    return float(np.mean(psnr(decoded, frames))), float(np.mean(ms_ssim(decoded, frames)))
