"""The main job: from a folder of videos to latent shards and action accuracy.

    check --> train stage 2 --> encode every split --> verify in another process --> evaluate --> report

Each step leaves a marker in the output folder, so the same command resumes wherever it was stopped.
"""

from vidlbc.pipeline.run import run_job
from vidlbc.pipeline.settings import EvaluationSettings, JobSettings, TrainSettings

__all__ = ["EvaluationSettings", "JobSettings", "TrainSettings", "run_job"]
