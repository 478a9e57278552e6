"""Evaluation: rate and distortion of what was stored, and what a head recognises in it.

    clips --FeatureBuilder--> FeatureSet (tokens of every view, cached once) --run_probe--> ProbeResult
    bytes, frames --rate_distortion--> points, Bjontegaard differences --write_metrics, plots--> report

Nothing here opens a video or a shard: callers hand over latents or frames.
"""

from vidlbc.evaluate.metrics import REQUIRED_METRICS, write_metrics
from vidlbc.evaluate.probe.bootstrap import bootstrap_ci
from vidlbc.evaluate.probe.features import FeatureBuilder, FeatureSet
from vidlbc.evaluate.probe.fit import ProbeBudget
from vidlbc.evaluate.probe.holdout import split_by_group
from vidlbc.evaluate.probe.patches import patchify, pixel_levels
from vidlbc.evaluate.probe.protocol import run_probe
from vidlbc.evaluate.probe.result import ProbeResult
from vidlbc.evaluate.probe.views import ViewPlan, view_indices
from vidlbc.evaluate.rate_distortion.bjontegaard import bd_rate

__all__ = [
    "REQUIRED_METRICS",
    "FeatureBuilder",
    "FeatureSet",
    "ProbeBudget",
    "ProbeResult",
    "ViewPlan",
    "bd_rate",
    "bootstrap_ci",
    "patchify",
    "pixel_levels",
    "run_probe",
    "split_by_group",
    "view_indices",
    "write_metrics",
]
