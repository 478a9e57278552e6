"""Accuracy against true bits: one probe on latents, decoded frames, x264 at the same bytes and source pixels.

    vidlbc experiment accuracy-curve data.root=FOLDER_OR_LIST out=FOLDER

Prints tables and writes points, a plot and a report to look at. The same command again resumes.
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vidlbc.experiments.accuracy_curve.study import CurveSettings, run_curve
from vidlbc.pipeline import EvaluationSettings
from vidlbc.run.options import option, required, section


@dataclass
class DataOptions:
    """`data.*`."""

    root: str = required("folder of videos, or an annotation list of any family in docs/shards.md")
    labels: str | None = option(None, "annotations that lie apart from the videos")
    fold: int = option(1, "which split of UCF101 or HMDB51")
    holdout: float = option(0.2, "a corpus without splits: the share that becomes test, by group")
    split: str | None = option(
        None, "what is evaluated: test, or val to choose settings on (test is then not read); null is the job's"
    )
    max_side: int | None = option(
        128, "longest side in pixels of what all inputs but full-size pixels see; null: the files' own"
    )
    every: int | None = option(3, "only every n-th frame is coded and seen, but by full-size pixels; null: all")
    clip_frames: int = option(256, "longer videos are cut into clips of at most this many coded frames")
    deadline_s: float = option(60.0, "seconds without a frame after which a file's decoder is killed")


@dataclass
class EvalOptions:
    """`eval.*`."""

    heads: list[str] = option(["linear", "attentive"], "linear, attentive, lstm")
    frames: int = option(16, "frames of a view")
    views: int = option(2, "views of a video")
    grid: int = option(4, "tokens a side")
    epochs: int = option(16, "training passes of a probe, at most")
    rates: list[float] = option([0.0003, 0.001, 0.003], "learning rates that are tried")
    decays: list[float] = option([0.05, 1.0], "weight decays that are tried with each")
    decoded: bool = option(True, "the probe on decoded frames")
    x264: bool = option(True, "the probe on frames that libx264 medium coded, at the same bytes video by video")
    full_pixels: bool = option(True, "the probe on source pixels at the files' own size and rate too")


@dataclass
class SpeedOptions:
    """`speed.*`."""

    clips: int = option(8, "clips that are timed; 0 leaves it out")
    rounds: int = option(3, "medians over so many rounds")


@dataclass
class Options:
    """See `--help`."""

    data: DataOptions = section(DataOptions)
    out: str = required("folder for everything")
    model: str = option("default", "shipped model or model folder")
    temporal: list[str] = option(
        ["transformer", "lstm", "none"], "kinds; x264 gets the bytes of the first; what the model lacks is left out"
    )
    qps: list[int] = option([0, 8, 16, 24, 32], "quality, 0 (smallest) to 63 (best)")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("fp32", "of the encoder's analysis: fp32 or bf16")
    processes: int = option(1, "encoding processes on this machine")
    seed: int = option(0, "of the probes")
    eval: EvalOptions = section(
        EvalOptions, "one budget for all inputs; settings are chosen on val, or on held-out groups of train"
    )
    speed: SpeedOptions = section(SpeedOptions, "clips a second that a training could read")


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
