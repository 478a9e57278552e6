"""Pictures to train on and to measure on: what studies of image stages are given."""

from dataclasses import dataclass

from vidlbc.run.options import Many, option, required


@dataclass
class PicturesOptions:
    """`data.*`."""

    train: Many = required(
        "[a,b,...]: folders, files, patterns (a/*train*), lists (their train split), {path: a, every: 8}"
    )
    val: Many = required("the same: pictures to measure on; nothing is chosen on them")
    frames_per_video: int = option(3, "pictures taken from a video, out of its first 64 frames")
    max_side: int | None = option(None, "longest side in pixels; larger pictures are scaled down; null is as they are")
