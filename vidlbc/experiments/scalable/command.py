"""Scalable, task-compatible coding (de Andrade and Bajic, arXiv 2405.10244) on clips: train, code, measure.

    vidlbc experiment scalable data.actions=LABELS data.pictures=[FOLDER] out=FOLDER

A base for recognition with and without a small reward for reconstruction (betas), an enhancement over each, and the
stand-alone codec. phases=[base] betas=[0.01] does a part; the same command again resumes; what is done stays.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.scalable.objective import TaskStrength
from vidlbc.experiments.scalable.settings import PartSettings, ScalableSettings
from vidlbc.experiments.scalable.study import run_scalable_study
from vidlbc.experiments.scalable.task import TaskSettings
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import Source


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
        pictures=tuple(Source.of(entry) for entry in pictures),
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
