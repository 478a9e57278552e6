"""What one model for all QPs costs against models trained for one QP each, at equal steps.

    vidlbc experiment compare-rates experiment=rates_default data.folder=DATA out=FOLDER

The same command resumes a stopped run.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.experiments.rates.study import RateStudySettings, run_rate_study
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import sources


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
