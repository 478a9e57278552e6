"""Rate and distortion of a folder of clips: measure what is missing, then the tables. tools/evaluate.py runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.codec import Codec
from vidlbc.codec_input import check_qp
from vidlbc.errors import InputError, VideoError
from vidlbc.evaluation.clips import Clip, find_clips
from vidlbc.evaluation.point_store import PointStore
from vidlbc.evaluation.rate_distortion import JPEG, Point, check_kinds, measure_clip, measure_jpeg
from vidlbc.evaluation.report import format_table
from vidlbc.progress import progress_bar


@dataclass(frozen=True)
class EvaluateSettings:
    """`qps` for the kinds, `jpeg` qualities, at most `frames` of a clip (None: all). Raises InputError."""

    data: Path
    out: Path
    qps: tuple[int, ...] = (32,)
    jpeg: tuple[int, ...] = ()
    frames: int | None = 64
    verify: bool = True
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for qp in self.qps:
            check_qp(qp)
        for quality in self.jpeg:
            if not isinstance(quality, int) or not 1 <= quality <= 100:
                raise InputError(f"jpeg={quality}: expected qualities from 1 to 100")
        if self.frames is not None and self.frames < 1:
            raise InputError(f"frames={self.frames}: expected at least 1, or null for all")


def evaluate_clips(settings: EvaluateSettings, codecs: Mapping[str, Codec]) -> tuple[list[Point], dict[str, str]]:
    """Measure what `out` lacks; the points asked for, in the order of the clips, and {name: why} of what was left out.

    Raises InputError where there is nothing to measure, or `out` holds another run's figures.
    """
    wanted = [(kind, qp) for kind in codecs for qp in settings.qps] + [(JPEG, quality) for quality in settings.jpeg]
    if not wanted:
        raise InputError("nothing to measure: give temporal=[...] and qp=[...], or jpeg=[...]")
    check_kinds(codecs)
    clips = find_clips(settings.data)
    request = {name: getattr(settings, name) for name in ("frames", "precision", "verify")}
    request["data"] = str(settings.data.resolve())
    store = PointStore(settings.out, request, {kind: codec.fingerprint for kind, codec in codecs.items()})
    problems: dict[str, str] = {}
    for clip in progress_bar(clips, desc="evaluate", unit="clip"):
        missing = [key for key in wanted if not store.has(clip.name, *key)]
        if missing:
            try:
                store.add(_measure(clip, missing, codecs, settings))
            except (InputError, VideoError) as error:
                problems[clip.name] = f"left out: {str(error).removeprefix(f'{clip.path}: ')}"
    points = [p for clip in clips for p in store.points if p.clip == clip.name and (p.kind, p.qp) in wanted]
    problems |= {p.clip: f"{p.damage}; its good frames are measured" for p in points if p.damage}
    if not points:
        raise InputError(f"data={settings.data}: none of {len(clips)} clips can be measured; {_listed(problems)[0]}")
    return points, problems


def _measure(
    clip: Clip, missing: Sequence[tuple[str, int]], codecs: Mapping[str, Codec], settings: EvaluateSettings
) -> list[Point]:
    frames, damage = clip.read(settings.frames)
    points = []
    for qp in settings.qps:
        kinds = {kind: codec for kind, codec in codecs.items() if (kind, qp) in missing}
        if kinds:
            points += measure_clip(clip.name, frames, kinds, qp, settings.verify)
    points += [measure_jpeg(clip.name, frames, quality) for kind, quality in missing if kind == JPEG]
    return [replace(point, damage=damage) for point in points]


def tables(points: Sequence[Point], problems: Mapping[str, str]) -> str:
    """A row a clip and QP, then the means a kind and quality, then what could not be measured.

    saved: bytes below those of the same network without context; vs none: below the image stage's own prior.
    """
    coded = [p for p in points if p.kind != JPEG]
    parts = [format_table(_clip_rows(coded), _clip_header(coded))] if coded else []
    header = ["mean of", "clips", "bpp", "PSNR dB", "MS-SSIM", "context saves %", "below none %", "over estimate %"]
    parts.append(format_table(_mean_rows(points), header))
    if problems:
        parts.append("\n".join([f"{len(problems)} files left out or damaged:", *_listed(problems)]))
    return "\n\n".join(parts)


def _listed(problems: Mapping[str, str]) -> list[str]:
    return [f"{name}: {why}" for name, why in problems.items()]


def _contexts(points: Sequence[Point]) -> list[str]:
    return [kind for kind in dict.fromkeys(p.kind for p in points) if kind != "none"]


def _clip_header(points: Sequence[Point]) -> list[str]:
    header = ["clip", "qp", "frames", "size", "PSNR dB", "bpp none"]
    for kind in _contexts(points):
        header += [f"bpp {kind}", "saved %", "vs none %"]
    return header


def _clip_rows(points: Sequence[Point]) -> list[list[Any]]:
    grouped: dict[tuple[str, int], dict[str, Point]] = {}
    for point in points:
        grouped.setdefault((point.clip, point.qp), {})[point.kind] = point
    rows = []
    for (clip, qp), by_kind in grouped.items():
        one, none = next(iter(by_kind.values())), by_kind.get("none")
        row: list[Any] = [clip, qp, one.frames, f"{one.width}x{one.height}", f"{one.psnr:.2f}", _bpp(none)]
        for kind in _contexts(points):
            p = by_kind[kind]
            row += [_bpp(p), _saved([(p.bytes, p.bytes_no_context)]), _saved([(p.bytes, none.bytes)] if none else [])]
        rows.append(row)
    return rows


def _mean_rows(points: Sequence[Point]) -> list[list[Any]]:
    """Means over the clips; the excess over the estimate is that of all bytes."""
    none = {(p.clip, p.qp): p.bytes for p in points if p.kind == "none"}
    grouped: dict[tuple[int, str], list[Point]] = {}
    for point in sorted(points, key=lambda p: (p.kind == JPEG, p.qp)):
        grouped.setdefault((point.qp, point.kind), []).append(point)
    rows = []
    for (qp, kind), chosen in grouped.items():
        row: list[Any] = [f"jpeg {qp}" if kind == JPEG else f"qp {qp} {kind}", len(chosen)]
        row += [f"{np.mean([p.bpp for p in chosen]):.4f}", f"{np.mean([p.psnr for p in chosen]):.2f}"]
        row += [f"{np.mean([p.ms_ssim for p in chosen]):.4f}"]
        learned = kind not in ("none", JPEG)
        null = [(p.bytes, p.bytes_no_context) for p in chosen if learned]
        against = [(p.bytes, none[p.clip, p.qp]) for p in chosen if learned and (p.clip, p.qp) in none]
        excess = 100 * (8 * sum(p.bytes for p in chosen) / sum(p.estimated_bits for p in chosen) - 1)
        row += [_saved(null), _saved(against), None if kind == JPEG else f"{excess:+.2f}"]
        rows.append(row)
    return rows


def _saved(sizes: Sequence[tuple[int, int]]) -> str | None:
    """Percent that `size` is below `base`, mean over the pairs."""
    return f"{np.mean([100 * (1 - size / base) for size, base in sizes]):.1f}" if sizes else None


def _bpp(point: Point | None) -> str | None:
    return f"{point.bpp:.4f}" if point else None
