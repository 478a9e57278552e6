"""Generate a corpus of motions, and run the whole main job on it: minutes on two cores, no GPU.

Options are those of pretrain-video, with `experiment=demo` chosen and `data.root`, `out` below out/demo.
"""

from pathlib import Path

from omegaconf import DictConfig

from vidlbc.commands import pretrain_video
from vidlbc.data.motions import MotionsSettings, make
from vidlbc.errors import InputError

Options = pretrain_video.Options
# 96, 24 and 40 clips: what two cores work off in minutes.
CORPUS = MotionsSettings(groups=20, frames=16)
GIVEN = ("experiment=demo", "data.root=out/demo/videos", "out=out/demo/run")


def main(config: DictConfig) -> None:
    settings = pretrain_video.settings_of(config)  # what is wrong is told before anything is written
    try:
        make(Path(config.data.root), CORPUS)
    except ValueError as error:
        raise InputError(str(error)) from None
    pretrain_video.run_job(settings)
    print(f"\nOutputs are in {config.out}: report/index.html to look at, metrics.json, plots, a video, shards/.")
    print("For your own videos:  vidlbc pretrain-video data.root=FOLDER_OR_LIST out=out/mine")
