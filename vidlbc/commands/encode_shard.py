"""One task of an encoding job: the shards of a plan that `vidlbc encode launcher=slurm` has written.

Tasks may run at the same time, again, and in any order: a finished shard is left as it is. Without a task, the manifest
of the finished folder is written.
"""

from dataclasses import dataclass

from omegaconf import DictConfig

from vidlbc.run.options import option, required
from vidlbc.run.stage_clock import stage_table
from vidlbc.shards import Plan, encode_task, gather_finished, time_spent


@dataclass
class Options:
    """See `--help`."""

    shards: str = required("the folder of shards")
    task: int | None = option(
        None, "number of the task; null: encode nothing, write the manifest of the finished shards"
    )
    per_task: int = option(1, "consecutive shards of a task: task 3 of 4 each is shards 12 to 15")
    device: str = option("auto", "auto, cpu or cuda")


def main(config: DictConfig) -> None:
    if config.task is None:
        print(gather_finished(config.shards).summary())
        frames, seconds, stages = time_spent(Plan.load(config.shards))
        print(f"\n{stage_table(stages, frames, seconds)}")
        return
    for report in encode_task(config.shards, config.task, config.per_task, config.device):
        how = "was done" if report.skipped else f"{report.frames} frames, {report.seconds:.1f} s"
        print(f"shard {report.index:05d}: {report.files} videos, {report.failed} unreadable, {how}")
