"""Compare networks of the image stage at equal compute: same data, same steps, then same time; BD-rate.

    vidlbc experiment compare-blocks experiment=blocks_default data.folder=DATA out=FOLDER

The same command resumes a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.experiments.blocks.study import BlockStudySettings, run_block_study
from vidlbc.experiments.pictures import PicturesOptions
from vidlbc.run.options import option, required, section
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource


@dataclass
class TrainOptions:
    """`train.*`."""

    steps: int = option(400, "of every training")
    same_time: bool = option(True, "train each again, for as much processor time as the reference took")
    lr: float = option(0.0015, "peak learning rate of AdamW; cosine decay")
    ema: float = option(0.99, "decay of the moving average of the weights, which is what is kept")
    size: int = option(128, "pixels of a crop's side")
    batch: int = option(8, "crops a step")
    seed: int = option(0, "of everything random")


@dataclass
class EvalOptions:
    """`eval.*`."""

    qps: list[int] = option([8, 24, 32, 40, 56], "at least four, where the pictures are coded")
    pictures: int = option(24, "at most so many of them, evenly spread")


@dataclass
class Options:
    """See `--help`."""

    data: PicturesOptions = section(PicturesOptions)
    out: str = required("folder of the models, metrics.json and curves.png")
    device: str = option("auto", "auto, cpu or cuda")
    contestants: list[str] = option(
        ["depthwise", "residual_gdn", "moga"], "networks of the list below; the first is the reference"
    )
    blocks: dict[str, Any] = option(
        {
            "depthwise": {"block": "depthwise", "encoder_blocks": [1, 3, 3, 2], "decoder_blocks": [2, 4, 3, 2]},
            "residual_gdn": {"block": "residual_gdn", "encoder_blocks": [0, 1, 1, 1], "decoder_blocks": [1, 1, 1, 1]},
            "moga": {"block": "moga", "encoder_blocks": [0, 1, 1, 1], "decoder_blocks": [1, 1, 1, 1]},
            "large": {
                "block": "depthwise",
                "encoder_blocks": [0, 1, 3, 2],
                "decoder_blocks": [1, 1, 3, 2],
                "tail_block": "residual_gdn",
                "encoder_tail": [0, 1, 0, 0],
                "decoder_tail": [1, 1, 0, 0],
            },
            "conv_gated": {
                "block": ["conv", "conv", "gated", "gated"],
                "widths": [64, 160, 224, 288],
                "encoder_blocks": [0, 1, 2, 1],
                "decoder_blocks": [1, 1, 2, 1],
            },
            "conv_gated_deep": {
                "block": ["conv", "conv", "gated", "gated"],
                "widths": [64, 160, 224, 288],
                "encoder_blocks": [0, 1, 3, 2],
                "decoder_blocks": [1, 2, 3, 2],
            },
            "gdn_gated": {
                "block": ["residual_gdn", "residual_gdn", "gated", "gated"],
                "widths": [64, 160, 224, 288],
                "encoder_blocks": [0, 1, 2, 1],
                "decoder_blocks": [1, 1, 2, 1],
            },
        },
        "networks by name: blocks, how many of each, what else differs from stage=",
    )
    widths: list[int] = option(
        [48, 128, 192, 256], "hidden channels of the reference at strides 4, 8, 16, 32: they set the compute"
    )
    floor: list[int] = option(
        [48, 64, 64, 64], "the others' widths are theirs times a factor, not below this: room for the start (klt)"
    )
    stage: dict[str, Any] = option(
        {"channels": [2, 40, 48, 64], "prior_widths": [64, 96, 128], "prior_blocks": 2}, "options that all share"
    )
    train: TrainOptions = section(TrainOptions)
    eval: EvalOptions = section(EvalOptions)


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


def _sources(entries: Any) -> tuple[PictureSource, ...]:
    return tuple(PictureSource.of(entry) for entry in (entries if isinstance(entries, list) else [entries]))


def main(config: DictConfig) -> None:
    settings = settings_of(config)
    run_block_study(settings)
    print(f"\nevery figure: {settings.out / 'metrics.json'}")
