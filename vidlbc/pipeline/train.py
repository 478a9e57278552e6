"""Stage 2 of the main job: train the temporal stage on the train split, the image stage being frozen.

out/model/request.json   what was asked for, written first: the same command resumes, another one is refused
out/model/image_stage    a copy, so that the shards decode whatever becomes of the original
out/training/            checkpoint and log, and what the stage is built with: {"kind", "options"}
out/model/trained.json   written last
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding.moved_encoding import PRICE
from vidlbc.codec.inputs import pick_device
from vidlbc.codec.load import load
from vidlbc.codec.motion.stage import gives_all, motion_options
from vidlbc.codec.prior.grid import to_grid
from vidlbc.codec.temporal_stage import MOVED_KINDS, MovedStage, TemporalStage
from vidlbc.errors import InputError
from vidlbc.pipeline.settings import JobSettings
from vidlbc.pipeline.sources import source_file
from vidlbc.run import distributed
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request
from vidlbc.run.wandb_log import start_wandb
from vidlbc.shards import Corpus
from vidlbc.train.data.clip_reading import read_clips, whole_clips
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures
from vidlbc.train.loop import LoopSettings
from vidlbc.train.objectives.motion import MotionRate
from vidlbc.train.objectives.video import SymbolRate
from vidlbc.train.validation import ClipValidation
from vidlbc.train.with_bar import train as train_with_bar

# Values of train.start beside a model's name or folder.
_VAL_VIDEOS, _VAL_FRAMES, _VAL_QPS = 8, 8, (8, 32, 56)
SHIPPED, SCRATCH = "shipped", "scratch"
STAGE = "stage.json"
# Of a stage that predicts from moved pictures. The last two begin as the image stage's own transforms.
PARTS = ("prior", "vectors", "fusion", "synthesis", "analysis")


def train_temporal(settings: JobSettings, corpus: Corpus) -> Codec:
    """Writes `out/model` and returns its codec. Skipped where `out/model` is complete.

    Raises InputError where `out` holds a run with other training settings, VidlbcError where training diverges.
    """
    wanted = request(settings, corpus)
    keep_request(settings.model / "request.json", wanted, settings.out, write=distributed.rank() == 0)
    distributed.barrier()
    if not (settings.model / "trained.json").is_file():
        if distributed.rank() == 0:
            _clean_stale(settings)
        _train(settings, corpus)
        if distributed.rank() == 0:
            write_atomic(settings.model / "trained.json", dump_json({"request": wanted}, indent=1))
        distributed.barrier()
    return load(
        settings.model,
        settings.device,
        settings.temporal,
        settings.precision,
        effort=settings.effort,
        keyint=settings.keyint,
    )


def request(settings: JobSettings, corpus: Corpus) -> dict[str, Any]:
    """What decides the trained weights, by the names of the options."""
    train = asdict(settings.train)
    clips, budget = train.pop("clips"), train.pop("budget") or {"steps": None, "minutes": None}
    for name in ("save_seconds", "val_seconds", "log_every", "resident", "step"):
        del train[name]  # they leave the weights as they are, but for rounding
    budget.pop("until", None)
    if not train["options"]:
        del train["options"]  # requests of older runs have none
    clips["batch"] *= distributed.world()
    named = {"image_stage": settings.image_stage, "temporal": settings.temporal, "data.max_side": clips.pop("max_side")}
    named |= {f"train.{name}": value for name, value in {**train, **clips, **budget}.items()}
    listed = "\n".join(sorted(item.path for item in corpus.select("train").items))
    named["training videos"] = hashlib.sha256(listed.encode()).hexdigest()[:16]
    return named


def _clean_stale(settings: JobSettings) -> None:
    """What killed runs left half written."""
    for folder in (settings.model, settings.out / "training"):
        for path in folder.rglob(".*.tmp") if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _keep_image_stage(shipped: Path, model: Path) -> None:
    """Copied once, whole or not at all: a resumed run goes on with the weights that it began with.

    Its video decoder, if any, comes along, and first.
    """
    if (model / "image_stage").is_dir():
        return
    for name in ("video_decoder", "image_stage"):
        if (shipped / name).is_dir() and not (model / name).is_dir():
            temporary = model / f".{name}.tmp"
            shutil.copytree(shipped / name, temporary)
            os.replace(temporary, model / name)


def started_from(settings: JobSettings) -> Path | None:
    """The folder of the temporal stage that training starts from, of another kind where the model has no such stage;
    None: from nothing. Raises InputError."""
    start, kind = settings.train.start, settings.temporal
    if start == SCRATCH or kind == "none":
        return None
    if start == SHIPPED:
        folder = models.find_model(settings.image_stage) / "temporal" / kind
        return folder if folder.is_dir() else None
    try:
        model = models.find_model(start)
    except InputError as error:
        raise InputError(f"train.start={start}: neither {SHIPPED} nor {SCRATCH}, and {error}") from None
    if (folder := model / "temporal" / kind).is_dir():
        return folder
    other = model / "temporal" / models.default_kind(model)
    if settings.train.budget is None or not models.predicts_from_pictures(other):
        also = "" if settings.train.budget is None else ", nor another one with motion to begin with"
        raise InputError(f"train.start={start}: the model has no temporal stage {kind}{also}")
    return other


def _train(settings: JobSettings, corpus: Corpus) -> None:
    shipped, start = models.find_model(settings.image_stage), settings.train.start
    if distributed.rank() == 0:
        _keep_image_stage(shipped, settings.model)
        described = {"format": models.FORMAT, "temporal": settings.temporal}
        write_atomic(settings.model / "config.json", dump_json(described, indent=1))
    distributed.barrier()
    if settings.temporal == "none":
        return
    image = models.load_image_stage(settings.model / "image_stage")
    ready = started_from(settings)
    if ready is not None:
        if settings.train.budget is None:
            temporal = models.load_temporal(ready, image, any_image=start != SHIPPED)[0]
            options = json.loads((ready / "config.json").read_text()).get("options", {})
        else:
            copies = settings.train.motion != "false"
            temporal, options = models.begin_temporal(ready, settings.temporal, image, copies)
    else:
        if distributed.rank() == 0 and start == SHIPPED:
            print(f"no shipped weights of temporal={settings.temporal}: training from scratch", file=sys.stderr)
        torch.manual_seed(settings.train.seed)
        options = _options(settings, image)
        temporal = models.build_temporal(settings.temporal, image.stage, **options)
    config = {"kind": settings.temporal, "options": options}
    if settings.train.budget is not None:
        if distributed.rank() == 0:
            (settings.out / "training").mkdir(parents=True, exist_ok=True)
            write_atomic(settings.out / "training" / STAGE, dump_json(config, indent=1))
        temporal.requires_grad_(True)
        if isinstance(temporal, MovedStage):
            train_parts(temporal, settings.train.parts, known=gives_all(image.stage))
        _fit(settings, corpus, image, temporal)
    elif ready is None:
        raise InputError(
            f"temporal={settings.temporal} has no shipped weights to use: set train.minutes or train.steps"
        )
    if distributed.rank() == 0:
        models.save_temporal(temporal, settings.model / "temporal" / settings.temporal, config, image.digest)
    distributed.barrier()


def _options(settings: JobSettings, image: models.ImageModel) -> dict[str, Any]:
    """Of a temporal stage from nothing. Raises InputError."""
    wanted = settings.train.motion
    if wanted not in ("auto", "true", "false"):
        raise InputError(f"train.motion={wanted}: expected auto, true or false")
    motion = motion_options(image.stage)
    if wanted == "true" and motion is None:
        raise InputError(
            f"train.motion=true: image stage {settings.image_stage} is of family {image.stage.family}, "
            "and frames are predicted from moved pictures by the networks of family lbc: use train.motion=false"
        )
    given = settings.train.options
    kind = settings.temporal
    moves = kind in MOVED_KINDS or issubclass(models.temporal_class(kind), MovedStage)
    return dict(given) if wanted == "false" or motion is None or not moves else {**given, "motion": motion}


def train_parts(temporal: MovedStage, parts: Sequence[str] | None, known: bool = True) -> None:
    """Leave gradients to the parts that are trained; what is frozen of the networks for pictures is put on the grid, as
    it will decode. `known`: whether the image stage gave those networks all of their layers, so that by default they
    stay as they are. Raises InputError."""
    chosen = (PARTS[:3] if known else PARTS) if parts is None else tuple(parts)
    if not chosen or set(chosen) - set(PARTS):
        raise InputError(f"train.parts={list(chosen)}: expected some of {', '.join(PARTS)}")
    motion = temporal.motion
    pictures = {"fusion": motion.synthesis.fusion, "synthesis": motion.synthesis.own, "analysis": [motion.analysis]}
    temporal.requires_grad_("prior" in chosen)
    motion.requires_grad_(False)
    motion.vectors.requires_grad_("vectors" in chosen)
    if motion.copies is not None:
        motion.copies.requires_grad_("vectors" in chosen)
    for name, modules in pictures.items():
        for module in modules:
            if name in chosen:
                module.requires_grad_(True)
            else:
                to_grid(module)


def _pictures(sources: Sequence[str]) -> list[np.ndarray]:
    """Raises InputError where a source is missing or holds none."""
    return [read_pictures(path, 1)[0] for path in find_files([PictureSource(source) for source in sources])]


def _validation(rate: SymbolRate | MotionRate, corpus: Corpus, settings: JobSettings) -> ClipValidation | None:
    """On the beginnings of a few videos of the val split; None where the corpus has no such split."""
    paths = list(dict.fromkeys(item.path for item in corpus.select("val").items))
    chosen = [paths[round(index)] for index in np.linspace(0, len(paths) - 1, min(_VAL_VIDEOS, len(paths)))]
    clips = []
    for path in chosen:
        with source_file(corpus.root, path) as file:
            clips += whole_clips([file], _VAL_FRAMES, settings.max_side)
    return ClipValidation(rate, clips, _VAL_QPS) if clips else None


def _fit(settings: JobSettings, corpus: Corpus, image: models.ImageModel, temporal: TemporalStage) -> None:
    train, device = settings.train, pick_device(settings.device)
    assert train.budget is not None
    paths = list(dict.fromkeys(item.path for item in corpus.select("train").items))
    silent = True if distributed.rank() else None
    sampler = read_clips(
        paths,
        train.clips,
        train.seed,
        _pictures(train.pictures),
        lambda path: source_file(corpus.root, str(path)),
        device,
        train.resident,
    )
    image = image.to(device)
    temporal.to(device)
    logger = start_wandb(settings.wandb, settings.out)
    loop = LoopSettings.of(train, log_every=train.log_every or (100 if device.type == "cuda" else 10))
    objective: SymbolRate | MotionRate = SymbolRate(image, train.bf16)
    if isinstance(temporal, MovedStage):
        objective = MotionRate(image, train.bf16, PRICE if train.rdo else None)
    validate = None if distributed.rank() else _validation(objective, corpus, settings)
    folder = settings.out / "training"
    on_figures = None if logger is None else logger.log
    train_with_bar("train", temporal, objective, sampler, loop, folder, on_figures, silent, validate)
    temporal.cpu()
    if logger is not None:
        logger.finish()
