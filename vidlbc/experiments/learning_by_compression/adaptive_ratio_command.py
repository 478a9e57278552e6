"""Measure a compression ratio per clip against a constant one: true bytes at equal mean quality.

vidlbc experiment adaptive-ratio data.path=LIST model=MODEL out=FOLDER
"""

from pathlib import Path

from omegaconf import DictConfig

from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.learning_by_compression.adaptive_ratio import AdaptiveSettings, run_adaptive_ratio


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
