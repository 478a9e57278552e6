"""Plots of a scalable study: rates against what they buy, and previews beside pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vidlbc
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.scalable.image_stage import Scalable
from vidlbc.experiments.scalable.measure import as_frames

_COLOURS = ("#0072B2", "#D55E00", "#CC79A7", "#E69F00")
_ROWS = 4


def plot_rates(path: Path, figures: Mapping[str, Any]) -> None:
    """Three panels: base rate against top-1, base rate against the preview's PSNR, whole rate against PSNR."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for index, (name, points) in enumerate(figures["points"].items()):
        colour = _COLOURS[index % len(_COLOURS)] if "top1" in points[0] else "#555555"
        style = {"color": colour, "marker": "os^D"[index % 4], "ms": 4, "label": name}
        if "top1" in points[0]:
            rate = [p["base_bpp"] for p in points]
            top1 = np.array([[p["top1"], *p["top1_ci95"]] for p in points]).T * 100
            axes[0].errorbar(rate, top1[0], yerr=np.abs(top1[1:] - top1[0]), capsize=3, **style)
            axes[1].plot(rate, [p["preview_psnr"] for p in points], **style)
        axes[2].plot([p["bpp"] for p in points], [p["psnr"] for p in points], **style)
    axes[0].axhline(100 * figures["chance"], color="#777777", ls="--", lw=1)
    axes[0].set(title="base: recognition", ylabel="top-1 %", xlabel="bit/pixel of the base")
    axes[1].set(title="base: preview", ylabel="PSNR dB", xlabel="bit/pixel of the base")
    axes[2].set(title="base + enhancement", ylabel="PSNR dB", xlabel="bit/pixel")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[2].legend(frameon=False)
    figure.savefig(path, dpi=110)


def plot_previews(path: Path, folders: Mapping[str, Path], clips: ClipSet, qp: int) -> None:
    """Rows of original | preview of each base | base + enhancement of the last; the middle frame of a few clips."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(clips) - 1, min(_ROWS, len(clips))).astype(int)
    frames = np.stack([clips.clips[i][len(clips.clips[i]) // 2] for i in chosen])
    columns: list[tuple[str, np.ndarray]] = [("original", frames)]
    whole: tuple[str, np.ndarray] | None = None
    for name, folder in folders.items():
        if not (folder / "head.safetensors").is_file():
            continue
        codec = vidlbc.load(folder, device="cpu", temporal="none")
        assert isinstance(codec.stage, Scalable)
        streams = [codec.compress(frame[None], qp) for frame in frames]
        with torch.inference_mode():
            shown = [as_frames(codec.stage.preview(codec.latents(stream, base=True)))[0] for stream in streams]
        columns.append((f"preview, {name}", _cut(shown, frames)))
        whole = (f"base + enhancement, {name}", np.stack([codec.decompress(stream)[0] for stream in streams]))
    columns += [whole] if whole else []
    figure = Figure(figsize=(2.2 * len(columns), 2.25 * len(frames)), layout="constrained")
    FigureCanvasAgg(figure)
    for row in range(len(frames)):
        for column, (title, pictures) in enumerate(columns):
            axis = figure.add_subplot(len(frames), len(columns), row * len(columns) + column + 1)
            axis.imshow(pictures[row])
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)


def _cut(pictures: Sequence[np.ndarray], frames: np.ndarray) -> np.ndarray:
    return np.stack([picture[: frames.shape[1], : frames.shape[2]] for picture in pictures])
