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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.inputs import check_qp
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet, ClipSettings, load_clips
from vidlbc.experiments.scalable.image_stage import Scalable
from vidlbc.experiments.scalable.objective import BaseLoss, EnhancementLoss, TaskBase, TaskStrength
from vidlbc.experiments.scalable.start import initialise_scalable
from vidlbc.experiments.scalable.task import ClipHead, TaskClips, TaskSettings
from vidlbc.run.request import keep_request
from vidlbc.shards.layout import dump_json, write_atomic
from vidlbc.train.data.image_data import CropSettings, PooledCrops
from vidlbc.train.data.pictures import Source, find_files
from vidlbc.train.loop import Settings
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train

PHASES = ("base", "enhancement", "alone", "evaluate")
ANCHORS = {"alone": "stand-alone", "alone_hyper": "stand-alone, hyper-latent only"}
_START_BATCHES = 4


@dataclass(frozen=True)
class PartSettings:
    """Budget and optimiser of one training."""

    steps: int
    lr: float = 1e-3
    ema: float = 0.995
    weight_decay: float = 0.01

    def loop(self, seed: int) -> Settings:
        return Settings(
            Budget(steps=self.steps),
            lr=self.lr,
            ema=self.ema,
            weight_decay=self.weight_decay,
            seed=seed,
            log_every=20,
            save_seconds=60.0,
        )


@dataclass(frozen=True)
class ScalableSettings:
    """`actions`: labelled clips, for the task and the figures; `pictures`: what the enhancement is trained on.

    `stage`: options of the family `scalable`, without `layers`. `head_steps`: see BaseLoss. `eval_frames`: of a test
    clip, evenly spread; `eval_clips`: at most so many test clips (None: all). `alone_steps`: of each stand-alone codec;
    None gives it those of a base and of an enhancement together, since the scalable codec's networks had both.
    """

    actions: Path
    pictures: tuple[Source, ...]
    out: Path
    stage: dict[str, Any] = field(default_factory=dict)
    phases: tuple[str, ...] = PHASES
    betas: tuple[float, ...] = (0.0, 0.01)
    clips: ClipSettings = field(default_factory=ClipSettings)
    cache: Path | None = None
    task: TaskSettings = field(default_factory=TaskSettings)
    strength: TaskStrength = field(default_factory=TaskStrength)
    head_steps: int = 0
    crops: CropSettings = field(default_factory=CropSettings)
    base: PartSettings = field(default_factory=lambda: PartSettings(1100))
    enhancement: PartSettings = field(default_factory=lambda: PartSettings(1600))
    alone_steps: int | None = None
    seed: int = 0
    eval_qps: tuple[int, ...] = (8, 24, 40, 56)
    eval_frames: int = 6
    eval_clips: int | None = None

    def __post_init__(self) -> None:
        for phase in self.phases:
            if phase not in PHASES:
                raise InputError(f"phases: unknown {phase!r}, expected some of {', '.join(PHASES)}")
        if not self.betas or min(self.betas) < 0 or len(set(self.betas)) != len(self.betas):
            raise InputError(f"betas={list(self.betas)}: expected different numbers of at least 0")
        for qp in self.eval_qps:
            check_qp(qp)
        if self.eval_frames < 1 or (self.eval_clips is not None and self.eval_clips < 1):
            raise InputError(f"eval.frames={self.eval_frames}, eval.clips={self.eval_clips}: expected at least 1")
        if self.crops.size < 16 or self.crops.size % 16 or self.crops.batch < 1:
            wrong = f"enhancement.size={self.crops.size}, enhancement.batch={self.crops.batch}"
            raise InputError(f"{wrong}: expected a multiple of 16, and at least 1")

    @property
    def alone(self) -> PartSettings:
        """Of each stand-alone codec."""
        steps = self.base.steps + self.enhancement.steps if self.alone_steps is None else self.alone_steps
        return replace(self.enhancement, steps=steps)

    def folder(self, part: str, beta: float | None = None) -> Path:
        """Of `base` or `both` at a beta, or of `alone`."""
        return self.out / (part if beta is None else f"{part}_{beta:g}")


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
    initialise_scalable(stage, frames)
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
    initialise_scalable(stage, torch.cat([crops(step)[0] for step in range(max(1, 128 // settings.crops.batch))]))
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
