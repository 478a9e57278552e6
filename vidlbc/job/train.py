"""Stage 2 of the main job: train the temporal stage on the train split, the image stage being frozen."""

import json
import shutil
import sys
from dataclasses import asdict

import torch
from tqdm import tqdm

from vidlbc import models
from vidlbc.codec import Codec, load, pick_device
from vidlbc.errors import InputError
from vidlbc.job.settings import JobSettings
from vidlbc.job.sources import source_file
from vidlbc.prior.topdown import NUM_QP
from vidlbc.shards import Corpus
from vidlbc.temporal_stage import TemporalStage
from vidlbc.training import distributed
from vidlbc.training.loop import Settings, fit
from vidlbc.training.video_data import ClipSampler
from vidlbc.training.video_objective import SymbolRate


def train_temporal(settings: JobSettings, corpus: Corpus) -> Codec:
    """Writes `out/model` and returns its codec. Skipped where `out/model` is complete."""
    done = settings.model / "trained.json"
    request = _request(settings)
    if done.is_file():
        if json.loads(done.read_text())["request"] != request:
            raise InputError(f"{settings.out} holds a run with other training settings: choose another out=")
    else:
        _train(settings, corpus)
        if distributed.rank() == 0:
            done.write_text(json.dumps({"request": request}, indent=2) + "\n")
        distributed.barrier()
    return load(settings.model, settings.device, settings.temporal, settings.precision)


def _request(settings: JobSettings) -> dict[str, object]:
    train = asdict(settings.train)
    return json.loads(json.dumps({"image_stage": settings.image_stage, "temporal": settings.temporal, "train": train}))


def _train(settings: JobSettings, corpus: Corpus) -> None:
    shipped = models.find_model(settings.image_stage)
    if distributed.rank() == 0:
        shutil.copytree(shipped / "image_stage", settings.model / "image_stage", dirs_exist_ok=True)
        (settings.model / "config.json").write_text(
            json.dumps({"format": models.FORMAT, "temporal": settings.temporal})
        )
    distributed.barrier()
    if settings.temporal == "none":
        return
    image = models.load_image_stage(settings.model / "image_stage")
    ready = shipped / "temporal" / settings.temporal
    start_from_shipped = settings.train.start == "shipped" and ready.is_dir()
    if start_from_shipped:
        temporal, _ = models.load_temporal(ready, image)
        config = json.loads((ready / "config.json").read_text())
    else:
        torch.manual_seed(settings.train.seed)
        temporal = models.build_temporal(settings.temporal, image.stage)
        config = {"kind": settings.temporal, "options": {}}
    if settings.train.budget is not None:
        temporal.requires_grad_(True)
        _fit(settings, corpus, image, temporal)
    elif not start_from_shipped:
        raise InputError(
            f"temporal={settings.temporal} has no shipped weights to use: set train.minutes or train.steps"
        )
    if distributed.rank() == 0:
        keep = {name: config[name] for name in ("kind", "options")}
        models.save_temporal(temporal, settings.model / "temporal" / settings.temporal, keep, image.digest)
    distributed.barrier()


def _fit(settings: JobSettings, corpus: Corpus, image: models.ImageModel, temporal: TemporalStage) -> None:
    train, device = settings.train, pick_device(settings.device)
    assert train.budget is not None
    paths = list(dict.fromkeys(item.path for item in corpus.select("train").items))
    with tqdm(desc="read training clips", unit="video", disable=distributed.rank() > 0 or None) as meter:

        def on_read(done: int, total: int) -> None:
            meter.total = total
            meter.update(done - meter.n)

        sampler = ClipSampler(
            paths, train.clips, NUM_QP, train.seed, distributed.rank(), on_read,
            lambda path: source_file(corpus.root, str(path)),
        )  # fmt: skip
        sampler(0)
    for path, reason in sampler.unreadable.items():
        print(f"not used for training: {path}: {reason}", file=sys.stderr)
    image = image.to(device)
    temporal.to(device)
    logger = _wandb(settings)
    with tqdm(desc="train", total=100, unit="%", disable=distributed.rank() > 0 or None,
              bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}") as meter:  # fmt: skip

        def on_log(step: int, progress: float, figures: dict[str, float]) -> None:
            meter.update(100 * progress - meter.n)
            meter.set_postfix_str(", ".join(f"{k} {v:.3f}" for k, v in figures.items() if k != "grad_norm"))
            if logger is not None:
                logger.log({"step": step, **figures})

        loop = Settings(
            train.budget, lr=train.lr, weight_decay=train.weight_decay, ema=train.ema, bf16=train.bf16,
            seed=train.seed, log_every=10, save_seconds=60,
        )  # fmt: skip
        fit(temporal, SymbolRate(image, train.bf16), sampler, loop, settings.out / "training", on_log)
        meter.update(100 - meter.n)
    temporal.cpu()
    if logger is not None:
        logger.finish()


def _wandb(settings: JobSettings):
    """Weights & Biases, offline unless WANDB_MODE says otherwise; nothing needs it."""
    if not settings.wandb or distributed.rank() > 0:
        return None
    import os

    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(project="vidlbc", dir=settings.out)
