"""Rate, distortion and speed of this codec and of others on a folder of videos or pictures, per clip, from real files.

    python tools/evaluate.py data=FOLDER out=FOLDER codecs=[vidlbc,x264,x265,svtav1,jpeg]

Every codec codes every clip at several qualities and decodes what it wrote. Pictures are clips of one frame. What is
done is kept: the same command again, or one with more codecs or qualities, measures what is missing.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import vidlbc
from vidlbc.cli import run
from vidlbc.evaluation.anchors import build_anchors
from vidlbc.evaluation.comparison import MEASURES, compare, comparison_table, write_differences
from vidlbc.evaluation.plots import plot_rate_distortion
from vidlbc.evaluation.rate_distortion_job import EvaluateSettings, evaluate_clips
from vidlbc.evaluation.rate_distortion_tables import tables, write_csv
from vidlbc.models import find_model, kinds_of
from vidlbc.report import make_player, write_evaluation_report

OURS = "vidlbc"


def main(config: DictConfig) -> None:
    values: Any = OmegaConf.to_container(config, resolve=True)
    others = {name: tuple(chosen) for name, chosen in values["quality"].items() if chosen is not None}
    others |= {f"{name}-ld": chosen for name, chosen in others.items()}
    settings = EvaluateSettings(
        Path(config.data), Path(config.out), qps=tuple(config.qp), qualities=others, frames=config.frames,
        verify=config.verify, precision=config.precision,
    )  # fmt: skip
    names = [name for name in config.codecs if name != OURS]
    weights = None if config.compressai_weights is None else Path(config.compressai_weights)
    device = "cpu" if config.device == "auto" else config.device
    anchors, left_out = build_anchors(names, values["preset"], config.threads, weights, device)
    codecs = {}
    if OURS in config.codecs:
        kinds = kinds_of(find_model(config.model)) if config.temporal is None else list(config.temporal)
        codecs = {
            kind: vidlbc.load(config.model, config.device, temporal=kind, precision=config.precision) for kind in kinds
        }
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
        player = make_player(settings.data, found.points, codecs, anchors, settings.frames)
        told = {name: values[name] for name in ("data", "model", "frames", "precision", "threads")}
        report = settings.out / "report" / "index.html"
        write_evaluation_report(report, found.points, differences, found.problems, player, told)
        print(f"\nreport: {report}")
    for name, why in left_out.items():
        print(f"\nleft out: {name}: {why}")
    out = settings.out
    print(f"\nevery figure: {out / 'points.csv'}, points.json, bd_rate.json; curves: {out / 'rd.png'}")


if __name__ == "__main__":
    run(main, "evaluate")
