"""points.json, points.csv, metrics.json, curve.png, report/index.html and the tables of an accuracy curve."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidlbc import __version__
from vidlbc.evaluate.plots import plot_accuracy_curve
from vidlbc.evaluate.report.page import Page
from vidlbc.experiments.accuracy_curve.points import TENTH
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table

_POINTS = ["input", "head", "qp", "bytes", "bit/pixel", "kbit/s", "of source", "top-1 [95%]", "top-5", "mean class"]
_DIFFERENCES = ["latents", "head", "qp", "of source", "less", "its bytes", "top-1 points [95%]", "clips"]
_SPEED = ["read for training", "clips/s", "frames/s", "bytes"]


def write_curve(out: Path, figures: Mapping[str, Any], chance: float) -> None:
    """`figures`: of metrics.json."""
    points = figures["points"]
    plain = dump_json(points, indent=1)
    write_atomic(out / "metrics.json", dump_json(dict(figures), indent=1))
    write_atomic(out / "points.csv", _csv(points))
    for head in dict.fromkeys(point["head"] for point in points):
        some = [point for point in points if point["head"] == head]
        several = any(point["head"] != head for point in points)
        plot_accuracy_curve(out / (f"curve-{head}.png" if several else "curve.png"), some, chance)
    _page(figures, chance).write(out / "report" / "index.html")
    write_atomic(out / "points.json", plain)
    print(tables(figures))
    print(f"\nfigures: {out / 'points.json'}, {out / 'points.csv'}, {out / 'metrics.json'}")
    print(f"look at {out / 'report' / 'index.html'}")


def tables(figures: Mapping[str, Any]) -> str:
    """Points, paired differences, reading speed, and what holds at a tenth of the source files' bytes."""
    s = figures["settings"]
    title = f"{s['videos']} videos, {s['source_bytes']:,} bytes of source files; top-1 on {s['split']}; {_frames(s)}"
    parts = [format_table(_point_rows(figures["points"]), _POINTS, title)]
    paired = "the same videos of the split, paired; intervals by bootstrap over videos"
    parts.append(format_table(_difference_rows(figures["differences"]), _DIFFERENCES, paired))
    parts.append(_tenth(figures["differences"]))
    if figures["speed"]:
        note = f"one thread each, {figures['speed'][0]['clips']} whole clips, medians over rounds"
        parts.append(format_table(_speed_rows(figures["speed"]), _SPEED, note))
    return "\n\n".join(parts)


def _tenth(differences: Sequence[Mapping[str, Any]]) -> str:
    """How many probes on latents of at most a tenth of the source files' bytes are level with source pixels."""
    pixels = [d for d in differences if d["source_bytes_ratio"] <= TENTH and d["against"].startswith("source pixels")]
    if not pixels:
        return f"No latents take {TENTH:.0%} of the source files' bytes or less."
    level = sum(d["difference"] >= 0 for d in pixels)
    above, below = (sum(sign * d["ci95"][end] > 0 for d in pixels) for sign, end in ((1, 0), (-1, 1)))
    return (
        f"Of {len(pixels)} differences to source pixels at {TENTH:.0%} of the source files' bytes or less, {level} are "
        f"0 or more; {above} have an interval above 0, {below} one below 0."
    )


def _page(figures: Mapping[str, Any], chance: float) -> Page:
    s, env = figures["settings"], figures["environment"]
    page = Page("Accuracy against true bits", f"vidlbc {__version__}, {env['device_name']}")
    page.text(
        f"{s['videos']} videos, {s['source_bytes']:,} bytes of source files. One probe and budget for all inputs, "
        f"everything under it frozen, its settings chosen on {s['chosen_on']}; top-1 on {s['split']} with 95% "
        f"intervals over videos. {_frames(s).capitalize()}. Every rate is the size of a file that was decoded."
    )
    for head in dict.fromkeys(point["head"] for point in figures["points"]):
        page.heading(f"Probe: {head}")
        page.accuracy([point for point in figures["points"] if point["head"] == head], chance)
    page.heading("Paired differences")
    page.text("Latents less another input, same videos; an interval that holds 0 shows no difference.", note=True)
    page.table(_DIFFERENCES, _difference_rows(figures["differences"]))
    page.text(_tenth(figures["differences"]))
    if figures["speed"]:
        page.heading("Reading for training")
        page.text(f"One thread each, {figures['speed'][0]['clips']} whole clips, nothing scaled.", note=True)
        page.table(_SPEED, _speed_rows(figures["speed"]))
    page.heading("Settings")
    page.facts({name: str(value) for name, value in {**s, **env}.items()})
    return page


def _frames(settings: Mapping[str, Any]) -> str:
    every = "every frame" if (settings["every"] or 1) == 1 else f"one of {settings['every']} frames"
    size = "own size" if settings["max_side"] is None else f"at most {settings['max_side']} pixels a side"
    return f"{every}, {size}, for all but full-size pixels"


def _csv(points: Sequence[Mapping[str, Any]]) -> bytes:
    flat = [{**{k: v for k, v in p.items() if k != "ci95"}, "low": p["ci95"][0], "high": p["ci95"][1]} for p in points]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return sink.getvalue().encode()


def _point_rows(points: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    rows = []
    for p in points:
        low, high = p["ci95"]
        rate = [f"{p['bytes']:,.0f}", p["bpp"] and f"{p['bpp']:.4f}", p["kbps"] and f"{p['kbps']:.1f}"]
        top1 = f"{100 * p['top1']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        of = f"{p['source_bytes_ratio']:.1%}"
        rows.append(
            [p["medium"], p["head"], p["qp"], *rate, of, top1, f"{100 * p['top5']:.1f}", f"{100 * p['mean_class']:.1f}"]
        )
    return rows


def _difference_rows(differences: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [
        [
            d["of"],
            d["head"],
            d["qp"],
            f"{d['source_bytes_ratio']:.1%}",
            d["against"],
            f"{d['bytes_ratio']:.2f}x",
            _signed(d),
            d["clips"],
        ]
        for d in differences
    ]


def _speed_rows(speed: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[r["reader"], f"{r['clips_per_s']:.2f}", f"{r['frames_per_s']:.0f}", f"{r['bytes']:,.0f}"] for r in speed]


def _signed(difference: Mapping[str, Any]) -> str:
    low, high = difference["ci95"]
    return f"{100 * difference['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
