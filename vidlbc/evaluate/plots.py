"""Figures of a report, as png. Matplotlib's object interface on Agg: no window, no global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidlbc.errors import InputError
from vidlbc.evaluate.rate_distortion.means import Mean, means, of_shared_clips

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vidlbc.evaluate.rate_distortion.measure import Point

# Okabe and Ito's palette: distinct in print and for colour-blind readers.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
_COLOURS = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9")


def plot_frame_bits(
    path: str | Path,
    bits: Sequence[float],
    bits_no_context: Sequence[float],
    title: str = "",
    beside: str = "without context",
) -> None:
    """Bits of every frame of a clip, with temporal context and beside it without."""
    if not len(bits) or len(bits) != len(bits_no_context):
        raise InputError(f"{path}: expected bits of the same frames, got {len(bits)} and {len(bits_no_context)}")
    figure, (axes,) = _figure(7.0, 3.2)
    with_context, without = np.asarray(bits, float) / 1000, np.asarray(bits_no_context, float) / 1000
    frames = np.arange(len(bits))
    axes.fill_between(frames, with_context, without, where=(without >= with_context).tolist(), color=_GREEN, alpha=0.15)
    axes.plot(frames, without, color=_GREY, lw=1.4, label=f"{beside}: {without.sum():,.0f} kbit")
    saved = 100.0 * (1.0 - with_context.sum() / without.sum()) if without.sum() > 0 else 0.0
    label = f"with context: {with_context.sum():,.0f} kbit ({saved:.0f}% saved)"
    axes.plot(frames, with_context, color=_BLUE, lw=1.8, label=label)
    axes.set(xlabel="frame", ylabel="kbit", ylim=(0, None), xlim=(0, max(1, len(bits) - 1)), title=title)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_reconstruction(
    path: str | Path, source: np.ndarray, ours: np.ndarray, captions: Sequence[str] = (), error_scale: float = 32.0
) -> None:
    """Rows of source | ours | absolute error, one a frame; uint8 (n, H, W, 3) twice. `error_scale` is white's error."""
    source, ours = np.asarray(source), np.asarray(ours)
    if source.shape != ours.shape or source.ndim != 4 or not len(source):
        raise InputError(f"{path}: expected two clips of shape (n, H, W, 3), got {source.shape} and {ours.shape}")
    n, height, width = source.shape[:3]
    column = 3.2
    figure, axes = _figure(3 * column, n * (column * height / width + 0.28) + 0.2, n, 3)
    for i in range(n):
        error = np.abs(source[i].astype(np.int16) - ours[i].astype(np.int16)).mean(axis=2)
        left, middle, right = axes[3 * i : 3 * i + 3]
        left.imshow(source[i])
        middle.imshow(ours[i])
        right.imshow(error, cmap="magma", vmin=0, vmax=error_scale)
        for axis in (left, middle, right):
            axis.set_axis_off()
        if i == 0:
            left.set_title("source", fontsize=10)
            right.set_title(f"error (white: {error_scale:.0f} of 255)", fontsize=10)
        name = "ours" if i == 0 else ""
        caption = captions[i] if i < len(captions) else ""
        middle.set_title(": ".join(t for t in (name, caption) if t), fontsize=10)
    _save(figure, path)


def plot_rate_distortion(path: str | Path, points: "Sequence[Point]") -> None:
    """Mean PSNR and MS-SSIM (in dB) over mean bit/pixel, a curve a codec; only clips that all of them coded count."""
    if not points:
        raise InputError(f"{path}: no rate and distortion to plot")
    shared = of_shared_clips(points)
    curves: dict[str, list[Mean]] = {point.codec: [] for point in points}
    for mean in means(shared):
        curves[mean.codec].append(mean)
    figure, panels = _figure(11.0, 4.4, 1, 2)
    for number, (kind, some) in enumerate(curves.items()):
        rows = sorted((mean.bpp, mean.psnr, mean.ms_ssim_db) for mean in some)
        style: dict[str, Any] = {"lw": 1.6, "marker": "o", "ms": 4, "label": kind}
        style |= {"color": _COLOURS[number % len(_COLOURS)], "ls": "-" if number < len(_COLOURS) else "--"}
        for column, axes in enumerate(panels, 1):
            axes.plot([row[0] for row in rows], [row[column] for row in rows], **style)
    for axes, name in zip(panels, ("PSNR, dB (RGB)", "MS-SSIM, dB: -10 log10(1 - MS-SSIM)"), strict=True):
        axes.set(xlabel=f"bit/pixel, mean over {len({p.clip for p in shared})} clips", ylabel=name, xscale="log")
        axes.grid(True, which="both", lw=0.3, alpha=0.5)
    panels[0].legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_accuracy(path: str | Path, bars: Sequence[Mapping[str, Any]], chance: float | None = None) -> None:
    """Top-1 with its interval, a rate under each name. `bars`: name, top1, ci95 (low, high), bpp (None: not coded)."""
    if not bars:
        raise InputError(f"{path}: no accuracy to plot")
    figure, (axes,) = _figure(max(3.6, 1.5 * len(bars) + 1.2), 3.6)
    for i, bar in enumerate(bars):
        top1, (low, high) = 100 * bar["top1"], (100 * v for v in bar["ci95"])
        axes.bar(i, top1, width=0.62, color=_COLOURS[i % len(_COLOURS)], alpha=0.85)
        spread = [[max(0.0, top1 - low)], [max(0.0, high - top1)]]
        axes.errorbar(i, top1, yerr=spread, color="black", capsize=4, lw=1.2)
        axes.annotate(f"{top1:.1f}", (i, high), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    names = [f"{b['name']}\n{b['bpp']:.3f} bit/pixel" if b.get("bpp") is not None else str(b["name"]) for b in bars]
    axes.set_xticks(range(len(bars)), names, fontsize=9)
    if chance is not None:
        axes.axhline(100 * chance, color=_GREY, ls="--", lw=1)
        at = (len(bars) - 0.65, 100 * chance)  # right of the last bar
        axes.annotate("chance", at, (0, 2), textcoords="offset points", fontsize=8)
    top = max(100 * max(b["ci95"][1], b["top1"]) for b in bars)
    axes.set(ylabel="top-1, % (95% interval)", ylim=(0, min(108.0, 1.15 * top + 3)), xlim=(-0.6, len(bars) - 0.15))
    _save(figure, path)


def plot_accuracy_curve(path: str | Path, points: Sequence[Mapping[str, Any]], chance: float | None = None) -> None:
    """Top-1 with its interval over bytes of a clip, a line a medium; media without a QP (sources) are bands.

    `points`: medium, qp (or None), bytes, top1, ci95 (low, high).
    """
    if not points:
        raise InputError(f"{path}: no accuracy to plot")
    figure, (axes,) = _figure(8.0, 4.6)
    for number, medium in enumerate(dict.fromkeys(point["medium"] for point in points)):
        some = sorted((p for p in points if p["medium"] == medium), key=lambda p: p["bytes"])
        colour, dashed = _COLOURS[number % len(_COLOURS)], number >= len(_COLOURS)
        top1 = np.array([100 * p["top1"] for p in some])
        ends = 100 * np.array([p["ci95"] for p in some], float)
        if all(p["qp"] is None for p in some):
            axes.axhspan(ends[0, 0], ends[0, 1], color=colour, alpha=0.08, lw=0)
            label = f"{medium}: {some[0]['bytes'] / 1000:.1f} kB"
            axes.axhline(top1[0], color=colour, lw=1.4, ls=":" if dashed else "-.", label=label)
            continue
        spread = np.clip(np.stack([top1 - ends[:, 0], ends[:, 1] - top1]), 0, None)
        style: dict[str, Any] = {"color": colour, "ls": "--" if dashed else "-", "marker": "o", "ms": 4, "lw": 1.5}
        style |= {"capsize": 3, "elinewidth": 0.8, "label": medium}
        axes.errorbar([p["bytes"] / 1000 for p in some], top1, yerr=spread, **style)
    if chance is not None:
        axes.axhline(100 * chance, color=_GREY, ls="--", lw=1, label="chance")
    axes.set(xscale="log", xlabel="kB of a clip, true size (mean)", ylabel="top-1, % (95% interval)", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
    axes.grid(True, which="both", lw=0.3, alpha=0.5)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def plot_long_clip(
    path: str | Path,
    by_length: Mapping[str, Sequence[tuple[float, float]]],
    along: Mapping[str, Sequence[tuple[float, float]]],
    memory: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    """What a frame costs by the length of its clip, and along the longest clip; memory along it. A line a direction.

    All are (frames, value): milliseconds, milliseconds, MB.
    """
    if not by_length or not all(by_length.values()):
        raise InputError(f"{path}: no cost to plot")
    figure, (costs, resident) = _figure(10.0, 3.6, 1, 2)
    for colour, name in zip(_COLOURS, by_length, strict=False):
        costs.plot(*zip(*along[name], strict=True), color=colour, lw=0.8, alpha=0.5)
        style: dict[str, Any] = {"color": colour, "marker": "o", "ms": 5, "lw": 1.5, "label": name}
        costs.plot(*zip(*by_length[name], strict=True), **style)
        frames, mb = zip(*memory[name], strict=True)
        resident.plot([max(1, n) for n in frames], mb, color=colour, lw=1.5, label=name)
    costs.set(xscale="log", xlabel="frames of the clip (thin: along the longest)", ylabel="ms a frame, processor")
    resident.set(xscale="log", xlabel="frames of the longest clip done", ylabel="MB resident")
    for axes in (costs, resident):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.legend(frameon=False, fontsize=9, loc="lower left")
    _save(figure, path)


def plot_confusion(path: str | Path, counts: np.ndarray, classes: Sequence[str], title: str = "") -> None:
    """Counts (true, predicted), shaded by the share of the true class. Numbers are printed up to 40 classes."""
    counts = np.asarray(counts)
    n = len(classes)
    if counts.shape != (n, n):
        raise InputError(f"{path}: expected counts of shape ({n}, {n}), got {counts.shape}")
    side = min(14.0, 0.34 * n + 2.4)
    figure, (axes,) = _figure(side, side)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if n <= 40:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(n), classes, rotation=90, fontsize=8)
        axes.set_yticks(range(n), classes, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def plot_training(
    path: str | Path, steps: Sequence[float], curves: Mapping[str, Sequence[float]], title: str = ""
) -> None:
    """One panel a curve over training steps, with a running mean over many points; None and NaN leave gaps."""
    if not curves:
        raise InputError(f"{path}: no curve to plot")
    for name, values in curves.items():
        if len(values) != len(steps):
            raise InputError(f"{path}: curve '{name}' has {len(values)} values for {len(steps)} steps")
    figure, panels = _figure(7.0, 1.0 + 1.9 * len(curves), len(curves), 1)
    for i, (axes, (name, values)) in enumerate(zip(panels, curves.items(), strict=True)):
        y = np.array([np.nan if v is None else v for v in values], float)
        window = max(1, len(y) // 50)
        axes.plot(steps, y, color=_COLOURS[i % len(_COLOURS)], lw=0.8, alpha=0.4 if window > 1 else 1.0)
        if window > 1:
            axes.plot(steps, running_mean(y, window), color=_COLOURS[i % len(_COLOURS)], lw=1.8)
        axes.set_ylabel(name)
    panels[0].set_title(title)
    panels[-1].set_xlabel("step")
    _save(figure, path)


def running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` values, leaving out gaps; NaN where all are gaps."""
    known = np.isfinite(y)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, y, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    start = np.maximum(np.arange(len(y)) + 1 - window, 0)
    n = count[1:] - count[start]
    return np.where(n > 0, (total[1:] - total[start]) / np.maximum(n, 1), np.nan)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes


def _save(figure: "Figure", path: str | Path) -> None:
    """Under a temporary name first: a run that is killed leaves no half picture."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    figure.savefig(part, format="png")
    part.replace(target)
