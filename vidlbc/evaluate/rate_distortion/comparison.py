"""Every codec against every other: Bjontegaard differences over the clips that both coded.

A difference is taken clip by clip, over the qualities that both curves reach, and averaged over the clips. A clip where
the curves overlap over less than half of the shorter one, or where one does not rise with its rate, is left out and
counted: an average over the rest is told together with how many they are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vidlbc.errors import InputError
from vidlbc.evaluate.probe.bootstrap import bootstrap_ci
from vidlbc.evaluate.rate_distortion.bjontegaard import bd_rate
from vidlbc.evaluate.rate_distortion.measure import Point
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table

MEASURES = {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}
_LEAST = 4


@dataclass(frozen=True)
class Difference:
    """Of codec `of` against `against`: mean rate difference in % at equal `measure` over `clips` clips (negative: fewer
    bits), None where no clip counts; `ci95` over clips; `left_out`: clips that do not count."""

    of: str
    against: str
    measure: str
    bd_rate: float | None
    ci95: tuple[float, float] | None
    clips: int
    left_out: int


def compare(points: Sequence[Point], measure: str = "psnr") -> list[Difference]:
    """All ordered pairs of the kinds that have at least four rates."""
    curves: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        curves.setdefault(point.codec, {}).setdefault(point.clip, []).append(point)
    kinds = [kind for kind, clips in curves.items() if max(map(len, clips.values())) >= _LEAST]
    found = []
    for of in kinds:
        for against in kinds:
            if of == against:
                continue
            shared = [clip for clip in curves[of] if clip in curves[against]]
            each = [_difference(curves[against][clip], curves[of][clip], measure) for clip in shared]
            values = np.array([value for value in each if value is not None])
            mean = float(values.mean()) if len(values) else None
            low, high = bootstrap_ci(values) if len(values) > 1 else (None, None)
            interval = None if low is None or high is None else (low, high)
            left_out = len(shared) - len(values)
            found.append(Difference(of, against, measure, mean, interval, len(values), left_out))
    return found


def _difference(anchor: Sequence[Point], ours: Sequence[Point], measure: str) -> float | None:
    (theirs, their_quality), (rate, quality) = (
        ([p.bpp for p in points], [getattr(p, measure) for p in points]) for points in (anchor, ours)
    )
    try:
        return bd_rate(theirs, their_quality, rate, quality)
    except InputError:  # too few points, or a curve that does not rise
        return None


def comparison_matrix(found: Sequence[Difference]) -> tuple[list[str], list[list[str | None]]]:
    """Header and rows: a row a codec, a column for each that it is compared with; * without some of the clips."""
    kinds = list(dict.fromkeys(d.of for d in found))
    told = {(d.of, d.against): f"{d.bd_rate:+.1f}{'*' if d.left_out else ''}" for d in found if d.bd_rate is not None}
    return ["codec", *kinds], [[of, *(told.get((of, against)) for against in kinds)] for of in kinds]


def comparison_table(found: Sequence[Difference]) -> str:
    """A row a codec, a column for each that it is compared with. * marks an average without some of the clips."""
    if not found:
        return ""
    measure = MEASURES[found[0].measure]
    title = f"BD-rate in % at equal {measure} (negative: fewer bits), mean over clips; columns: compared with"
    header, rows = comparison_matrix(found)
    parts = [format_table(rows, header, title)]
    short = [d for d in found if d.left_out]
    if short:
        worst = max(short, key=lambda d: d.left_out)
        parts.append(
            f"* over the clips whose curves overlap enough; of {worst.of} against {worst.against} {worst.left_out} of "
            f"{worst.clips + worst.left_out} are left out: wider or more qualities help"
        )
    return "\n".join(parts)


def write_differences(path: Path, found: Sequence[Difference]) -> None:
    write_atomic(path, dump_json({"differences": [asdict(d) for d in found]}, indent=1))
