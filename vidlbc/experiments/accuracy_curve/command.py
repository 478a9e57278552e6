"""Accuracy against true bits: one probe on latents, decoded frames, x264 at the same bytes and source pixels.

    vidlbc experiment accuracy-curve data.root=FOLDER_OR_LIST out=FOLDER

Prints tables and writes points, a plot and a report to look at. The same command again resumes.
"""

from pathlib import Path

from omegaconf import DictConfig

from vidlbc.experiments.accuracy_curve.study import CurveSettings, run_curve
from vidlbc.pipeline import EvaluationSettings


def main(config: DictConfig) -> None:
    data, evaluation = config.data, config.eval
    run_curve(
        CurveSettings(
            root=data.root,
            out=Path(config.out),
            model=config.model,
            temporal=tuple(config.temporal),
            qps=tuple(config.qps),
            heads=tuple(evaluation.heads),
            probe=EvaluationSettings(
                frames=evaluation.frames,
                views=evaluation.views,
                grid=evaluation.grid,
                epochs=evaluation.epochs,
                rates=tuple(evaluation.rates),
                decays=tuple(evaluation.decays),
                decoded=evaluation.decoded,
            ),
            labels=data.labels,
            fold=data.fold,
            holdout=data.holdout,
            split=data.split,
            max_side=data.max_side,
            every=data.every,
            clip_frames=data.clip_frames,
            deadline_s=data.deadline_s,
            x264=evaluation.x264,
            full_pixels=evaluation.full_pixels,
            speed_clips=config.speed.clips,
            speed_rounds=config.speed.rounds,
            device=config.device,
            precision=config.precision,
            processes=config.processes,
            seed=config.seed,
        )
    )
