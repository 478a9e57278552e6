"""Rate and distortion of a codec on a folder of videos or pictures, per clip, from real bitstreams.

    python tools/evaluate.py data=FOLDER out=FOLDER temporal=[none,lstm,transformer] qp=[32]

Pictures are clips of one frame. `jpeg=[...]` adds the frames as JPEG files. Clips that are done are kept on a rerun.
"""

from pathlib import Path

from omegaconf import DictConfig

import vidlbc
from vidlbc.cli import run
from vidlbc.evaluation.rate_distortion_job import EvaluateSettings, evaluate_clips, tables


def main(config: DictConfig) -> None:
    settings = EvaluateSettings(
        Path(config.data), Path(config.out), qps=tuple(config.qp), jpeg=tuple(config.jpeg), frames=config.frames,
        verify=config.verify, precision=config.precision,
    )  # fmt: skip
    codecs = {
        kind: vidlbc.load(config.model, config.device, temporal=kind, precision=config.precision)
        for kind in config.temporal
    }
    points, problems = evaluate_clips(settings, codecs)
    print(tables(points, problems))
    print(f"\nevery figure: {settings.out / 'points.json'}")


if __name__ == "__main__":
    run(main, "evaluate")
