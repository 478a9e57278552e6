"""Figures of the transfer and block studies: pictures side by side, and curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray


def plot_grid(path: Path, columns: Mapping[str, Sequence[NDArray]]) -> None:
    """One row a picture, one column a name: uint8 (H, W, 3), or (H, W) in [0, 1] shown as dark on white."""
    from matplotlib.figure import Figure

    rows = len(next(iter(columns.values())))
    height, width = next(iter(columns.values()))[0].shape[:2]
    figure = Figure(figsize=(2.6 * len(columns), 2.6 * rows * height / width + 0.3), dpi=110, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for place, (name, pictures) in enumerate(columns.items()):
        axes[0, place].set_title(name, fontsize=9)
        for row, picture in enumerate(pictures):
            axes[row, place].imshow(picture, cmap="gray_r", vmin=0, vmax=1)
            axes[row, place].set_axis_off()
    _save(figure, path)


def plot_lines(
    path: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> None:
    """Curves {name: (x, y)} in one panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        axes.plot(x, y, marker="o" if len(x) <= 12 else None, ms=4, lw=1.5, label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    """Under a temporary name first: a run that is killed leaves no half picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png")
    part.replace(path)


def save_picture(path: Path, picture: NDArray) -> None:
    """uint8 (H, W) or (H, W, 3) as PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    Image.fromarray(picture).save(part, format="PNG")
    part.replace(path)
