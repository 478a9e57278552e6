"""Train an image stage (stage 1) from pictures and videos: the frozen encoder under everything else.

    vidlbc pretrain-image data.train=FOLDER out=MODEL

MODEL is then what model= and image_stage= of the other tools take. The same command resumes a stopped run.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import sources
from vidlbc.train.image_job import ImageJobSettings, run_image_job
from vidlbc.train.schedule import budget_of


def settings_of(config: DictConfig) -> ImageJobSettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, train, stage = values["data"], values["train"], dict(values["image_stage"])
    crops = CropSettings(
        train["size"],
        train["batch"],
        data["frames_per_video"],
        data["max_side"],
        data["pool_mb"],
        data["steps_per_pool"],
        None if train["qps"] is None else tuple(train["qps"]),
        train["pyramid"],
        train["colour"],
    )
    return ImageJobSettings(
        train=sources(data["train"]),
        out=Path(config.out),
        family=stage.pop("family"),
        options=stage,
        budget=budget_of(train["steps"], train["minutes"], train["until"]),
        crops=crops,
        lr=train["lr"],
        weight_decay=train["weight_decay"],
        ema=train["ema"],
        balance=train["balance"],
        bf16=train["bf16"],
        seed=train["seed"],
        init=config.init,
        grow=config.grow,
        checkpoint=config.checkpoint,
        part=config.train_only,
        val=sources(data["val"]),
        eval_qps=tuple(config.eval.qps),
        eval_pictures=config.eval.pictures,
        device=config.device,
        wandb=config.wandb,
        log_every=train["log_every"],
        save_seconds=train["save_seconds"],
        val_seconds=train["val_seconds"],
        tf32=train["tf32"],
        resident=str(train["resident"]).lower(),
        step=train["launch"],
    )


def main(config: DictConfig) -> None:
    run_image_job(settings_of(config))
