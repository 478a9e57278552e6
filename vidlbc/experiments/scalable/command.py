"""Scalable, task-compatible coding (de Andrade and Bajic, arXiv 2405.10244) on clips: train, code, measure.

    vidlbc experiment scalable data.actions=LABELS data.pictures=[FOLDER] out=FOLDER

A base for recognition with and without a small reward for reconstruction (betas), an enhancement over each, and the
stand-alone codec. phases=[base] betas=[0.01] does a part; the same command again resumes; what is done stays.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.scalable.objective import TaskStrength
from vidlbc.experiments.scalable.settings import PartSettings, ScalableSettings
from vidlbc.experiments.scalable.study import run_scalable_study
from vidlbc.experiments.scalable.task import TaskSettings
from vidlbc.run.options import Many, option, required, section
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource


@dataclass
class DataOptions:
    """`data.*`."""

    actions: str = required("annotations of labelled clips with splits: the task, and the test clips of every figure")
    pictures: Many = required(
        "[a,b,...]: what the enhancement is trained on: folders, files, patterns, lists, {path: a, every: 8}"
    )
    frames_per_video: int = option(3, "pictures taken from a video of data.pictures")
    max_side: int | None = option(
        256, "longest side in pixels of these pictures, about as fine as the clips; null is as they are"
    )
    cache: str | None = option(None, "folder for the clips once read; null is out/cache")


@dataclass
class TaskOptions:
    """`task.*`."""

    frames: int = option(6, "frames of a clip in a training step, one of each equal segment")
    batch: int = option(6, "clips a step")
    shift: int = option(10, "augmentation: clips move by at most so many pixels")
    jitter: float = option(0.25, "augmentation: brightness, contrast and colour vary by at most this share")
    strength_low: float = option(0.03, "lambda_b at QP 0: what a nat of the task's loss is worth in bit/pixel")
    strength_high: float = option(3.0, "lambda_b at QP 63; log-spaced between")
    head_steps: int = option(400, "so many first steps move the head and the preview only; they are cheaper")


@dataclass
class BaseOptions:
    """`base.*`."""

    steps: int = option(1100, "of each base; the paper trains to convergence on a GPU")
    lr: float = option(0.0015, "peak learning rate of AdamW; cosine decay")
    ema: float = option(0.99, "decay of the moving average of the weights, which is what is kept")
    weight_decay: float = option(0.05, "of AdamW")


@dataclass
class EnhancementOptions:
    """`enhancement.*`."""

    steps: int = option(1600, "of each enhancement")
    lr: float = option(0.0015, "peak learning rate of AdamW; cosine decay")
    ema: float = option(0.995, "decay of the moving average of the weights")
    weight_decay: float = option(0.01, "of AdamW")
    size: int = option(128, "pixels of a crop's side, a multiple of 16")
    batch: int = option(8, "crops a step")


@dataclass
class AloneOptions:
    """`alone.*`."""

    steps: int | None = option(None, "of each stand-alone codec; null is those of base and enhancement together")


@dataclass
class EvalOptions:
    """`eval.*`."""

    qps: list[int] = option([8, 24, 40, 56], "where the test clips are coded; a BD-rate needs at least 4")
    frames: int = option(6, "frames of a test clip, evenly spread")
    clips: int | None = option(None, "at most so many test clips, evenly spread; null is all")


@dataclass
class Options:
    """See `--help`."""

    choices: ClassVar[dict[str, str]] = {"image_stage": "scalable"}
    data: DataOptions = section(DataOptions)
    out: str = required("folder of the models and the figures")
    phases: list[str] = option(
        ["base", "enhancement", "alone", "evaluate"], "what to do, in this order; what is done already is left alone"
    )
    betas: list[float] = option(
        [0.0, 0.01], "rewards for the preview; the first is what the others are compared with; the paper: 0 and 0.01"
    )
    seed: int = option(0, "of everything random; the same for every beta")
    clips: ClipSettings = section(ClipSettings)
    task: TaskOptions = section(TaskOptions)
    base: BaseOptions = section(BaseOptions)
    enhancement: EnhancementOptions = section(EnhancementOptions)
    alone: AloneOptions = section(AloneOptions)
    eval: EvalOptions = section(EvalOptions)


def settings_of(config: DictConfig) -> ScalableSettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, task, base, more = values["data"], values["task"], values["base"], values["enhancement"]
    stage = dict(values["image_stage"])
    if (family := stage.pop("family")) != "scalable":
        raise InputError(f"image_stage={family}: a base layer needs image_stage=scalable")
    if stage.pop("layers") != "both":
        raise InputError("image_stage.layers: the study trains each choice itself; leave it at both")
    pictures = data["pictures"] if isinstance(data["pictures"], list) else [data["pictures"]]
    return ScalableSettings(
        actions=Path(data["actions"]),
        pictures=tuple(PictureSource.of(entry) for entry in pictures),
        out=Path(config.out),
        stage=stage,
        phases=tuple(values["phases"]),
        betas=tuple(float(beta) for beta in values["betas"]),
        clips=ClipSettings(**values["clips"]),
        cache=Path(data["cache"]) if data["cache"] else None,
        task=TaskSettings(task["frames"], task["batch"], task["shift"], task["jitter"]),
        strength=TaskStrength(task["strength_low"], task["strength_high"]),
        head_steps=task["head_steps"],
        crops=CropSettings(more["size"], more["batch"], data["frames_per_video"], data["max_side"]),
        base=PartSettings(base["steps"], base["lr"], base["ema"], base["weight_decay"]),
        enhancement=PartSettings(more["steps"], more["lr"], more["ema"], more["weight_decay"]),
        seed=config.seed,
        alone_steps=values["alone"]["steps"],
        eval_qps=tuple(values["eval"]["qps"]),
        eval_frames=values["eval"]["frames"],
        eval_clips=values["eval"]["clips"],
    )


def main(config: DictConfig) -> None:
    run_scalable_study(settings_of(config))
