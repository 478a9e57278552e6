"""Which frames of a video make its clips."""

from __future__ import annotations

import numpy as np

from vidlbc.errors import InputError


def clip_indices(n_frames: int, length: int, stride: int, clips: int) -> np.ndarray:
    """Frame indices int64 (clips, length), evenly spread over the video; the same for the same arguments.

    A clip is `length` frames, `stride` apart. The first clip begins at frame 0 and the last ends with the last frame
    (a single clip sits in the middle); clips overlap where they must. In a video too short for one clip at this stride
    the stride shrinks, then frames repeat: the whole video, evenly, in every clip. Raises InputError on values < 1.
    """
    for name, value in (("n_frames", n_frames), ("length", length), ("stride", stride), ("clips", clips)):
        if value < 1:
            raise InputError(f"{name}={value}: expected at least 1")
    room = n_frames - ((length - 1) * stride + 1)
    if room < 0:
        steps = np.arange(length)
        once = steps * (n_frames - 1) // max(1, length - 1)  # integers: no rounding that differs between machines
        return np.tile(once, (clips, 1)).astype(np.int64)
    starts = np.arange(clips) * room // (clips - 1) if clips > 1 else np.array([room // 2])
    return (starts[:, None] + stride * np.arange(length)[None, :]).astype(np.int64)
