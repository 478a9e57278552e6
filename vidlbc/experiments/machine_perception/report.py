"""The study's table and plot, from the figures of metrics.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidlbc.evaluate.probe.bootstrap import bootstrap_ci, paired_difference
from vidlbc.run.tables import format_table


def score(correct: NDArray[np.float64], against: NDArray[np.float64] | None = None) -> dict[str, Any]:
    """Top-1 of clips (n,), each the share of seeds or draws in which it was right, with a 95% interval over clips.

    `against`: the same clips under another medium; the difference is paired.
    """
    told: dict[str, Any] = {"top1": float(correct.mean()), "ci95": list(bootstrap_ci(correct)), "clips": len(correct)}
    if against is not None:
        difference, interval = paired_difference(correct, against)
        told |= {"difference": difference, "difference_ci95": list(interval)}
    return told


def tables(figures: Mapping[str, Any]) -> str:
    """One table a rate: full data, then low-shot."""
    parts = []
    for rate in figures["rates"]:
        parts.append(f"qp {rate['qp']} of {figures['first']}: {rate['target']:,} bytes for {figures['clips']} clips")
        parts.append(format_table(_full_rows(rate), _full_header(figures["first"])))
        for kind in ("resnet", "linear"):
            if rate[kind]["low_shot"]:
                parts += _low_shot(kind, rate[kind]["low_shot"], figures)
    if figures["ablation"]:
        rows = [[name, f"{entry['parameters']:,}", _percent(entry)] for name, entry in figures["ablation"].items()]
        parts.append(format_table(rows, [f"head on {figures['first']}", "parameters", "top-1 [95%]"]))
    return "\n\n".join(parts)


def _full_header(first: str) -> list[str]:
    less = f"less {first} [95%]"
    return ["input", "setting", "bit/pixel", "PSNR dB", "ResNet top-1 [95%]", less, "linear top-1 [95%]", less]


def _full_rows(rate: Mapping[str, Any]) -> list[list[Any]]:
    rows = []
    for name, medium in rate["media"].items():
        bpp = "-" if medium["bpp"] is None else f"{medium['bpp']:.4f}"
        quality = "-" if medium["psnr"] is None else f"{medium['psnr']:.2f}"
        row: list[Any] = [name, medium["setting"], bpp, quality]
        for kind in ("resnet", "linear"):
            entry = rate[kind]["full"].get(name)
            row += ["-", "-"] if entry is None else [_percent(entry), _difference(entry)]
        rows.append(row)
    return rows


def _low_shot(kind: str, media: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    """Top-1 by examples a class, then the paired differences to the first medium."""
    shots, first = [str(k) for k in figures["shots"]], next(iter(media))
    title = f"low-shot, {len(figures['novel'])} novel classes, {kind} features; columns: examples a class"
    rows = [[name, *(_percent(by_shot[k]) for k in shots)] for name, by_shot in media.items()]
    less = [[name, *(_difference(by_shot[k]) for k in shots)] for name, by_shot in media.items() if name != first]
    told = [title, format_table(rows, ["input", *shots])]
    return [*told, format_table(less, [f"less {first}", *shots])] if less else told


def _percent(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{100 * entry['top1']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _difference(entry: Mapping[str, Any]) -> str:
    if "difference" not in entry:
        return "-"
    low, high = entry["difference_ci95"]
    return f"{100 * entry['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def plot_shots(path: Path, media: Mapping[str, Mapping[str, Any]], shots: Sequence[int], chance: float) -> None:
    """Top-1 on novel classes over examples a class, one line a medium, with 95% intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (name, by_shot) in enumerate(media.items()):
        entries = [by_shot[str(k)] for k in shots]
        top1 = np.array([100 * entry["top1"] for entry in entries])
        ends = 100 * np.array([entry["ci95"] for entry in entries]).T
        at = np.arange(len(shots)) + 0.05 * (place - (len(media) - 1) / 2)
        spread = np.clip(np.stack([top1 - ends[0], ends[1] - top1]), 0, None)
        axes.errorbar(at, top1, yerr=spread, marker="o", capsize=3, lw=1.4, label=name)
    axes.axhline(100 * chance, color="#777777", ls="--", lw=1, label="chance")
    axes.set_xticks(range(len(shots)), [str(k) for k in shots])
    axes.set(xlabel="examples a novel class", ylabel="top-1, % (95% interval)", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png")
    part.replace(path)
