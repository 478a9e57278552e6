"""Means over clips of rate, distortion and speed: what tables, curves and the report show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidlbc.evaluate.rate_distortion.measure import Point


@dataclass(frozen=True)
class Mean:
    """Of `points`, one codec at one quality. `kbps`: None for pictures; fps: of all frames, None where not timed."""

    points: tuple[Point, ...]
    bpp: float
    kbps: float | None
    psnr: float
    ms_ssim: float
    encode_fps: float | None
    decode_fps: float | None

    @classmethod
    def of(cls, points: Sequence[Point]) -> "Mean":
        rates = [p.kbps for p in points if p.kbps is not None]
        bpp, psnr, similarity = (
            float(np.mean([getattr(p, name) for p in points])) for name in ("bpp", "psnr", "ms_ssim")
        )
        speeds = (frames_per_second(points, name) for name in ("encode_seconds", "decode_seconds"))
        return cls(tuple(points), bpp, float(np.mean(rates)) if rates else None, psnr, similarity, *speeds)

    @property
    def codec(self) -> str:
        return self.points[0].codec

    @property
    def quality(self) -> int:
        return self.points[0].qp

    @property
    def ms_ssim_db(self) -> float:
        """-10 log10(1 - MS-SSIM), at most 60."""
        return -10 * math.log10(max(1e-6, 1 - self.ms_ssim))

    def cells(self) -> list[str | None]:
        """bit/pixel, kbit/s, PSNR, MS-SSIM, encode fps, decode fps, as tables show them."""
        shown: list[str | None] = [f"{self.bpp:.4f}", None if self.kbps is None else f"{self.kbps:.1f}"]
        shown += [f"{self.psnr:.2f}", f"{self.ms_ssim:.4f}"]
        return shown + [None if fps is None else f"{fps:.1f}" for fps in (self.encode_fps, self.decode_fps)]


CELLS = ("bpp", "kbit/s", "PSNR dB", "MS-SSIM", "encode fps", "decode fps")


def means(points: Sequence[Point]) -> list[Mean]:
    """One a codec and quality, in the order in which these come."""
    found: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        found.setdefault((point.codec, point.qp), []).append(point)
    return [Mean.of(some) for some in found.values()]


def of_shared_clips(points: Sequence[Point]) -> list[Point]:
    """Those of the clips that every codec coded."""
    codecs: dict[str, set[str]] = {}
    for point in points:
        codecs.setdefault(point.clip, set()).add(point.codec)
    everyone = set().union(*codecs.values())
    return [point for point in points if codecs[point.clip] == everyone]


def frames_per_second(points: Sequence[Point], seconds: str) -> float | None:
    """`seconds`: encode_seconds or decode_seconds."""
    total = sum(getattr(p, seconds) for p in points)
    return sum(p.frames for p in points) / total if total > 0 else None
