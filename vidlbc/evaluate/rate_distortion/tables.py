"""Tables of rate, distortion and time, as text and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.codec.temporal_stage import NoContext
from vidlbc.evaluate.codecs.ours import RDO
from vidlbc.evaluate.rate_distortion.means import CELLS, frames_per_second, means
from vidlbc.evaluate.rate_distortion.measure import Point
from vidlbc.run.atomic_files import write_atomic
from vidlbc.run.tables import format_table

_COLUMNS = (
    "clip",
    "kind",
    "qp",
    "frames",
    "width",
    "height",
    "fps",
    "bytes",
    "bytes_no_context",
    "bpp",
    "kbps",
    "psnr",
    "ms_ssim",
    "encode_fps",
    "decode_fps",
    "weights",
    "damage",
)


def tables(points: Sequence[Point], problems: Mapping[str, str]) -> str:
    """A row a clip and QP, then the means a kind and quality, then what could not be measured.

    saved: bytes below those of the same network without context; vs none: below the image stage's own prior, where the
    pictures are the same and were not made for the context. Kinds that give other pictures have rows of their own.
    """
    coded = [p for p in points if p.learned]
    parts = [format_table(_clip_rows(coded), _clip_header(coded))] if coded else []
    header = ["mean of", "clips", *CELLS]
    if coded:
        header += ["context saves %", "below none %", "over estimate %"]
    parts.append(format_table(_mean_rows(points, bool(coded)), header))
    if problems:
        lines = [f"{name}: {why}" for name, why in problems.items()]
        parts.append("\n".join([f"{len(problems)} files left out or damaged:", *lines]))
    return "\n\n".join(parts)


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """A row a point, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for point in points:
        row = point.to_json() | {"kbps": point.kbps}
        row |= {f"{way}_fps": frames_per_second([point], f"{way}_seconds") for way in ("encode", "decode")}
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    write_atomic(path, text.getvalue().encode())


def _contexts(points: Sequence[Point]) -> list[str]:
    return [kind for kind in dict.fromkeys(p.kind for p in points) if not _is_none(kind)]


def _is_none(kind: str) -> bool:
    """Of any model, without a video decoder."""
    return kind.partition("@")[0] == NoContext.kind


def _clip_header(points: Sequence[Point]) -> list[str]:
    header = ["clip", "qp", "frames", "size", "PSNR dB", "bpp none"]
    for kind in _contexts(points):
        header += [f"bpp {kind}", *([] if kind.endswith(RDO) else ["saved %", "vs none %"])]
    return header


def _clip_rows(points: Sequence[Point]) -> list[list[Any]]:
    grouped: dict[tuple[str, int, float], dict[str, Point]] = {}
    for point in points:
        grouped.setdefault((point.clip, point.qp, point.psnr), {})[point.kind] = point
    rows = []
    for (clip, qp, _), by_kind in grouped.items():
        one, none = next(iter(by_kind.values())), next((p for kind, p in by_kind.items() if _is_none(kind)), None)
        row: list[Any] = [clip, qp, one.frames, f"{one.width}x{one.height}", f"{one.psnr:.2f}", _bpp(none)]
        for kind in _contexts(points):
            p = by_kind.get(kind)
            row.append(_bpp(p))
            if not kind.endswith(RDO):
                row.append(_saved([(p.bytes, p.bytes_no_context)] if p else []))
                row.append(_saved([(p.bytes, none.bytes)] if p and none else []))
        rows.append(row)
    return rows


def _mean_rows(points: Sequence[Point], with_context: bool) -> list[list[Any]]:
    """Means over the clips; frames a second and the excess over the estimate are those of all frames and bytes."""
    none = {(p.clip, p.qp, p.psnr): p.bytes for p in points if _is_none(p.kind)}
    rows = []
    for mean in means(sorted(points, key=lambda p: (not p.learned, p.qp if p.learned else 0))):
        chosen, one = mean.points, mean.points[0]
        name = f"qp {one.qp} {one.kind}" if one.learned else f"{one.kind} {one.qp}"
        row: list[Any] = [name, len(chosen), *mean.cells()]
        if with_context:
            null = [(p.bytes, p.bytes_no_context) for p in chosen if p.with_context]
            against = [(p.bytes, none[p.clip, p.qp, p.psnr]) for p in chosen if null and (p.clip, p.qp, p.psnr) in none]
            row += [_saved(null), _saved(against)]
            estimate = sum(p.estimated_bits for p in chosen)
            row.append(f"{100 * (8 * sum(p.bytes for p in chosen) / estimate - 1):+.2f}" if one.learned else None)
        rows.append(row)
    return rows


def _saved(sizes: Sequence[tuple[int, int]]) -> str | None:
    """Percent that `size` is below `base`, mean over the pairs."""
    return f"{np.mean([100 * (1 - size / base) for size, base in sizes]):.1f}" if sizes else None


def _bpp(point: Point | None) -> str | None:
    return f"{point.bpp:.4f}" if point else None
