"""What ends a two-step run: its tables, and its history as a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidlbc.experiments.learning_by_compression.ratio import Recovery
from vidlbc.run.tables import format_table


def tables(outcome: Mapping[str, Any], variants: Mapping[str, Mapping[int, Recovery]], threshold: float) -> str:
    """RQ of every variant after each phase, and of the final model {variant: {qp: Recovery}} rate and quality."""
    names = list(outcome["phases"][-1]["measured"])
    rows = [
        (r["phase"], str(r["steps"]), *[f"{r['measured'][n]['rq']:.3f}" if n in r["measured"] else "" for n in names])
        for r in outcome["phases"]
    ]
    phases = format_table(rows, ("phase", "steps", *[f"RQ {name}" for name in names]))
    lines = [
        (
            name,
            str(qp),
            f"{m.cr:.1f}",
            f"{m.cr_bytes:.1f}",
            f"{m.bpp:.4f}",
            f"{m.rq:.3f} [{m.rq_low:.3f}, {m.rq_high:.3f}]",
            f"{m.psnr:.2f}",
        )
        for name, measured in variants.items()
        for qp, m in measured.items()
    ]
    header = ("variant", "QP", "CR elements", "CR bytes", "bit/pixel", "RQ [95%]", "PSNR in dB")
    return f"{phases}\n\nthreshold {threshold:g}: {outcome['stopped']}\n\n{format_table(lines, header)}"


def plot_history(path: Path, outcome: Mapping[str, Any], threshold: float) -> None:
    """`outcome` as `TwoStep.run` returns it. Left: RQ against CR after each hold. Right: RQ after each phase."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    phases = outcome["phases"]
    for record in phases:
        if record["kind"] != "hold":
            continue
        points = sorted((m["cr"], m["rq"], name) for name, m in record["measured"].items())
        style = "o-" if record["variant"] in outcome["accepted"] else "x--"
        left.plot([p[0] for p in points], [p[1] for p in points], style, label=f"after {record['variant']} hold")
    for name, m in phases[-1]["measured"].items():
        left.annotate(name, (m["cr"], m["rq"]), (4, 5), textcoords="offset points", fontsize=9)
    left.set(xscale="log", xlabel="CR in elements", ylabel="RQ in nats")
    ratios = sorted(m["cr"] for m in phases[-1]["measured"].values())
    left.set_xticks(ratios, [f"{ratio:.1f}" for ratio in ratios])
    left.set_xticks([], minor=True)
    ratios = [m["cr"] for m in phases[-1]["measured"].values()]
    left.set_xticks(ratios, [f"{ratio:.4g}" for ratio in ratios])
    left.set_xticks([], minor=True)
    for name in phases[-1]["measured"]:
        at = [i for i, record in enumerate(phases) if name in record["measured"]]
        right.plot(at, [phases[i]["measured"][name]["rq"] for i in at], "o-", label=name)
    labels = [f"{record['variant']}\n{record['kind']}" for record in phases]
    right.set_xticks(range(len(phases)), labels, fontsize=8)
    right.set(ylabel="RQ in nats")
    for axes in (left, right):
        axes.axhline(threshold, color="#777777", ls=":", lw=1.2, label="threshold")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
