"""Scalable, task-compatible coding (de Andrade and Bajic, arXiv 2405.10244), trained and measured on clips.

    OUT/base_BETA/      a base with its head and preview, one a beta: the same seed, steps and clips
    OUT/both_BETA/      the enhancement over that base, which is frozen: a model folder, and the head
    OUT/alone/          stand-alone anchor: all four levels, none bound to a task
    OUT/alone_hyper/    stand-alone anchor: the enhancement's networks, with nothing but their hyper-latent
    OUT/points/         what was measured of each model, one file a QP
    OUT/metrics.json    every figure;  OUT/rates.png, OUT/previews.png

Every part is a step of its own that resumes and, once done, is left alone: `phases` says which to do.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet, load_clips
from vidlbc.experiments.scalable.image_stage import Scalable
from vidlbc.experiments.scalable.objective import BaseLoss, EnhancementLoss, TaskBase
from vidlbc.experiments.scalable.settings import ANCHORS, ScalableSettings
from vidlbc.experiments.scalable.task import ClipHead, TaskClips
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request
from vidlbc.train.data.image_data import PooledCrops
from vidlbc.train.data.pictures import find_files
from vidlbc.train.with_bar import train

_START_BATCHES = 4


def run_scalable_study(settings: ScalableSettings) -> dict[str, Any] | None:
    """Do or finish the phases asked for; the figures of metrics.json where `evaluate` is one of them, else None.

    Raises InputError for whatever stands in the way.
    """
    pictures = find_files(settings.pictures) if {"enhancement", "alone"} & set(settings.phases) else []
    clips = load_clips(settings.actions, settings.clips, settings.cache or settings.out / "cache")
    if "base" in settings.phases:
        for beta in settings.betas:
            train_base(settings, clips, beta)
    if "enhancement" in settings.phases:
        for beta in settings.betas:
            train_pictures(settings, pictures, "both", beta)
    if "alone" in settings.phases:
        for part in ANCHORS:
            train_pictures(settings, pictures, part)
    if "evaluate" not in settings.phases:
        return None
    from vidlbc.experiments.scalable.report import report

    return report(settings, clips)


def train_base(settings: ScalableSettings, clips: ClipSet, beta: float) -> Path:
    """The base of one beta with its head; its folder. Done before: nothing is done again."""
    folder = settings.folder("base", beta)
    wanted = {
        "beta": beta,
        "image_stage": settings.stage,
        "clips": asdict(settings.clips),
        "task": asdict(settings.task),
        "task.strength": asdict(settings.strength),
        "task.head_steps": settings.head_steps,
        "base": asdict(settings.base),
        "seed": settings.seed,
    }
    if _is_done(folder, wanted, settings.out):
        return folder
    torch.manual_seed(settings.seed)
    stage, options = _stage(settings, "base")
    batches = TaskClips(clips.split("train"), settings.task, settings.seed)
    start = TaskClips(batches.clips, settings.task, settings.seed + 1)
    frames = torch.cat([start(i)[0].flatten(0, 1) for i in range(_START_BATCHES)])
    stage.start_from(frames)
    head = ClipHead(stage.levels[0].channels, len(clips.classes))
    with torch.no_grad():
        head.normalise(stage.base_analysis(stage.pad(frames))[0])
    module = TaskBase(stage, head).to(memory_format=torch.channels_last)
    loss = BaseLoss(beta, settings.strength, settings.head_steps)
    train(f"base, beta {beta:g}", module, loss, batches, settings.base.loop(settings.seed), folder / "training")
    head.save(folder / "head.safetensors", {"classes": list(clips.classes), "beta": beta})
    _save_model(stage, options, folder)
    return folder


def train_pictures(settings: ScalableSettings, pictures: Sequence[Path], part: str, beta: float | None = None) -> Path:
    """`both`: the enhancement over the base of a beta; or one of ANCHORS. Its folder. Done before: nothing is done."""
    folder = settings.folder(part, beta)
    base = None if beta is None else load_base(settings, beta)
    budget = settings.alone if beta is None else settings.enhancement
    wanted = {
        "beta": beta,
        "base": base and base.digest.hex(),
        "image_stage": settings.stage,
        "files": len(pictures),
        "crops": asdict(settings.crops),
        "enhancement": asdict(budget),
        "seed": settings.seed,
    }
    if _is_done(folder, wanted, settings.out):
        return folder
    crops = PooledCrops(pictures, settings.crops, NUM_QP, settings.seed, 0, torch.device("cpu"))
    torch.manual_seed(settings.seed)
    stage, options = _stage(settings, "enhancement" if part == "alone_hyper" else "both")
    stage.start_from(torch.cat([crops(step)[0] for step in range(max(1, 128 // settings.crops.batch))]))
    if base is not None:
        assert isinstance(base.stage, Scalable)
        stage.take_base(base.stage)
        for parameter in stage.base_parameters():
            parameter.requires_grad_(False)
    elif stage.with_base:
        stage.g_a.requires_grad_(False)  # no preview, no loss
    stage.to(memory_format=torch.channels_last)
    title = ANCHORS[part] if beta is None else f"enhancement, beta {beta:g}"
    loss = EnhancementLoss(whole=base is None)
    train(title, stage, loss, crops, budget.loop(settings.seed), folder / "training")
    if beta is not None:
        head = (settings.folder("base", beta) / "head.safetensors").read_bytes()
        write_atomic(folder / "head.safetensors", head)
    _save_model(stage, options, folder)
    return folder


def load_base(settings: ScalableSettings, beta: float) -> models.ImageModel:
    """The trained base of a beta, as it was saved. Raises InputError where it is not there yet."""
    folder = settings.folder("base", beta)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no trained base: run phases=[base] betas=[{beta:g}] first")
    return models.load_image_stage(folder / "image_stage")


def _stage(settings: ScalableSettings, layers: str) -> tuple[Scalable, dict[str, Any]]:
    options = {**settings.stage, "layers": layers}
    if layers != "both":
        options["synthesis_reads_base"] = False
    stage = build_image_stage("scalable", **options)
    assert isinstance(stage, Scalable)
    return stage, options


def _is_done(folder: Path, wanted: dict[str, Any], out: Path) -> bool:
    keep_request(folder / "request.json", wanted, out, write=True)
    return (folder / "config.json").is_file()


def _save_model(stage: Scalable, options: dict[str, Any], folder: Path) -> None:
    """config.json comes last: its presence says that the model is whole."""
    stage.to(memory_format=torch.contiguous_format)
    models.save_image_stage(stage, folder / "image_stage", {"family": "scalable", "options": options})
    write_atomic(folder / "config.json", dump_json({"format": models.FORMAT, "temporal": "none"}, indent=2))
