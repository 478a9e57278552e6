"""Rate, distortion and speed of this codec and of others on a folder of videos or pictures, per clip, from real files.

    vidlbc evaluate data=FOLDER out=FOLDER codecs=[vidlbc,x264,x265,svtav1,jpeg]

Every codec codes every clip at several qualities and decodes what it wrote. Pictures are clips of one frame. What is
done is kept: the same command again, or one with more codecs or qualities, measures what is missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from vidlbc.codec.codec import Codec
from vidlbc.evaluate.codecs import build_anchors
from vidlbc.evaluate.codecs.ours import load_codecs
from vidlbc.evaluate.plots import plot_rate_distortion
from vidlbc.evaluate.rate_distortion.comparison import MEASURES, compare, comparison_table, write_differences
from vidlbc.evaluate.rate_distortion.job import EvaluateSettings, evaluate_clips
from vidlbc.evaluate.rate_distortion.tables import tables, write_csv
from vidlbc.evaluate.report import choose_clip, environment, write_evaluation_report
from vidlbc.run.options import option, required, section


@dataclass
class QualityOptions:
    """`quality.*`."""

    x264: list[int] | None = option(None, "CRF, 0 to 51")
    x265: list[int] | None = option(None, "CRF, 0 to 51")
    svtav1: list[int] | None = option(None, "CRF, 0 to 63")
    jpeg: list[int] | None = option(None, "1 to 100")


@dataclass
class Options:
    """See `--help`."""

    data: str = required("folder of videos and pictures, or one file")
    out: str = required(
        "folder for points.csv, points.json, bd_rate.json, rd.png; the same command again adds what is missing"
    )
    codecs: list[str] = option(
        ["vidlbc", "x264", "x265"],
        "also svtav1, jpeg; x264-ld, x265-ld, svtav1-ld (low delay); compressai-hyperprior, compressai-ssf2020, ...",
    )
    model: str = option("default", "of vidlbc: shipped model or model folder")
    other_models: list[str] = option([], "more of them, as [large]; what they code is named KIND@MODEL")
    temporal: list[str] | None = option(
        None,
        "of vidlbc: kinds to compare, as [none,transformer]; null is each model's own; transformer+refine, +fast, "
        "+best, +keyint24: with refined pictures, another effort, a key frame at least every 24 frames",
    )
    rdo: bool | None = option(
        None,
        "of vidlbc: true: also each kind that has a past with symbols chosen for rate and distortion, as "
        "transformer-rdo; false: symbols rounded; null: each kind as vidlbc encode codes it",
    )
    qp: list[int] = option(
        [8, 20, 32, 44, 56], "of vidlbc: qualities, 0 (smallest) to 63 (best); a BD-rate needs at least 4"
    )
    quality: QualityOptions = section(QualityOptions, "of the others; null is five over the useful range")
    preset: dict[str, Any] = option({"x264": "medium", "x265": "medium", "svtav1": "8"}, "of these encoders")
    threads: int = option(1, "of these encoders")
    compressai_weights: str | None = option(
        None, "folder of the zoo's checkpoints, for compressai-*; without them these are left out"
    )
    report: bool = option(True, "out/report/index.html: one file to look at, with pictures side by side")
    frames: int | None = option(64, "at most so many frames of a clip; null is all")
    verify: bool = option(True, "decode every bitstream of vidlbc and compare its symbols")
    precision: str = option("fp32", "of the analysis: fp32 or bf16")
    device: str = option("auto", "auto, cpu or cuda")


OURS = "vidlbc"


def main(config: DictConfig) -> None:
    values: Any = OmegaConf.to_container(config, resolve=True)
    others = {name: tuple(chosen) for name, chosen in values["quality"].items() if chosen is not None}
    others |= {f"{name}-ld": chosen for name, chosen in others.items()}
    settings = EvaluateSettings(
        Path(config.data),
        Path(config.out),
        qps=tuple(config.qp),
        qualities=others,
        frames=config.frames,
        verify=config.verify,
        precision=config.precision,
    )
    names = [name for name in config.codecs if name != OURS]
    weights = None if config.compressai_weights is None else Path(config.compressai_weights)
    device = "cpu" if config.device == "auto" else config.device
    anchors, left_out = build_anchors(names, values["preset"], config.threads, weights, device)
    codecs: dict[str, Codec] = {}
    if OURS in config.codecs:
        models = [values["model"], *values["other_models"]]
        codecs, lacking = load_codecs(models, values["temporal"], config.device, config.precision, config.rdo)
        left_out |= lacking
    found = evaluate_clips(settings, codecs, anchors)
    write_csv(settings.out / "points.csv", found.points)
    print(tables(found.points, found.problems))
    differences = [d for measure in MEASURES for d in compare(found.points, measure)]
    write_differences(settings.out / "bd_rate.json", differences)
    for measure in MEASURES:
        if text := comparison_table([d for d in differences if d.measure == measure]):
            print(f"\n{text}")
    plot_rate_distortion(settings.out / "rd.png", found.points)
    if config.report:
        shown = choose_clip(settings.data, found.points, codecs, anchors, settings.frames)
        told = {name: values[name] for name in ("data", "model", "other_models", "frames", "precision", "threads")}
        report = settings.out / "report" / "index.html"
        made_with = environment(next((codec.device for codec in codecs.values()), torch.device("cpu")))
        write_evaluation_report(report, found.points, differences, found.problems, shown, told, made_with)
        print(f"\nreport: {report}")
    for name, why in left_out.items():
        print(f"\nleft out: {name}: {why}")
    out = settings.out
    print(f"\nevery figure: {out / 'points.csv'}, points.json, bd_rate.json; curves: {out / 'rd.png'}")
