"""Compare networks of the image stage at equal compute: same data, same steps, then same time; BD-rate.

    vidlbc experiment compare-blocks experiment=blocks_default data.folder=DATA out=FOLDER

The same command resumes a stopped run.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.experiments.blocks.study import BlockStudySettings, run_block_study
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import Source


def settings_of(config: DictConfig) -> BlockStudySettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, train, evaluation = values["data"], values["train"], values["eval"]
    return BlockStudySettings(
        train=_sources(data["train"]),
        val=_sources(data["val"]),
        out=Path(config.out),
        contestants=_chosen(values["contestants"], values["blocks"]),
        widths=tuple(values["widths"]),
        floor=tuple(values["floor"]),
        stage=values["stage"],
        steps=train["steps"],
        same_time=train["same_time"],
        crops=CropSettings(train["size"], train["batch"], data["frames_per_video"], data["max_side"]),
        lr=train["lr"],
        ema=train["ema"],
        seed=train["seed"],
        eval_qps=tuple(evaluation["qps"]),
        eval_pictures=evaluation["pictures"],
        device=config.device,
    )


def _chosen(names: list[str], blocks: dict[str, Any]) -> dict[str, Any]:
    for name in names:
        if name not in blocks:
            raise InputError(f"contestants: unknown network {name!r}, expected {', '.join(blocks)}")
    return {name: blocks[name] for name in names}


def _sources(entries: Any) -> tuple[Source, ...]:
    return tuple(Source.of(entry) for entry in (entries if isinstance(entries, list) else [entries]))


def main(config: DictConfig) -> None:
    settings = settings_of(config)
    run_block_study(settings)
    print(f"\nevery figure: {settings.out / 'metrics.json'}")
