"""Learning by compression (Xie et al., arXiv 2105.13978): raise the compression of a model while its recovery holds.

    vidlbc experiment learn-by-compression experiment=lbc_two_step data.folder=FOLDER out=out/lbc
    vidlbc experiment learn-by-compression table=true [model=FOLDER]        prints Table 1 from the live model

Trains a recogniser from the labels at hand, then the two-step loop, then measures every variant on held-out frames.
The same command again resumes. OUT/model is a model like any other.
"""

from collections.abc import Mapping
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
from vidlbc.experiments.learning_by_compression.two_step import LoopSettings
from vidlbc.train.data.mixed_data import MixedSource


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
        loop=LoopSettings(**values["loop"]),
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
