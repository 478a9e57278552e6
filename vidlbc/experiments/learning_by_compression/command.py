"""Learning by compression (Xie et al., arXiv 2105.13978): raise the compression of a model while its recovery holds.

    vidlbc experiment learn-by-compression experiment=lbc_two_step data.folder=FOLDER out=out/lbc
    vidlbc experiment learn-by-compression table=true [model=FOLDER]        prints Table 1 from the live model

Trains a recogniser from the labels at hand, then the two-step loop, then measures every variant on held-out frames.
The same command again resumes. OUT/model is a model like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.errors import InputError
from vidlbc.experiments.learning_by_compression.degradation import Degradation
from vidlbc.experiments.learning_by_compression.held_out import HeldOutSource
from vidlbc.experiments.learning_by_compression.objective import LossWeights
from vidlbc.experiments.learning_by_compression.ratio import element_table
from vidlbc.experiments.learning_by_compression.schedules import Ramp
from vidlbc.experiments.learning_by_compression.study import RecogniserSettings, StudySettings, run_study
from vidlbc.experiments.learning_by_compression.two_step import TwoStepSettings
from vidlbc.run.options import Many, option, section
from vidlbc.train.data.mixed_data import MixedSource


@dataclass
class DataOptions:
    """`data.*`."""

    train: Many | None = option(
        None,
        "[a,b,...]: folders, files, patterns, lists, picture sets, or {path:, labels: full|weak|none, "
        "weight:, every:, frames_per_video:, share:, flip:}; null with table=true only",
    )
    val: Many | None = option(
        None, "held-out frames for RQ: paths, or {path: LIST, split: val} with labels; null with table=true only"
    )
    pool_mb: int = option(4096, "MiB of pictures in memory")


@dataclass
class StageVariantsOptions:
    """`stage.variants.*`."""

    V1: list[int] = option([2, 4, 8, 16], "12.8x in elements (Table 1)")
    V2: list[int] = option([1, 2, 4, 8], "25.6x (Table 1)")
    V3: list[int] = option([0, 2, 3, 4], "64x (Table 1)")
    V4: list[int] | None = option([0, 1, 2, 2], "118x; beyond the paper's table; null is none")
    V5: list[int] | None = option([0, 0, 1, 2], "512x; beyond the paper's table; null is none")


@dataclass
class StageOptions:
    """`stage.*`."""

    channels: list[int] = option([2, 4, 8, 16], "symbol channels at strides 4, 8, 16, 32: those of V1")
    widths: list[int] = option([32, 64, 96, 128], "hidden channels at these strides")
    encoder_blocks: list[int] = option([1, 1, 1, 1], "blocks of the analysis at each stride")
    decoder_blocks: list[int] = option([1, 2, 2, 1], "blocks of the synthesis at each stride")
    block: str = option("depthwise", "kind of block: a choice of image_stage/block")
    prior_widths: list[int] = option([32, 48, 64], "hidden channels of the intra prior at strides 8, 16, 32")
    prior_blocks: int = option(1, "blocks of the intra prior a level")
    variants: StageVariantsOptions = section(
        StageVariantsOptions, "in the order of the loop: channels kept of each level; null leaves one out"
    )


@dataclass
class EvaluatorOptions:
    """`evaluator.*`."""

    pixel: list[float] | None = option([1.0, 1.0], "mean absolute error of the pixels; null leaves it out")
    patch: list[float] | None = option([2.0, 0.25], "mean and deviation of every patch; null leaves it out")
    semantic: list[float] | None = option(
        [0.0, 0.4, 0.1, 0.9],
        "features and class scores of the recogniser, zero where a frame has no label; null leaves it out",
    )
    patch_sizes: list[int] = option([4, 8], "pixels of a patch's side")


@dataclass
class LossOptions:
    """`loss.*`."""

    enc: list[float] = option(
        [0.05, 0.0], "lambda_enc: classification where labels exist, contrastive otherwise; decays"
    )
    corr: list[float] = option([0.1, 0.0], "lambda_corr: correlation between levels; decays")
    rate: float = option(
        1.0, "rate_weight of rho(qp) = rate_weight / (255 sqrt(lambda(qp))), the price of a bit a pixel"
    )
    corr_distance: list[float] = option([1.0, 0.5, 0.25], "weight of the correlation of levels 1, 2, 3 apart")
    corr_join: list[float] = option(
        [0.0, 0.15, 0.3], "share of the run after which each of them joins: neighbouring levels first"
    )
    temperature: float = option(0.2, "of the contrastive loss")


@dataclass
class DegradationOptions:
    """`degradation.*`."""

    blur: float = option(1.5, "largest deviation of the Gaussian blur, in pixels")
    noise: float = option(0.08, "largest deviation of the noise, of values 0 to 1")
    grey: float = option(0.2, "probability that a degraded frame turns grey")
    share: float = option(0.3, "of frames that are degraded")
    recover: bool = option(False, "true: the encoder sees the degraded frame, the target is the clean one")


@dataclass
class LoopOptions:
    """`loop.*`."""

    first: int = option(600, "steps at V1")
    raising: int = option(150, "steps of each passage to the next variant, with asymmetric dropout")
    holding: int = option(300, "steps at each later variant")
    keep_earlier: float = option(
        0.4, "share of later steps that go to earlier variants, so that one model decodes them all"
    )
    rq_threshold: float = option(0.0, "stop at the first variant whose RQ is below this, in nats")


@dataclass
class RecogniserOptions:
    """`recogniser.*`."""

    steps: int = option(600, "of its training")
    batch: int = option(32, "crops a step")
    lr: float = option(0.002, "peak learning rate")
    widths: list[int] = option([24, 48, 96, 128], "channels at strides 4, 8, 16, 32")


@dataclass
class TrainOptions:
    """`train.*`."""

    size: int = option(128, "pixels of a crop's side, in training and for RQ; a multiple of 32")
    batch: int = option(8, "crops a step")
    lr: float = option(0.0015, "peak learning rate of each phase; cosine decay")
    ema: float = option(0.995, "decay of the moving average of the weights")
    seed: int = option(0, "of everything random")
    save_seconds: float = option(60.0, "between checkpoints")


@dataclass
class EvalOptions:
    """`eval.*`."""

    rq_qp: int = option(48, "QP at which RQ is held against the threshold")
    qps: list[int] = option([0, 16, 32, 48, 63], "QPs of the table that ends the run")


@dataclass
class Options:
    """See `--help`."""

    data: DataOptions = section(DataOptions)
    out: str | None = option(None, "folder of the run; OUT/model is the model; null with table=true only")
    table: bool = option(False, "print Table 1, counted from the model's own tensors, and stop")
    model: str | None = option(None, "for table=true: a model with variants; null is the stage below")
    device: str = option("auto", "auto, cpu or cuda")
    stage: StageOptions = section(StageOptions, "options of image stage family lbc")
    start_carry: list[int] = option(
        [3, 3, 4],
        "axes that strides 4, 8, 16 pass on in the transform that training starts from (vidlbc.codec.image_stage.klt)",
    )
    evaluator: EvaluatorOptions = section(
        EvaluatorOptions,
        "weights of r(x, x') (Eq. 2): [start, end], or [start, end, begin, finish] in shares of the run; "
        "RQ is measured with the last",
    )
    loss: LossOptions = section(LossOptions, "Eq. 3; the paper gives no numbers")
    degradation: DegradationOptions = section(DegradationOptions, "a function of the seed and the step alone")
    loop: LoopOptions = section(LoopOptions)
    recogniser: RecogniserOptions = section(
        RecogniserOptions, "behind the semantic proxy; trained first, on the labelled sources, then frozen"
    )
    train: TrainOptions = section(TrainOptions)
    eval: EvalOptions = section(EvalOptions)


def settings_of(config: DictConfig) -> StudySettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, loss, evaluator, training = values["data"], values["loss"], dict(values["evaluator"]), values["train"]
    if not values["out"] or not data["train"] or not data["val"]:
        raise InputError("data.train, data.val and out must be given (or table=true, which needs none of them)")
    recogniser = values["recogniser"]
    sizes = tuple(evaluator.pop("patch_sizes"))
    distance, join = tuple(loss["corr_distance"]), tuple(loss["corr_join"])
    if len(distance) != len(join):
        raise InputError(f"loss.corr_join has {len(join)} values, loss.corr_distance {len(distance)}: expected as many")
    return StudySettings(
        train=tuple(MixedSource.of(entry) for entry in _entries(data["train"])),
        val=tuple(HeldOutSource.of(entry) for entry in _entries(data["val"])),
        out=Path(values["out"]),
        stage=_stage(values),
        evaluator={n: Ramp.of(f"evaluator.{n}", value) for n, value in evaluator.items() if value is not None},
        patch_sizes=sizes,
        carry=tuple(values["start_carry"]),
        weights=LossWeights(
            Ramp.of("loss.enc", loss["enc"]),
            Ramp.of("loss.corr", loss["corr"]),
            loss["rate"],
            distance,
            join,
            loss["temperature"],
        ),
        degradation=Degradation(**values["degradation"]),
        loop=TwoStepSettings(**values["loop"]),
        recogniser=RecogniserSettings(**{**recogniser, "widths": tuple(recogniser["widths"])}),
        size=training["size"],
        batch=training["batch"],
        lr=training["lr"],
        ema=training["ema"],
        seed=training["seed"],
        pool_mb=data["pool_mb"],
        rq_qp=values["eval"]["rq_qp"],
        qps=tuple(values["eval"]["qps"]),
        device=values["device"],
        save_seconds=training["save_seconds"],
    )


def _stage(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of family lbc; variants set to null are left out."""
    options = dict(values["stage"])
    return {**options, "variants": {name: kept for name, kept in options["variants"].items() if kept is not None}}


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def main(config: DictConfig) -> None:
    if not config.table:
        run_study(settings_of(config))
        return
    if config.model:
        stage = models.load_image_stage(models.find_model(config.model) / "image_stage").stage
        if not stage.variants:
            raise InputError(f"model={config.model}: has no variants to tabulate")
        variants = stage.variants
    else:
        torch.manual_seed(0)
        stage = build_image_stage("lbc", **_stage(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
        # What the paper's Table 1 has; the loop's own variants beyond it are told with model=.
        variants = {name: kept for name, kept in stage.variants.items() if name in ("V1", "V2", "V3")}
    print(element_table(stage, variants))
