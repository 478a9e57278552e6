"""The report of vidlbc evaluate: curves, differences, what the codecs look like, settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidlbc import __version__
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError, VideoError
from vidlbc.evaluate.codecs import Anchor
from vidlbc.evaluate.codecs.ours import RDO
from vidlbc.evaluate.rate_distortion.clips import find_clips
from vidlbc.evaluate.rate_distortion.comparison import MEASURES, Difference, comparison_matrix
from vidlbc.evaluate.rate_distortion.means import CELLS, means, of_shared_clips
from vidlbc.evaluate.rate_distortion.measure import Point
from vidlbc.evaluate.report.clip import SHOWN_FRAMES, ShownClip, add_clip, show_clip
from vidlbc.evaluate.report.page import Page

_CHARTS = [
    {"x": "bpp", "y": y, "xname": "bit/pixel", "yname": name, "xunit": "bit/pixel", "yunit": "dB", "digits": 2}
    for y, name in (("psnr", "PSNR, dB (RGB)"), ("ms_ssim_db", "MS-SSIM, dB"))
]
_ORDER = ("x265", "x264", "svtav1", "x265-ld", "x264-ld", "svtav1-ld")


def write_evaluation_report(
    path: Path,
    points: Sequence[Point],
    differences: Sequence[Difference],
    problems: Mapping[str, str],
    shown: ShownClip | None,
    told: Mapping[str, Any],
    made_with: Mapping[str, Any],
) -> None:
    """`told`: the run's settings, shown as they are; `made_with`: `environment`."""
    clips = list(dict.fromkeys(p.clip for p in points))
    kinds = list(dict.fromkeys(p.codec for p in points))
    page = Page("Rate and distortion", f"vidlbc {__version__}")
    frames = sum({p.clip: p.frames for p in points}.values())
    page.text(
        f"{len(clips)} clips, {frames} frames, {len(kinds)} codecs. Every rate is the size of a file that was decoded "
        "again; means are over clips."
    )
    shared = of_shared_clips(points)
    if len(shared) < len(points):
        page.text(f"Curves: the {len({p.clip for p in shared})} clips that every codec coded.", note=True)
    page.curves(_curves(shared), _CHARTS)
    for measure, name in MEASURES.items():
        some = [d for d in differences if d.measure == measure]
        if some:
            page.heading(f"BD-rate at equal {name}, %")
            below = "Row against column, mean over clips; below 0: fewer bits."
            page.text(f"{below} * some clips' curves do not overlap and are left out.", note=True)
            page.table(*comparison_matrix(some), signed=True)
    if shown is not None:
        add_clip(page, shown)
    page.heading("Means")
    rows = [[mean.codec, mean.quality, len(mean.points), *mean.cells()] for mean in means(points)]
    page.table(["codec", "quality", "clips", *CELLS], rows)
    page.heading("Clips")
    header = ["clip", "codec", "quality", "size", "frames", "bytes", "bit/pixel", "PSNR dB", "MS-SSIM"]
    page.table(header, _rows(points))
    if problems:
        page.heading("Left out or damaged")
        page.table(["clip", "why"], [[name, why] for name, why in problems.items()])
    page.heading("Settings")
    settings = {p.codec: p.weights if " " in p.weights else f"weights {p.weights[:16]}" for p in points}
    page.facts({**told, **settings})
    page.heading("Environment")
    page.facts(made_with)
    page.write(path)


def choose_clip(
    data: Path, points: Sequence[Point], codecs: Mapping[str, Codec], anchors: Mapping[str, Anchor], frames: int | None
) -> ShownClip | None:
    """Source, this codec at the middle one of its QPs, and another codec of videos at the bytes nearest to that.

    The clip is the first video with the most frames; None without one, or without this codec.
    """
    ours = [p for p in points if p.kind in codecs and p.fps > 0]
    if not ours:
        return None
    best = max(ours, key=lambda p: p.frames).clip
    clip = next(clip for clip in find_clips(data) if clip.name == best)
    try:
        footage = clip.read(min(frames or SHOWN_FRAMES, SHOWN_FRAMES))
    except (InputError, VideoError):
        return None
    # A kind as it is, where there is one: the page shows no refined pictures.
    plain = [name for name, codec in codecs.items() if name == codec.kind]
    kind = plain[-1] if plain else list(codecs)[-1]
    qps = sorted({p.qp for p in ours if p.kind == kind})
    qp = qps[len(qps) // 2]
    other = next((anchors[name] for name in _ORDER if name in anchors), None)
    coded = codecs[kind].compress(footage.frames, qp, rdo=kind.endswith(RDO))
    return show_clip(best, footage.frames, footage.fps, codecs[kind], coded, other)


def _curves(points: Sequence[Point]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for mean in means(points):
        point = {name: getattr(mean, name) for name in ("bpp", "psnr", "ms_ssim_db")}
        found.setdefault(mean.codec, []).append({"label": f"quality {mean.quality}", **point})
    return found


def _rows(points: Sequence[Point]) -> list[list[Any]]:
    rows = []
    for p in points:
        row = [p.clip, p.codec, p.qp, f"{p.width}x{p.height}", p.frames]
        rows.append([*row, f"{p.bytes:,}", f"{p.bpp:.4f}", f"{p.psnr:.2f}", f"{p.ms_ssim:.4f}"])
    return rows
