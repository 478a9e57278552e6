"""Measure a compression ratio per clip against a constant one: true bytes at equal mean quality.

vidlbc experiment adaptive-ratio data.path=LIST model=MODEL out=FOLDER
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.learning_by_compression.adaptive_ratio import AdaptiveSettings, run_adaptive_ratio
from vidlbc.run.options import option, required, section


@dataclass
class DataOptions:
    """`data.*`."""

    path: str = required("labels.csv, folder of videos, or any other annotation list")
    split: str = option("test", "train, val or test")


@dataclass
class ClipsOptions:
    """`clips.*`."""

    size: int = option(128, "side of the square that every clip is brought to, in pixels")
    frames: int = option(24, "frames of a clip at most")
    every: int = option(2, "every how many-th frame")


@dataclass
class Options:
    """See `--help`."""

    data: DataOptions = section(DataOptions)
    clips: ClipsOptions = section(ClipsOptions)
    model: str = option("default", "shipped model or model folder; one with variants can shorten its codes too")
    out: str = required("folder for points, metrics.json and the plot")
    qps: list[int] = option([4, 12, 20, 28, 36, 44, 52, 60], "QPs to choose from, at least 4")
    variants: list[str] = option([], "variants to choose from; [] is all that the model has")
    prices: list[float] = option(
        [], "bit/pixel a dB is worth: what the encoder itself chooses at each, over all QPs; [] is none"
    )
    device: str = option("auto", "auto, cpu or cuda")


def main(config: DictConfig) -> None:
    run_adaptive_ratio(
        AdaptiveSettings(
            model=config.model,
            data=config.data.path,
            out=Path(config.out),
            split=config.data.split,
            clips=ClipSettings(config.clips.size, config.clips.frames, config.clips.every),
            qps=tuple(config.qps),
            variants=tuple(config.variants),
            prices=tuple(config.prices),
            device=config.device,
        )
    )
