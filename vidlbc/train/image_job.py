"""Stage 1 from start to end: pictures in, a model folder out. vidlbc pretrain-image runs it.

    check --> start (fresh | init | checkpoint) --> fit --> OUT/image_stage --> validation pictures' true sizes

    OUT/config.json, OUT/image_stage/      the model: vidlbc.load(OUT), model=OUT, image_stage=OUT
    OUT/temporal/                          carried over from init= where the symbols stay what they were
    OUT/training/                          request, checkpoint, log: the same command resumes
    OUT/metrics.json                       written last

Under torchrun every process takes its share of a step's crops; the first one writes.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec import models
from vidlbc.codec.inputs import check_qp, pick_device
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.run import distributed
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.progress import progress_bar
from vidlbc.run.request import keep_request
from vidlbc.run.wandb_log import start_wandb
from vidlbc.train.data.image_data import CropSampler, CropSettings, PooledCrops
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures
from vidlbc.train.image_start import Start, start_from, train_only
from vidlbc.train.image_validation import PictureRate, measure_pictures, spread, table
from vidlbc.train.loop import LoopSettings, Outcome
from vidlbc.train.objectives.image import RateDistortion
from vidlbc.train.schedule import Budget
from vidlbc.train.validation import PictureValidation
from vidlbc.train.with_bar import train

_KLT_CROPS = 128
_KLT_MULTIPLE = 32


@dataclass(frozen=True)
class ImageJobSettings:
    """`family` and `options`: the stage to build; `val`: pictures to code at the end, at `eval_qps`."""

    train: tuple[PictureSource, ...]
    out: Path
    family: str
    options: dict[str, Any]
    budget: Budget
    crops: CropSettings = field(default_factory=CropSettings)
    lr: float = 1e-3
    weight_decay: float = 0.01
    ema: float = 0.999
    balance: float = 0.35
    bf16: bool = False
    seed: int = 0
    init: str | None = None
    grow: bool = False
    checkpoint: str | None = None
    part: str = "all"
    val: tuple[PictureSource, ...] = ()
    eval_qps: tuple[int, ...] = (8, 24, 32, 40, 56)
    eval_pictures: int = 12
    device: str = "auto"
    wandb: bool = False
    log_every: int | None = None
    save_seconds: float = 60.0
    val_seconds: float = 300.0
    tf32: bool = True
    resident: str = "auto"
    step: str = "auto"


def run_image_job(settings: ImageJobSettings) -> dict[str, Any] | None:
    """Run or resume; the figures of metrics.json, or None on ranks other than 0.

    Raises InputError for whatever stands in the way, before the first step; VidlbcError where training diverges.
    """
    device = pick_device(settings.device)
    with distributed.group(device):
        files, val = _check(settings)
        start = start_from(
            settings.family, settings.options, settings.init, settings.checkpoint, settings.seed, settings.grow
        )
        train_only(start.stage, settings.part)
        request = settings.out / "training" / "request.json"
        keep_request(request, _request(settings, files), settings.out, write=distributed.rank() == 0)
        outcome = _train(settings, start, files, val, device)
        figures = None
        if distributed.rank() == 0:
            _save(settings, start)
            figures = _report(settings, outcome, val)
        distributed.barrier()  # no process ends while another may still fail
    return figures


def _check(settings: ImageJobSettings) -> tuple[list[Path], list[Path]]:
    """Training and validation files."""
    for qp in (*settings.eval_qps, *(settings.crops.qps or ())):
        check_qp(qp)
    if settings.crops.batch < 1 or settings.crops.size < _KLT_MULTIPLE:
        wrong = f"train.batch={settings.crops.batch}, train.size={settings.crops.size}"
        raise InputError(f"{wrong}: expected at least 1 and {_KLT_MULTIPLE}")
    files = find_files(settings.train)
    val = find_files(settings.val) if settings.val else []
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={settings.out}: cannot make the folder ({error.strerror})") from None
    return files, val


def _request(settings: ImageJobSettings, files: list[Path]) -> dict[str, Any]:
    """What decides the weights, by the names of the options. The budget may be raised to go on with a run."""
    crops = asdict(settings.crops)
    crops["batch"] *= distributed.world()
    named: dict[str, Any] = {
        "image_stage": {"family": settings.family, **settings.options},
        "init": settings.init,
        "grow": settings.grow,
        "checkpoint": settings.checkpoint,
        "train_only": settings.part,
        "data.train": [asdict(source) for source in settings.train],
        "files": len(files),
    }
    named |= {f"data.{n}": crops.pop(n) for n in ("frames_per_video", "max_side", "pool_mb", "steps_per_pool")}
    own = {n: getattr(settings, n) for n in ("lr", "weight_decay", "ema", "balance", "bf16", "tf32", "seed")}
    return named | {f"train.{name}": value for name, value in {**crops, **own}.items()}


def _train(
    settings: ImageJobSettings, start: Start, files: list[Path], val: list[Path], device: torch.device
) -> Outcome:
    silent = True if distributed.rank() else None
    folder = settings.out / "training"
    with progress_bar(desc="read pictures", unit="file", total=len(files), disable=silent) as meter:

        def on_read(done: int, total: int) -> None:
            meter.total = total
            meter.update(done - meter.n)

        ranks = distributed.rank(), device, on_read, distributed.world()
        crops = PooledCrops(files, settings.crops, NUM_QP, settings.seed, *ranks, settings.resident)
        crops.sampler(0)
        if start.fresh and not (folder / "checkpoint.safetensors").is_file():
            size = settings.crops.size - settings.crops.size % _KLT_MULTIPLE
            sample = CropSampler(crops.sampler(0).pictures, size, _KLT_CROPS, settings.seed + 1, range(NUM_QP))
            start.stage.start_from(sample(0)[0].cpu())
    stage = start.stage.to(device).to(memory_format=torch.channels_last)
    logger = start_wandb(settings.wandb, settings.out)
    loop = LoopSettings.of(settings, log_every=settings.log_every or (100 if device.type == "cuda" else 20))
    validate = None
    if val and distributed.rank() == 0:
        pictures = [picture for path in spread(val, settings.eval_pictures) for picture in read_pictures(path, 1)]
        validate = PictureValidation(pictures, settings.eval_qps)
    on_figures = None if logger is None else logger.log
    objective = RateDistortion(settings.balance)
    outcome = train("train", stage, objective, crops, loop, folder, on_figures, silent, validate)
    for reason in crops.skipped.values() if distributed.rank() == 0 else ():
        print(f"not used: {reason}", file=sys.stderr)
    if logger is not None:
        logger.finish()
    stage.cpu()
    return outcome


def _save(settings: ImageJobSettings, start: Start) -> None:
    """The model folder. Where only the synthesis or the prior was trained, coding tables and temporal stages stay."""
    same_symbols = start.model if settings.part != "all" else None
    coding = same_symbols[1].coding if same_symbols else None
    models.save_image_stage(start.stage, settings.out / "image_stage", start.config, coding)
    kind = "none"
    if same_symbols:
        folder, old = same_symbols
        new = models.load_image_stage(settings.out / "image_stage")
        kind = models.default_kind(folder)
        for place in sorted((folder / "temporal").glob("*/config.json")):
            config = json.loads(place.read_text())
            temporal, _ = models.load_temporal(place.parent, old)
            keep = {name: config[name] for name in ("kind", "options") if name in config}
            models.save_temporal(temporal, settings.out / "temporal" / place.parent.name, keep, new.digest)
    described = {"format": models.FORMAT, "temporal": kind}
    write_atomic(settings.out / "config.json", dump_json(described, indent=1))


def _report(settings: ImageJobSettings, outcome: Outcome, val: list[Path]) -> dict[str, Any]:
    rates: list[PictureRate] = []
    if val:
        rates = measure_pictures(settings.out, val, settings.eval_qps, settings.eval_pictures, settings.device)
    figures = {
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "skipped_steps": outcome.skipped,
        "last": outcome.last,
        "val": [asdict(rate) for rate in rates],
    }
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    print(table(settings.out, outcome, rates))
    print(f"\nmodel: {settings.out}   use it: vidlbc pretrain-video image_stage={settings.out} ...")
    return figures
