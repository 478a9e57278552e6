"""Does a model that learned to compress help downstream tasks? (Xie et al., arXiv 2105.13978, section 3.4)

contestants (pretrained | klt | random, frozen | tuned) x tasks --equal steps--> one table, metrics.json, pictures

OUT/TASK/CONTESTANT/    checkpoint, log, result.json: a row that is done is not run again
OUT/metrics.json        every figure           OUT/TASK.png          input | predictions | truth
OUT/table.txt           what is printed        OUT/TASK_loss.png     training losses
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidlbc.codec.inputs import check_qp
from vidlbc.errors import InputError
from vidlbc.evaluate import bootstrap_ci
from vidlbc.experiments.clips import ClipSettings, load_clips
from vidlbc.experiments.figures import plot_grid, plot_lines
from vidlbc.experiments.transfer.classes import ClassSettings, ClassTask
from vidlbc.experiments.transfer.dense import BoundaryTask, DenseSettings, ResolutionTask
from vidlbc.experiments.transfer.pictures import read_all, read_with_boundaries
from vidlbc.experiments.transfer.start import Contestant, load_pretrained
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request
from vidlbc.run.tables import format_table
from vidlbc.train.data.pictures import PictureSource

_SHOWN_PIXELS = 256
_LOSS_POINTS = 60


@dataclass(frozen=True)
class ClassesPart:
    """`sets`: annotation lists by name; `clips`: how they are read; `cache`: where read clips are kept.

    Raises InputError for a contestant that is none of a classifier's.
    """

    contestants: tuple[str, ...]
    sets: Mapping[str, str]
    clips: ClipSettings = field(default_factory=ClipSettings)
    settings: ClassSettings = field(default_factory=ClassSettings)
    cache: Path | None = None

    def __post_init__(self) -> None:
        for text in self.contestants:
            if Contestant.of(text).identity:
                raise InputError(f"classes: contestant {text}: a linear head has no use for identity connections")


@dataclass(frozen=True)
class BoundariesPart:
    """Pictures whose boundaries lie in `segmentation`; `pictures`: at most so many of `test`."""

    contestants: tuple[str, ...]
    train: tuple[PictureSource, ...]
    test: tuple[PictureSource, ...]
    segmentation: Path
    settings: DenseSettings = field(default_factory=lambda: DenseSettings(batch=4, size=160))
    pictures: int | None = None


@dataclass(frozen=True)
class ResolutionPart:
    """`test`: sets of pictures by name, of each at most `pictures`. Raises InputError."""

    contestants: tuple[str, ...]
    train: tuple[PictureSource, ...]
    test: Mapping[str, tuple[PictureSource, ...]]
    scale: int = 2
    settings: DenseSettings = field(default_factory=lambda: DenseSettings(batch=8, size=96))
    pictures: int | None = None

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise InputError(f"super_resolution.scale={self.scale}: expected at least 2")
        if not self.test:
            raise InputError("super_resolution.test: no test set")


@dataclass(frozen=True)
class TransferSettings:
    """`model`: a shipped model or a model folder, of family lbc. Parts that are None are not run."""

    out: Path
    model: str = "default"
    classes: ClassesPart | None = None
    boundaries: BoundariesPart | None = None
    super_resolution: ResolutionPart | None = None


class Task(Protocol):
    """What the study needs of a task."""

    name: str

    def run(self, contestant: Contestant, folder: Path) -> dict[str, Any]: ...

    def baseline(self, folder: Path) -> dict[str, Any]: ...


def run_transfer(settings: TransferSettings) -> dict[str, Any]:
    """Run or resume every row; the figures of metrics.json. Raises InputError before the first training."""
    load_pretrained(settings.model)
    parts: list[tuple[Any, Any]] = [
        (settings.classes, _class_tasks),
        (settings.boundaries, _boundary_task),
        (settings.super_resolution, _resolution_task),
    ]
    wanted = [(part, make, [Contestant.of(text) for text in part.contestants]) for part, make in parts if part]
    for part, _, _ in wanted:
        if isinstance(part.settings, DenseSettings) and part.settings.quantise is not None:
            check_qp(part.settings.quantise)
    settings.out.mkdir(parents=True, exist_ok=True)
    keep_request(settings.out / "request.json", _request(settings), settings.out, write=True)
    rows: dict[str, dict[str, Any]] = {}
    # All data is read before the first training: what is missing is told at once.
    tasks = [(task, contestants) for part, make, contestants in wanted for task in make(part, settings)]
    for task, contestants in tasks:
        rows[task.name] = _run_task(task, contestants, settings.out / task.name)
        _draw(task, ["baseline", *(contestant.folder for contestant in contestants)], settings.out)
    figures = {"model": settings.model, "tasks": rows}
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    text = transfer_table(figures)
    write_atomic(settings.out / "table.txt", (text + "\n").encode())
    print(text)
    return figures


def transfer_table(figures: Mapping[str, Any]) -> str:
    """One table a task."""
    tables = []
    for name, rows in figures["tasks"].items():
        one = next(iter(rows.values()))
        if "top1" in one:
            header = ["contestant", "steps", "seconds", "top-1 %", "95% interval"]
            lines = [_line(k, r, f"{100 * r['top1']:.1f}", _interval(r["top1_ci95"], 100, 1)) for k, r in rows.items()]
            title = f"{name}: classification from f, {one['clips']} test clips"
        elif "ods" in one:
            header = ["contestant", "steps", "seconds", "ODS F", "95% interval", "OIS F", "AP"]
            lines = [
                _line(k, r, f"{r['ods']:.3f}", _interval(r["ods_ci95"], 1, 3), f"{r['ois']:.3f}", f"{r['ap']:.3f}")
                for k, r in rows.items()
            ]
            title = f"{name}: {one['pictures']} pictures, matched by dilation within 0.0075 of the diagonal"
        else:
            sets = [key for key, value in one.items() if isinstance(value, Mapping)]
            header = ["contestant", "steps", "seconds"]
            header += [h for s in sets for h in (f"{s} PSNR dB", "over bicubic", "95% interval")]
            lines = []
            for k, r in rows.items():
                cells: list[str] = []
                for s in sets:
                    cells += [f"{r[s]['psnr']:.2f}", f"{r[s]['gain']:+.2f}", _interval(r[s]["gain_ci95"], 1, 2)]
                lines.append(_line(k, r, *cells))
            title = f"{name}: " + ", ".join(f"{one[s]['pictures']} pictures of {s}" for s in sets)
        tables.append(format_table(lines, header, title))
    return "\n\n".join(tables)


def _run_task(task: Task, contestants: Sequence[Contestant], out: Path) -> dict[str, dict[str, Any]]:
    rows = {"baseline": _stored(out / "baseline", task.baseline)}
    for contestant in contestants:
        rows[str(contestant)] = _stored(out / contestant.folder, lambda folder, c=contestant: task.run(c, folder))
    with_hits = {name: np.array(row["hits"]) for name, row in rows.items() if "hits" in row}
    for name, hits in with_hits.items():
        # Paired by clip: the same test clips under two contestants.
        for other, others in with_hits.items():
            if other != name and other.startswith("random") and name.startswith("pretrained"):
                rows[name].setdefault("top1_above", {})[other] = bootstrap_ci(hits - others)
    return rows


def _stored(folder: Path, work: Any) -> dict[str, Any]:
    place = folder / "result.json"
    if not place.is_file():
        write_atomic(place, dump_json(work(_made(folder)), indent=1))
    return json.loads(place.read_text())


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _class_tasks(part: ClassesPart, settings: TransferSettings) -> list[Task]:
    cache = settings.out / "cache" if part.cache is None else part.cache
    return [
        ClassTask(name, settings.model, load_clips(place, part.clips, cache), part.settings)
        for name, place in part.sets.items()
    ]


def _boundary_task(part: BoundariesPart, settings: TransferSettings) -> list[Task]:
    training = read_with_boundaries(part.train, part.segmentation)
    test = read_with_boundaries(part.test, part.segmentation, part.pictures)
    return [BoundaryTask(settings.model, training, test, part.settings)]


def _resolution_task(part: ResolutionPart, settings: TransferSettings) -> list[Task]:
    training = read_all(part.train, part.settings.size)
    test = {name: read_all(sources, 32, part.pictures) for name, sources in part.test.items()}
    return [ResolutionTask(settings.model, training, test, part.scale, part.settings)]


def _draw(task: Task, rows: Sequence[str], out: Path) -> None:
    """The pictures of a dense task, and every task's training losses."""
    from PIL import Image

    losses = {}
    folders = [out / task.name / row for row in rows]
    for folder in folders:
        if (folder / "log.jsonl").is_file():
            lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            lines = lines[1 :: max(1, len(lines) // _LOSS_POINTS)]
            losses[folder.name] = ([line["step"] for line in lines], [line["loss"] for line in lines])
    plot_lines(out / f"{task.name}_loss.png", losses, "step", "training loss")
    if not isinstance(task, BoundaryTask | ResolutionTask):
        return
    shown = task.shown()
    first, last = list(shown)
    columns = {first: shown[first]}
    for folder in folders:
        if (folder / "shown_0.png").is_file():
            columns[folder.name] = [np.array(Image.open(path)) for path in sorted(folder.glob("shown_*.png"))]
    columns[last] = shown[last]
    plot_grid(out / f"{task.name}.png", {name: [_centre(p) for p in some] for name, some in columns.items()})


def _centre(picture: NDArray) -> NDArray:
    """The middle square; maps in [0, 1]."""
    side = min(_SHOWN_PIXELS, *picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    part = picture[top : top + side, left : left + side]
    return part if part.ndim == 3 else part / 255


def _line(name: str, row: Mapping[str, Any], *cells: str) -> list[Any]:
    return [name, row.get("steps"), None if "seconds" not in row else f"{row['seconds']:.0f}", *cells]


def _interval(values: Sequence[float], scale: float, digits: int) -> str:
    return "[" + ", ".join(f"{scale * value:.{digits}f}" for value in values) + "]"


def _request(settings: TransferSettings) -> dict[str, Any]:
    """What decides the figures, flat, by the names of the options."""
    found: dict[str, Any] = {"model": settings.model}
    for name in ("classes", "boundaries", "super_resolution"):
        part = getattr(settings, name)
        values = {} if part is None else json.loads(json.dumps(asdict(part), default=str))
        found |= {f"{name}.{key}": value for key, value in values.items() if key not in ("cache", "contestants")}
    return found
