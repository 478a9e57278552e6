"""What one model for all QPs costs against models trained for one QP each, at equal steps.

    vidlbc experiment compare-rates experiment=rates_default data.folder=DATA out=FOLDER

The same command resumes a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.experiments.pictures import PicturesOptions
from vidlbc.experiments.rates.study import RateStudySettings, run_rate_study
from vidlbc.run.options import option, required, section
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import sources


@dataclass
class TrainOptions:
    """`train.*`."""

    steps: int = option(2000, "of every training")
    lr: float = option(0.0015, "peak learning rate of AdamW; cosine decay")
    ema: float = option(0.995, "decay of the moving average of the weights, which is what is kept")
    size: int = option(128, "pixels of a crop's side")
    batch: int = option(8, "crops a step")
    seed: int = option(0, "of everything random")


@dataclass
class EvalOptions:
    """`eval.*`."""

    pictures: int = option(24, "at most so many of them, evenly spread")


@dataclass
class Options:
    """See `--help`."""

    data: PicturesOptions = section(PicturesOptions)
    out: str = required("folder of the models and metrics.json")
    device: str = option("auto", "auto, cpu or cuda")
    qps: list[int] = option([16, 48], "for each of these a model of its own")
    init: str | None = option(
        None, "model for all QPs that every training goes on from, with its options; null: from nothing"
    )
    stage: dict[str, Any] = option({}, "options of the lbc image stage that all share; none: the shipped one's")
    train: TrainOptions = section(TrainOptions)
    eval: EvalOptions = section(EvalOptions)


def settings_of(config: DictConfig) -> RateStudySettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, train = values["data"], values["train"]
    return RateStudySettings(
        train=sources(data["train"]),
        val=sources(data["val"]),
        out=Path(config.out),
        qps=tuple(values["qps"]),
        stage=values["stage"],
        steps=train["steps"],
        crops=CropSettings(train["size"], train["batch"], data["frames_per_video"], data["max_side"]),
        lr=train["lr"],
        ema=train["ema"],
        seed=train["seed"],
        eval_pictures=values["eval"]["pictures"],
        device=config.device,
        init=config.init,
    )


def main(config: DictConfig) -> None:
    settings = settings_of(config)
    run_rate_study(settings)
    print(f"\nevery figure: {settings.out / 'metrics.json'}")
