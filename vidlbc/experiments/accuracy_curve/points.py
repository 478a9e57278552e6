"""Points of the curve, and what one input gains over another on the same videos."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidlbc.evaluate.probe.bootstrap import paired_difference
from vidlbc.experiments.accuracy_curve.media import DECODED, FULL, LATENTS, PIXELS, X264_MEDIUM, Videos

NAMES = {PIXELS: "source pixels", FULL: "source pixels, full size"}
TENTH = 0.1  # of the source files' bytes


@dataclass(frozen=True)
class CurvePoint:
    """Top-1 of `head` on `medium` and its true rate.

    `source`: the probe's name; kinds that share symbols share it. `bytes`: mean of a video of the evaluated split (for
    source pixels, its file); `bpp` of the coded frames (None for source files: they hold other frames), `kbps` (None
    where a frame rate is unknown); `corpus_bytes`: of all videos; `source_bytes_ratio`: those over their source files'.
    `correct`: by video, 1 or 0.
    """

    medium: str
    source: str
    head: str
    qp: int | None
    bytes: float
    bpp: float | None
    kbps: float | None
    top1: float
    ci95: tuple[float, float]
    top5: float
    mean_class: float
    clips: int
    failed: int
    corpus_bytes: int
    source_bytes_ratio: float
    correct: Mapping[str, int]

    @staticmethod
    def of(
        medium: str,
        source: str,
        head: str,
        qp: int | None,
        sizes: Mapping[str, int],
        videos: Videos,
        split: str,
        result: Mapping[str, Any],
    ) -> "CurvePoint":
        """`sizes`: bytes by video; `result`: of Probes."""
        some = [name for name in videos.of(split) if name in sizes]
        total, seconds = sum(sizes[name] for name in some), sum(videos.seconds[name] for name in some)
        return CurvePoint(
            medium=medium,
            source=source,
            head=head,
            qp=qp,
            bytes=total / len(some),
            bpp=None if qp is None else 8 * total / sum(videos.pixels[name] for name in some),
            kbps=8 * total / seconds / 1000 if np.isfinite(seconds) else None,
            top1=result["top1"],
            ci95=tuple(result["top1_ci95"]),
            top5=result["top5"],
            mean_class=result["mean_class"],
            clips=result["n_videos"],
            failed=result["n_failed"],
            corpus_bytes=sum(sizes.values()),
            source_bytes_ratio=sum(sizes.values()) / sum(videos.source_bytes[name] for name in sizes),
            correct=result["correct"],
        )

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("correct", "source")}


def differences(points: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    """Top-1 of each probe on latents less that on every other input of its head, over the videos that both read.

    Beside decoded frames of the same bitstreams and x264 at their bytes: at the same QP. `bytes_ratio`: the other's
    bytes over those of the latents.
    """
    found = []
    for ours in points:
        if not ours.source.startswith(LATENTS) or not _is_first(ours, points):
            continue
        for other in points:
            if other.head != ours.head or not _comparable(ours, other):
                continue
            shared = sorted(ours.correct.keys() & other.correct.keys())
            right, theirs = (np.array([p.correct[key] for key in shared], float) for p in (ours, other))
            difference, interval = paired_difference(right, theirs)
            found.append(
                {
                    "head": ours.head,
                    "qp": ours.qp,
                    "of": ours.medium,
                    "against": other.medium,
                    "difference": difference,
                    "ci95": interval,
                    "clips": len(shared),
                    "bytes": ours.bytes,
                    "bytes_ratio": other.bytes / ours.bytes,
                    "source_bytes_ratio": ours.source_bytes_ratio,
                }
            )
    return found


def _is_first(point: CurvePoint, points: Sequence[CurvePoint]) -> bool:
    """Is its kind the one that was encoded? The others share its probe."""
    return next(p for p in points if (p.source, p.head) == (point.source, point.head)) is point


def _comparable(ours: CurvePoint, other: CurvePoint) -> bool:
    if other.qp is None:
        return True
    same_shards = other.source == ours.source.replace(LATENTS, DECODED, 1)
    # x264 was matched to what was encoded first: to other kinds it is of other bytes.
    at_its_bytes = other.source == f"{X264_MEDIUM}-qp{ours.qp}" and abs(other.bytes / ours.bytes - 1) < 0.05
    return same_shards or at_its_bytes
