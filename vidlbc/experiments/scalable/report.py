"""The figures of a scalable study: rates, accuracy, previews, Bjontegaard differences; a table, a plot, pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidlbc.errors import InputError
from vidlbc.evaluate import bootstrap_ci
from vidlbc.evaluate.rate_distortion.bjontegaard import bd_rate
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.scalable.measure import ClipPoint, clips_to_measure, measure_model
from vidlbc.experiments.scalable.settings import ANCHORS, ScalableSettings
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table

_DRAWS = 200


@dataclass(frozen=True)
class Measured:
    """Of one model: an array (clips, QPs) a figure, in the order of the clips that all models share."""

    name: str
    qps: tuple[int, ...]
    columns: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, name: str, points: Mapping[int, Sequence[ClipPoint]]) -> "Measured":
        first = next(iter(points.values()))[0]
        names = [field for field, value in vars(first).items() if field != "key" and value is not None]
        columns = {
            field: np.array([[getattr(p, field) for p in rows] for rows in points.values()], float).T for field in names
        }
        if "base_bytes" in columns:
            columns["enhancement_bytes"] = columns["bytes"] - columns["base_bytes"]
        return cls(name, tuple(points), columns)

    @property
    def layered(self) -> bool:
        return "base_bytes" in self.columns

    def bpp(self, field: str, clips: Any = slice(None)) -> NDArray[np.float64]:
        """Bit/pixel at each QP of `bytes`, `base_bytes` or `enhancement_bytes`, over the chosen clips."""
        return 8 * self.columns[field][clips].sum(0) / self.columns["pixels"][clips].sum(0)

    def mean(self, field: str, clips: Any = slice(None)) -> NDArray[np.float64]:
        return self.columns[field][clips].mean(0)


def report(settings: ScalableSettings, clips: ClipSet) -> dict[str, Any]:
    """Measure every model of the study, write metrics.json and the plots, print the table. Returns the figures."""
    from vidlbc.experiments.scalable.plots import plot_previews, plot_rates

    if len(settings.eval_qps) < 4:
        raise InputError(f"eval.qps={list(settings.eval_qps)}: a BD-rate needs at least 4")
    chosen = clips_to_measure(clips, settings.eval_frames, settings.eval_clips)
    folders = {f"beta {beta:g}": settings.folder("both", beta) for beta in settings.betas}
    folders |= {name: settings.folder(part) for part, name in ANCHORS.items()}
    models = [
        Measured.of(name, measure_model(folder, chosen, settings.eval_qps, settings.out / "points" / folder.name))
        for name, folder in folders.items()
    ]
    figures = {
        "clips": len(chosen),
        "frames": int(sum(map(len, chosen.clips))),
        "size": settings.clips.size,
        "classes": len(clips.classes),
        "chance": float(np.bincount(chosen.labels).max() / len(chosen)),
        "points": {model.name: points_of(model) for model in models},
        "comparisons": compare(models),
        "base_alone": base_alone(models),
    }
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    plot_rates(settings.out / "rates.png", figures)
    plot_previews(settings.out / "previews.png", folders, chosen, settings.eval_qps[len(settings.eval_qps) // 2])
    print(tables(figures))
    print(f"\nevery figure: {settings.out / 'metrics.json'}")
    return figures


def points_of(model: Measured) -> list[dict[str, Any]]:
    """One entry a QP."""
    rows = []
    for index, qp in enumerate(model.qps):
        row: dict[str, Any] = {"qp": qp, "bpp": model.bpp("bytes")[index], "psnr": model.mean("psnr")[index]}
        if model.layered:
            right = model.columns["right"][:, index]
            row |= {"base_bpp": model.bpp("base_bytes")[index], "top1": right.mean(), "top1_ci95": bootstrap_ci(right)}
            row |= {name: model.mean(name)[index] for name in ("nats", "preview_psnr")}
        rows.append({name: float(value) if isinstance(value, np.floating) else value for name, value in row.items()})
    return rows


# What is compared: which bytes buy which quality. A loss counts as negative quality.
_CURVES = {
    "base: cross-entropy": ("base_bytes", "nats", -1.0),
    "base: top-1": ("base_bytes", "right", 1.0),
    "base: preview": ("base_bytes", "preview_psnr", 1.0),
    "enhancement: its own bits": ("enhancement_bytes", "psnr", 1.0),
    "base + enhancement": ("bytes", "psnr", 1.0),
}


def compare(models: Sequence[Measured], draws: int = _DRAWS) -> list[dict[str, Any]]:
    """BD-rates of every layered model after the first against the first, and of all of them against each anchor.

    Intervals are 95% bootstrap over clips, the same draws for both. None: the curves overlap over less than half, or
    one does not rise with the rate.
    """
    anchors = [model for model in models if not model.layered]
    first, *others = [model for model in models if model.layered]
    pairs = [(model, first, what) for model in others for what in _CURVES]
    pairs += [(model, anchor, "base + enhancement") for anchor in anchors for model in (first, *others)]
    rows = []
    for model, anchor, what in pairs:
        rate, quality, sign = _CURVES[what]

        def difference(
            at: Any,
            model: Measured = model,
            anchor: Measured = anchor,
            rate: str = rate,
            quality: str = quality,
            sign: float = sign,
        ) -> float:
            theirs, ours = ((m.bpp(rate, at).tolist(), (sign * m.mean(quality, at)).tolist()) for m in (anchor, model))
            try:
                value = bd_rate(theirs[0], theirs[1], ours[0], ours[1])
            except InputError:  # a curve that does not rise
                value = None
            return math.nan if value is None else value

        clips = np.arange(len(model.columns["pixels"]))
        value = difference(clips)
        row: dict[str, Any] = {"what": what, "of": model.name, "against": anchor.name, "bd_rate": _finite(value)}
        if row["bd_rate"] is not None:
            row["ci95"] = [_finite(edge) for edge in bootstrap_ci(clips, difference, draws=draws)]
        rows.append(row)
    return rows


def base_alone(models: Sequence[Measured]) -> list[dict[str, Any]]:
    """Of every layered model: share of the bytes that a reader of the base reads, and how much sooner it is done."""
    rows = []
    for model in models:
        if not model.layered:
            continue
        c = model.columns
        # The first clip of a QP also pays for building the decoder's graphs.
        speed = np.median(c["seconds"][1:] / c["base_seconds"][1:]) if len(c["seconds"]) > 1 else math.nan
        rows.append(
            {
                "of": model.name,
                "bytes_read": float(c["base_read"].sum() / c["bytes"].sum()),
                "read_behind_base": int((c["base_read"] > c["base_bytes"]).sum()),
                "times_as_fast": _finite(float(speed)),
                "top1_mean": float(c["right"].mean()),
                "top1_mean_ci95": bootstrap_ci(c["right"].mean(1)),
            }
        )
    return rows


def tables(figures: Mapping[str, Any]) -> str:
    """The tables that end a run."""
    header = ["model", "qp", "base bit/pixel", "top-1 % [95%]", "nats", "preview dB", "bit/pixel", "PSNR dB"]
    rows = []
    for name, points in figures["points"].items():
        for p in points:
            own = ["", "", "", ""]
            if "top1" in p:
                low, high = p["top1_ci95"]
                top1 = f"{100 * p['top1']:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
                own = [f"{p['base_bpp']:.4f}", top1, f"{p['nats']:.3f}", f"{p['preview_psnr']:.2f}"]
            rows.append([name, p["qp"], *own, f"{p['bpp']:.4f}", f"{p['psnr']:.2f}"])
    title = (
        f"{figures['clips']} test clips, {figures['frames']} frames of {figures['size']} pixels; sizes of files; "
        f"largest class {100 * figures['chance']:.1f}%"
    )
    text = f"{title}\n{format_table(rows, header)}\n\nBD-rate, negative: fewer bits; 95% over clips; "
    text += "-: too little overlap, or a curve that does not rise\n"
    lines = []
    for row in figures["comparisons"]:
        edges = row.get("ci95", [None, None])
        interval = f"[{edges[0]:+.1f}, {edges[1]:+.1f}]" if None not in edges else ""
        value = "-" if row["bd_rate"] is None else f"{row['bd_rate']:+.1f}%"
        lines.append([row["what"], row["of"], row["against"], value, interval])
    text += format_table(lines, ["curve", "of", "against", "BD-rate", "95%"])
    lines = []
    for row in figures["base_alone"]:
        low, high = row["top1_mean_ci95"]
        top1 = f"{100 * row['top1_mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        speed = "-" if row["times_as_fast"] is None else f"{row['times_as_fast']:.2f}"
        lines.append([row["of"], f"{100 * row['bytes_read']:.1f}%", row["read_behind_base"], speed, top1])
    names = ["base alone, of", "bytes read", "clips read too far", "times as fast", "top-1 %, mean over QPs [95%]"]
    return f"{text}\n\n{format_table(lines, names)}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
