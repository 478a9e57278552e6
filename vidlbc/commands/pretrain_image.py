"""Train an image stage (stage 1) from pictures and videos: the frozen encoder under everything else.

    vidlbc pretrain-image data.train=FOLDER out=MODEL

MODEL is then what model= and image_stage= of the other tools take. The same command resumes a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from vidlbc.run.options import Many, option, required, section
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import sources
from vidlbc.train.image_job import ImageJobSettings, run_image_job
from vidlbc.train.schedule import budget_of


@dataclass
class DataOptions:
    """`data.*`."""

    train: Many = required(
        "[a,b,...]: folders, files, patterns (a/*train*), lists (their train split), {path: a, every: 8}"
    )
    val: Many | None = option(None, "the same, for the rate and distortion at the end; null is none")
    frames_per_video: int = option(3, "pictures taken from a video, out of its first 64 frames")
    max_side: int | None = option(None, "longest side in pixels; larger pictures are scaled down; null is as they are")
    pool_mb: int = option(4096, "MiB of pictures in memory; a larger corpus is visited pool after pool")
    steps_per_pool: int = option(10000, "steps before the next pool is read")


@dataclass
class TrainOptions:
    """`train.*`."""

    minutes: float | None = option(30.0, "budget; with steps set too, whichever ends first; null: steps alone")
    steps: int | None = option(None, "the same budget in steps")
    until: str | None = option(
        None, "time of day in place of minutes: HH:MM, an ISO time, @SECONDS since the epoch, +MINUTES from the start"
    )
    lr: float = option(0.001, "peak learning rate of AdamW; cosine decay")
    weight_decay: float = option(0.01, "of AdamW")
    ema: float = option(0.999, "decay of the moving average of the weights, which is what is kept")
    balance: float = option(
        0.35, "exponent that evens out the pull of high and low QPs; 0 is the plain sum of their losses"
    )
    bf16: bool = option(False, "autocast of the transforms in training (GPU); the prior stays in float32")
    tf32: bool = option(True, "matrix products and convolutions in TF32 in training (GPU)")
    seed: int = option(0, "of everything random")
    size: int = option(128, "pixels of a crop's side")
    batch: int = option(8, "crops a step and process; torchrun: so many from each")
    qps: list[int] | None = option(None, "those that are drawn from, all alike: [16] trains for one rate; null is all")
    pyramid: bool = option(False, "pictures are also taken at 0.71 and 0.5 of their size")
    colour: float = option(
        0.0, "share of the crops whose channels are permuted and whose gamma is changed; 0.3 for hundreds of epochs"
    )
    resident: bool | str = option(
        "auto", "pictures on the training device, where crops are drawn: auto (where they fit), true or false"
    )
    launch: str = option("auto", "a step as a CUDA graph: graph, eager, or auto (graph on one GPU)")
    log_every: int | None = option(None, "steps between two lines of the log; null: 100 on a GPU, else 20")
    save_seconds: float = option(60.0, "between checkpoints: what a killed run loses at most")
    val_seconds: float = option(
        300.0, "between validations, estimated, in the process; they take a tenth of the time at most"
    )


@dataclass
class EvalOptions:
    """`eval.*`."""

    qps: list[int] = option([8, 24, 32, 40, 56], "where the validation pictures are coded")
    pictures: int = option(12, "at most so many of them, evenly spread")


@dataclass
class Options:
    """See `--help`."""

    choices: ClassVar[dict[str, str]] = {"image_stage": "lbc"}
    data: DataOptions = section(DataOptions)
    out: str = required("folder of the model; training/ in it holds the checkpoint and the log")
    init: str | None = option(None, "model to start from, shipped or a folder; its family and options then hold")
    grow: bool = option(
        False, "with init=: a stage with the options of image_stage=, which may have more blocks than init= does"
    )
    checkpoint: str | None = option(
        None, "local CompressAI checkpoint whose transforms to take (image_stage=hyperprior or elic)"
    )
    train_only: str = option(
        "all", "all; synthesis: symbols and bits stay the same to the bit; prior: symbols and pictures do"
    )
    device: str = option(
        "auto", "auto, cpu or cuda; several GPUs: torchrun --nproc-per-node=N tools/pretrain_image.py ..."
    )
    wandb: bool = option(False, "log to Weights & Biases, offline unless WANDB_MODE is set")
    train: TrainOptions = section(TrainOptions)
    eval: EvalOptions = section(EvalOptions)


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
