"""The main job: train the temporal stage, encode a corpus into latent shards, verify, evaluate action recognition.

    vidlbc pretrain-video data.root=VIDEOS out=FOLDER

VIDEOS is a folder of videos, split/class/video folders, or an annotation list. The same command resumes a stopped run.
"""

from pathlib import Path

from omegaconf import DictConfig

from vidlbc.errors import InputError
from vidlbc.pipeline import EvaluationSettings, JobSettings, TrainSettings, run_job
from vidlbc.shards import RaySettings, require_ray
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.schedule import budget_of


def settings_of(config: DictConfig) -> JobSettings:
    data, train, evaluation = config.data, config.train, config.eval
    if config.launcher not in ("local", "ray"):
        raise InputError(f"launcher={config.launcher}: expected local or ray")
    if config.launcher == "ray":
        require_ray()
    budget = None
    if any(limit is not None for limit in (train.minutes, train.steps, train.until)):
        budget = budget_of(train.steps, train.minutes, train.until)
    clips = ClipSettings(
        frames=train.frames,
        size=train.size,
        batch=train.batch,
        pool_windows=train.pool_windows,
        window_frames=train.window_frames,
        steps_per_pool=train.steps_per_pool,
        max_side=data.max_side,
        picture_share=train.picture_share,
        large_size=train.large_size,
    )
    return JobSettings(
        root=data.root,
        out=Path(config.out),
        image_stage=config.image_stage,
        temporal=config.temporal,
        qp=config.qp,
        psnr=config.psnr,
        bitrate=config.bitrate,
        rdo=config.rdo,
        device=config.device,
        precision=config.precision,
        train=TrainSettings(
            budget,
            clips,
            lr=train.lr,
            weight_decay=train.weight_decay,
            ema=train.ema,
            start=train.start,
            bf16=train.bf16,
            tf32=train.tf32,
            seed=train.seed,
            save_seconds=train.save_seconds,
            val_seconds=train.val_seconds,
            log_every=train.log_every,
            resident=str(train.resident).lower(),
            step=train.launch,
            pictures=tuple(train.pictures or ()),
            motion=str(train.motion).lower(),
            parts=None if train.parts is None else tuple(train.parts),
            rdo=train.rdo,
        ),
        evaluation=EvaluationSettings(
            videos=evaluation.videos,
            head=evaluation.head,
            frames=evaluation.frames,
            views=evaluation.views,
            grid=evaluation.grid,
            epochs=evaluation.epochs,
            rates=tuple(evaluation.rates or ()),
            decays=tuple(evaluation.decays or ()),
            pixels=evaluation.pixels,
            decoded=evaluation.decoded,
            base=evaluation.base,
        ),
        labels=data.labels,
        fold=data.fold,
        holdout=data.holdout,
        clip_frames=data.clip_frames,
        max_side=data.max_side,
        processes=config.processes,
        launcher=config.launcher,
        ray=RaySettings(**config.ray),
        deadline_s=data.deadline_s,
        wandb=config.wandb,
    )


def main(config: DictConfig) -> None:
    run_job(settings_of(config))
