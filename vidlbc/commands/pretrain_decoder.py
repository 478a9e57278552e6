"""Train a video decoder for a frozen model: it refines decoded frames from the ones before them, at no extra bits.

    vidlbc pretrain-decoder model=default data.train=FOLDER out=MODEL

MODEL is a copy of the model with the video decoder in it: decode.py model=MODEL refine=true. The same command resumes.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.train.data.pictures import sources
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.decoder_job import DecoderJobSettings, run_decoder_job
from vidlbc.train.schedule import Budget


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
