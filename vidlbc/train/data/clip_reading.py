"""The first pool of training clips, read with a progress bar: what every training on videos begins with."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import VideoError
from vidlbc.run import distributed
from vidlbc.run.progress import progress_bar
from vidlbc.train.data.video_data import ClipSampler, ClipSettings
from vidlbc.video import VideoReader


def read_clips(
    paths: Sequence[str | Path],
    clips: ClipSettings,
    seed: int,
    pictures: Sequence[np.ndarray],
    open_path: Callable[[str | Path], AbstractContextManager[Path]] = lambda path: nullcontext(Path(path)),
    device: torch.device | None = None,
    resident: str = "auto",
) -> ClipSampler:
    """A sampler whose first pool is in memory; rank 0 shows progress and tells which videos are not used.

    Arguments as of ClipSampler. Raises InputError where no video has enough readable frames.
    """
    first = distributed.rank() == 0
    silent = None if first else True
    with progress_bar(desc="read training clips", unit="video", total=len(paths), disable=silent) as meter:

        def on_read(done: int, total: int) -> None:
            meter.total = total
            meter.update(done - meter.n)

        ranks = distributed.rank(), distributed.world()
        sampler = ClipSampler(paths, clips, NUM_QP, seed, *ranks, on_read, open_path, pictures, device, resident)
        sampler(0)
    if sampler.unreadable and first:
        path, reason = next(iter(sampler.unreadable.items()))
        print(f"{len(sampler.unreadable)} videos are not used for training (such as {path}: {reason})", file=sys.stderr)
    return sampler


def whole_clips(paths: Sequence[Path], frames: int, max_side: int | None) -> list[np.ndarray]:
    """The first frames of each video that can be read, uint8 (at most `frames`, H, W, 3)."""
    clips = []
    for path in paths:
        try:
            clips.append(np.concatenate(list(VideoReader(path, stop=frames, max_side=max_side).blocks())))
        except (VideoError, ValueError) as error:  # ValueError: not one frame, or frames of several sizes
            print(f"not measured: {path}: {error}", file=sys.stderr)
    return clips
