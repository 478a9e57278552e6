"""The encoders that the study compares: one codec, one budget, one seed, other labels (arXiv 2111.02249, section 3).

    naive          lambda_t = 0: rate and distortion alone (Eq. 5)
    class          every frame is classified on its own, as its clip is labelled (the paper's class-informed codec)
    action         clips are classified, over several frames
    class_base, action_base    the same without the novel classes, for low-shot recognition

A trained encoder is a model folder, OUT/encoders/NAME: vidlbc.load(OUT/encoders/NAME).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec import models
from vidlbc.codec.image_stage import ImageStage, build_image_stage
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.machine_perception.data import TaskClips, TaskSettings, compression_crops
from vidlbc.experiments.machine_perception.joint import (
    JointBatch,
    JointModel,
    RateDistortionUtility,
    TaskBatch,
    Utility,
)
from vidlbc.heads.clip_resnet import ClipResNet
from vidlbc.heads.resnet import ResNetSettings
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request
from vidlbc.train.data.image_data import CropSampler
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.loop import LoopSettings
from vidlbc.train.objectives.image import RateDistortion
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train

TASKS = ("naive", "class", "action")
BASE = "_base"
TaskBatches = Callable[[int], TaskBatch]
_START_CROPS, _START_MULTIPLE = 128, 32


@dataclass(frozen=True)
class HeadSettings:
    """A ClipResNet. `levels`: indices of the latents it reads, None for all; `stride`: the grid they are brought to."""

    resnet: ResNetSettings = field(
        default_factory=lambda: ResNetSettings(
            width=8, depths=(1, 1, 1, 1), norm="group"
        )  # what some hundred clips train
    )
    temporal: str = "lstm"
    state: int = 48
    dropout: float = 0.2
    levels: tuple[int, ...] | None = (0,)
    stride: int | None = None
    change: bool = True

    def chosen(self, stage: ImageStage) -> tuple[int, ...]:
        """Indices of the levels read. Raises InputError where the stage lacks one."""
        count = len(stage.levels)
        found = tuple(range(count)) if self.levels is None else self.levels
        if not found or not all(isinstance(i, int) and 0 <= i < count for i in found):
            raise InputError(f"head.levels={self.levels}: expected indices below {count}, levels of {stage.family}")
        return found

    def build(self, levels: Sequence[tuple[int, int]], classes: int, temporal: str | None = None) -> ClipResNet:
        """A head over `levels` [(channels, stride), ...]."""
        kind = temporal or self.temporal
        return ClipResNet(levels, classes, self.resnet, kind, self.state, self.dropout, self.stride, self.change)


@dataclass(frozen=True)
class EncoderSettings:
    """`weight`: lambda_t of the informed encoders; `per_clip`: frames of each task clip among the codec's pictures."""

    family: str
    options: dict[str, Any]
    pictures: tuple[PictureSource, ...]
    budget: Budget
    size: int = 128
    batch: int = 6
    per_clip: int = 4
    lr: float = 1e-3
    ema: float = 0.995
    bf16: bool = True
    seed: int = 0
    weight: float = 1.0
    task: TaskSettings = field(default_factory=TaskSettings)
    head: HeadSettings = field(default_factory=HeadSettings)


def check_name(name: str) -> str:
    """An encoder's task. Raises InputError for an unknown encoder."""
    task = name.removesuffix(BASE)
    if task not in TASKS or name == "naive" + BASE:
        known = ", ".join(["naive", "class", "action", "class" + BASE, "action" + BASE])
        raise InputError(f"encoder {name!r}: expected one of {known}")
    return task


def train_encoder(name: str, settings: EncoderSettings, clips: ClipSet, base: Sequence[int], out: Path) -> Path:
    """Train encoder `name`, or take what is there; the model folder. `clips`: all splits; `base`: the classes that
    are not novel. Raises InputError where `out` holds one that was trained otherwise."""
    task = check_name(name)
    folder = out / "encoders" / name
    classes = list(base) if name.endswith(BASE) else sorted(set(clips.labels[clips.labels >= 0].tolist()))
    trained = clips.split("train")
    keep_request(folder / "training" / "request.json", _request(name, settings, trained, classes), out, write=True)
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(settings.seed)
    stage = build_image_stage(settings.family, **settings.options)
    s = settings
    crops = compression_crops(s.pictures, trained, s.per_clip, s.size, s.batch, s.seed)
    side = s.size - s.size % _START_MULTIPLE
    stage.start_from(CropSampler(crops.pictures, side, _START_CROPS, s.seed + 1, [0])(0)[0])
    levels = s.head.chosen(stage)
    heads, tasks = ({}, None) if task == "naive" else _head_and_clips(task, s, stage, levels, trained, classes)
    model = JointModel(stage, heads, levels).to(memory_format=torch.channels_last)
    if tasks is not None and s.task.head_steps:
        _train_head(name, task, s, model, tasks, folder / "training" / "head")

    def batches(step: int) -> JointBatch:
        return JointBatch(crops(step), {} if tasks is None else {task: tasks(step)})

    loop = LoopSettings(s.budget, lr=s.lr, ema=s.ema, bf16=s.bf16, seed=s.seed, log_every=20, save_seconds=60)
    weights = {name: s.weight for name in heads}
    outcome = train(name, model, RateDistortionUtility(weights, RateDistortion()), batches, loop, folder / "training")
    models.save_image_stage(stage, folder / "image_stage", {"family": s.family, "options": s.options})
    last = {"steps": outcome.steps, "seconds": round(outcome.seconds, 1), "last": outcome.last}
    write_atomic(folder / "training.json", dump_json(last, indent=1))
    write_atomic(folder / "config.json", dump_json({"format": models.FORMAT, "temporal": "none"}, indent=1))
    return folder


def _head_and_clips(
    task: str, s: EncoderSettings, stage: ImageStage, levels: Sequence[int], clips: ClipSet, classes: Sequence[int]
) -> tuple[dict[str, ClipResNet], TaskBatches]:
    shapes = [(stage.levels[i].channels, stage.levels[i].stride) for i in levels]
    head = s.head.build(shapes, len(classes), "mean" if task == "class" else None)
    sampler = TaskClips(clips, s.task, s.seed + 2, classes)
    return {task: head}, (lambda step: frames_alone(sampler(step))) if task == "class" else sampler


def _train_head(name: str, task: str, s: EncoderSettings, model: JointModel, tasks: TaskBatches, folder: Path) -> None:
    """The head alone, on the codec as it starts."""
    head, first = model.heads[task], tasks(0).clips.flatten(0, 1)
    assert isinstance(head, ClipResNet)
    with torch.no_grad():
        latents = model.stage.analysis(model.stage.pad(first))
        stacked = head.stack([latents[i] for i in model.levels])
    head.set_normalisation(stacked.mean((0, 2, 3)), stacked.std((0, 2, 3)))
    model.stage.requires_grad_(False)
    loop = LoopSettings(Budget(steps=s.task.head_steps), lr=s.lr, ema=s.ema, bf16=s.bf16, seed=s.seed + 3, log_every=20)
    # Steps before 0: other clips than those that then inform the encoder.
    train(f"{name}: head", model, Utility(task), lambda step: tasks(step - s.task.head_steps), loop, folder)
    model.stage.requires_grad_(True)


def frames_alone(batch: TaskBatch) -> TaskBatch:
    """Every frame of (B, T) as a clip of its own, with its clip's label and QP."""
    frames = batch.clips.shape[1]
    again = [x.repeat_interleave(frames) for x in (batch.labels, batch.qp)]
    return TaskBatch(batch.clips.flatten(0, 1)[:, None], *again)


def _request(name: str, s: EncoderSettings, clips: ClipSet, classes: Sequence[int]) -> dict[str, Any]:
    """What decides the weights, by the names of the options; the budget may be raised."""
    wanted: dict[str, Any] = {
        "image_stage": {"family": s.family, **s.options},
        "data.pictures": [asdict(source) for source in s.pictures],
        "clips": len(clips),
    }
    wanted |= {f"train.{n}": getattr(s, n) for n in ("size", "batch", "per_clip", "lr", "ema", "bf16", "seed")}
    if name != "naive":
        wanted |= {f"task.{n}": value for n, value in {**asdict(s.task), "weight": s.weight}.items()}
        wanted |= {"task.head": asdict(s.head), "classes": [clips.classes[label] for label in classes]}
    return wanted
