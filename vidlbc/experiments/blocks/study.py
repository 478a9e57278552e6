"""Which network makes the better codec at equal compute: `lbc` image stages of other blocks, trained in the same way.

    contestants --match_widths--> equal multiply-adds --run_image_job--> models --> true sizes, PSNR --> BD-rate

Every contestant is trained twice: for the same number of steps as the reference, and for as many as take the same
processor time. At equal multiply-adds networks differ several times in speed, so one budget alone would not answer the
question. Processor time of a step is measured side by side before the trainings: their own clocks also show what else
the machine was doing.

    OUT/NAME/           a model folder: the same steps      OUT/NAME_time/   the same: the same processor time
    OUT/metrics.json    every figure                        OUT/curves.png   rate against quality
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidlbc.codec import models
from vidlbc.codec.image_stage import ImageStage, build_image_stage
from vidlbc.codec.image_stage.cost import match_widths, multiply_adds
from vidlbc.codec.inputs import pick_device
from vidlbc.errors import InputError
from vidlbc.evaluate.rate_distortion.bjontegaard import bd_rate
from vidlbc.experiments.figures import plot_lines
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request
from vidlbc.run.tables import format_table
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.image_job import ImageJobSettings, run_image_job
from vidlbc.train.objectives.image import RateDistortion
from vidlbc.train.schedule import Budget

_TIMED_RUNS = 5


@dataclass(frozen=True)
class BlockStudySettings:
    """`contestants`: {name: options of the stage}; the first is the reference, whose compute the others get.

    `widths`: of the reference, and the others' proportions, unless a contestant's options have `widths`; when scaled,
    not below `floor`. `stage`: options that all share. `steps`: of every training.
    """

    train: tuple[PictureSource, ...]
    val: tuple[PictureSource, ...]
    out: Path
    contestants: Mapping[str, Mapping[str, Any]]
    widths: tuple[int, ...] = (48, 128, 192, 256)
    floor: tuple[int, ...] = (48, 64, 64, 64)
    stage: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 400
    same_time: bool = True
    crops: CropSettings = field(default_factory=CropSettings)
    lr: float = 1.5e-3
    ema: float = 0.99
    seed: int = 0
    eval_qps: tuple[int, ...] = (8, 24, 32, 40, 56)
    eval_pictures: int = 24
    frame: int = 256
    device: str = "auto"


def contestants(settings: BlockStudySettings) -> dict[str, dict[str, Any]]:
    """{name: options of its stage}, all of the reference's compute within 5%. Raises InputError."""
    if len(settings.contestants) < 2:
        raise InputError("contestants: expected the reference and at least one other network")
    found: dict[str, dict[str, Any]] = {}
    target = None
    for name, own in settings.contestants.items():
        options = {**settings.stage, "widths": settings.widths, **own}
        if target is None:
            target = multiply_adds("lbc", options)
        else:
            options["widths"] = match_widths(options, target, options["widths"], settings.floor)
        found[name] = {**options, "widths": list(options["widths"])}
    return found


def run_block_study(settings: BlockStudySettings) -> dict[str, Any]:
    """Train and measure every contestant; resumes. Returns the figures of metrics.json. Raises InputError."""
    if len(settings.eval_qps) < 4:
        raise InputError(f"eval.qps={list(settings.eval_qps)}: a BD-rate needs at least 4")
    stages = contestants(settings)
    keep_request(settings.out / "request.json", _request(settings), settings.out, write=True)
    reference = next(iter(stages))
    seconds = _step_seconds(settings, stages)
    rows: dict[str, dict[str, Any]] = {}
    for name, options in stages.items():
        rows[name] = _one(settings, name, options, Budget(steps=settings.steps))
    for name, options in list(stages.items())[1:] if settings.same_time else ():
        steps = max(1, round(settings.steps * seconds[reference] / seconds[name]))
        rows[f"{name}_time"] = _one(settings, f"{name}_time", options, Budget(steps=steps))
    for name, row in rows.items():
        row["step_seconds"] = seconds[name.removesuffix("_time")]
    anchor = _curve(rows[reference]["val"])
    for name, row in rows.items():
        row["bd_rate"] = 0.0 if name == reference else _difference(anchor, _curve(row["val"]))
    figures = {"reference": reference, "rows": rows}
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    curves = {name: _curve(row["val"]) for name, row in rows.items()}
    plot_lines(settings.out / "curves.png", curves, "bit/pixel", "PSNR in dB")
    print(block_table(figures))
    return figures


def block_table(figures: Mapping[str, Any]) -> str:
    """The table that ends a run."""
    header = ["network", "widths", "MMAC", "M param.", "steps", "s/step", "ms/frame", "BD-rate %"]
    qps = [rate["qp"] for rate in next(iter(figures["rows"].values()))["val"]]
    header += [f"qp {qp}" for qp in qps]
    lines = []
    for name, row in figures["rows"].items():
        bd = None if row["bd_rate"] is None else f"{row['bd_rate']:+.1f}"
        line = [name, "/".join(map(str, row["options"]["widths"])), f"{row['multiply_adds'] / 1e6:.0f}"]
        line += [f"{row['parameters'] / 1e6:.2f}", row["steps"], f"{row['step_seconds']:.2f}", f"{row['ms']:.0f}", bd]
        lines.append([*line, *(f"{rate['bpp']:.3f}/{rate['psnr']:.2f}" for rate in row["val"])])
    count = next(iter(figures["rows"].values()))["val"][0]["pictures"]
    title = (
        f"{count} validation pictures, true bytes: bit/pixel / PSNR in dB at each qp; BD-rate against "
        f"{figures['reference']}; NAME_time: trained for the reference's processor time, not its steps"
    )
    return format_table(lines, header, title)


def _one(settings: BlockStudySettings, name: str, options: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """One training and its measurement, or what is there from an earlier run."""
    out = settings.out / name
    place = out / "study.json"
    if place.is_file():
        return json.loads(place.read_text())
    print(f"--- {name}: widths {options['widths']}", flush=True)
    job = ImageJobSettings(
        train=settings.train,
        out=out,
        family="lbc",
        options=options,
        budget=budget,
        crops=settings.crops,
        lr=settings.lr,
        ema=settings.ema,
        seed=settings.seed,
        val=settings.val,
        eval_qps=settings.eval_qps,
        eval_pictures=settings.eval_pictures,
        device=settings.device,
    )
    figures = run_image_job(job)
    assert figures is not None, "block studies run in one process"
    stage = models.load_image_stage(out / "image_stage").stage
    coded = [p.numel() for n, p in stage.named_parameters() if not n.startswith("prior.")]
    row = {
        "options": options,
        "multiply_adds": multiply_adds("lbc", options, settings.frame).total,
        "parameters": sum(coded),
        "ms": round(_milliseconds(stage, settings.frame, settings.device), 2),
        **{key: figures[key] for key in ("steps", "seconds", "val")},
    }
    write_atomic(place, dump_json(row, indent=1))
    return row


def _step_seconds(settings: BlockStudySettings, stages: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Processor time of a training step of each: the least of a few, in turns, as other work only adds."""
    place = settings.out / "step_seconds.json"
    if place.is_file():
        return json.loads(place.read_text())
    device = pick_device(settings.device)
    built = {name: build_image_stage("lbc", **options).to(device) for name, options in stages.items()}
    size, batch = settings.crops.size, settings.crops.batch
    frames, qp = torch.rand(batch, 3, size, size, device=device), torch.full((batch,), 32, device=device)
    found = dict.fromkeys(stages, float("inf"))
    for _ in range(_TIMED_RUNS):
        for name, stage in built.items():
            stage.to(memory_format=torch.channels_last)
            found[name] = min(found[name], _seconds(partial(_step, stage, frames, qp)))
    write_atomic(place, dump_json(found, indent=1))
    return found


def _step(stage: ImageStage, frames: Tensor, qp: Tensor) -> None:
    RateDistortion()(stage, (frames, qp), 0)[0].backward()


@torch.no_grad()
def _milliseconds(stage: ImageStage, size: int, device: str) -> float:
    """Processor time of analysis and synthesis of one frame: the least of a few."""
    place = pick_device(device)
    stage = stage.to(place)
    frame, qp = torch.rand(1, 3, size, size, device=place), torch.tensor([32], device=place)
    runs = [_seconds(lambda: stage.synthesis(stage.analysis(stage.pad(frame)), qp)) for _ in range(_TIMED_RUNS)]
    return 1000 * min(runs)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() - started


def _difference(anchor: tuple[list[float], list[float]], curve: tuple[list[float], list[float]]) -> float | None:
    """BD-rate in percent; None where a network trained for too short gives no rising curve."""
    try:
        return bd_rate(*anchor, *curve)
    except InputError:
        return None


def _curve(rates: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    return [rate["bpp"] for rate in rates], [rate["psnr"] for rate in rates]


def _request(settings: BlockStudySettings) -> dict[str, Any]:
    plain = asdict(replace(settings, out=Path()))
    return {name: value for name, value in plain.items() if name not in ("out", "device")}
