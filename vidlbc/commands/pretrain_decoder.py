"""Train a video decoder for a frozen model: it refines decoded frames from the ones before them, at no extra bits.

    vidlbc pretrain-decoder model=default data.train=FOLDER out=MODEL

MODEL is a copy of the model with the video decoder in it: decode.py model=MODEL refine=true. The same command resumes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.run.options import Many, option, required, section
from vidlbc.train.data.pictures import sources
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.decoder_job import DecoderJobSettings, run_decoder_job
from vidlbc.train.schedule import Budget


@dataclass
class DataOptions:
    """`data.*`."""

    train: Many = required(
        "[a,b,...]: folders, files, patterns (a/*train*), lists (their train split), {path: a, every: 8}"
    )
    val: Many | None = option(
        None, "the same, of lists their val split: videos to measure the gain on at the end; null is none"
    )
    max_side: int | None = option(
        352, "longest side in pixels; larger videos and pictures are scaled down; null is as they are"
    )


@dataclass
class VideoDecoderOptions:
    """`video_decoder.*`."""

    width: int = option(64, "channels at stride 8")
    blocks: int = option(2, "blocks at stride 8")
    fine: int = option(48, "channels at stride 4")
    fine_blocks: int = option(2, "blocks at stride 4")


@dataclass
class TrainOptions:
    """`train.*`."""

    minutes: float | None = option(30.0, "budget; with steps set too, whichever ends first; null: steps alone")
    steps: int | None = option(None, "the same budget in steps")
    lr: float = option(0.002, "peak learning rate of AdamW; cosine decay")
    weight_decay: float = option(0.01, "of AdamW")
    ema: float = option(0.998, "decay of the moving average of the weights, which is what is kept")
    motion: float = option(0.1, "weight of the error of the moved picture in the loss: teaches the motion")
    cuts: float = option(0.15, "share of the steps whose clips change to another scene midway")
    bf16: bool = option(False, "autocast of the frozen stage and the video decoder in training (GPU)")
    seed: int = option(0, "of everything random")
    frames: int = option(6, "frames of a training clip; gradients flow through all of them")
    size: int = option(96, "pixels of its crop's side, a multiple of 32")
    batch: int = option(4, "clips a step and process; torchrun: so many from each")
    pool_windows: int = option(256, "windows kept in memory")
    window_frames: int = option(24, "frames of a window, from which a clip is drawn")
    picture_share: float = option(
        0.25, "share of the clips made from still pictures by a moving camera, where data.train holds any"
    )
    steps_per_pool: int = option(
        2000, "steps before other windows are read, where there are more videos than the pool holds"
    )


@dataclass
class EvalOptions:
    """`eval.*`."""

    qps: list[int] = option([8, 20, 32, 44, 56], "where the validation videos are decoded")
    videos: int = option(12, "at most so many of them, evenly spread")
    frames: int = option(24, "of each")


@dataclass
class Options:
    """See `--help`."""

    model: str = option("default", "shipped model or model folder; frozen")
    data: DataOptions = section(DataOptions)
    out: str = required("folder of the model: a copy with the video decoder; training/ in it holds checkpoint and log")
    device: str = option(
        "auto", "auto, cpu or cuda; several GPUs: torchrun --nproc-per-node=N tools/pretrain_decoder.py ..."
    )
    wandb: bool = option(False, "log to Weights & Biases, offline unless WANDB_MODE is set")
    video_decoder: VideoDecoderOptions = section(VideoDecoderOptions)
    train: TrainOptions = section(TrainOptions)
    eval: EvalOptions = section(EvalOptions)


def settings_of(config: DictConfig) -> DecoderJobSettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, train, evaluation = values["data"], values["train"], values["eval"]
    clips = ClipSettings(
        frames=train["frames"],
        size=train["size"],
        batch=train["batch"],
        pool_windows=train["pool_windows"],
        window_frames=train["window_frames"],
        steps_per_pool=train["steps_per_pool"],
        max_side=data["max_side"],
        picture_share=train["picture_share"],
    )
    return DecoderJobSettings(
        model=config.model,
        train=sources(data["train"]),
        out=Path(config.out),
        budget=Budget(train["steps"], train["minutes"]),
        options=values["video_decoder"],
        clips=clips,
        lr=train["lr"],
        weight_decay=train["weight_decay"],
        ema=train["ema"],
        motion=train["motion"],
        cuts=train["cuts"],
        bf16=train["bf16"],
        seed=train["seed"],
        val=sources(data["val"]),
        eval_qps=tuple(evaluation["qps"]),
        eval_videos=evaluation["videos"],
        eval_frames=evaluation["frames"],
        device=config.device,
        wandb=config.wandb,
    )


def main(config: DictConfig) -> None:
    run_decoder_job(settings_of(config))
