"""Cut a stream of frame blocks into clips without ever holding more than one block.

blocks (n, H, W, 3) ---> clip 0: blocks, at most clip_frames in all | clip 1: blocks | ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]  # (n, H, W, 3)


def thinned(blocks: Iterable[Block], every: int) -> Iterator[Block]:
    """The first of every `every` frames, counted over all blocks."""
    seen = 0
    for block in blocks:
        yield block[-seen % every :: every]
        seen += len(block)


def cut_clips(blocks: Iterable[Block], clip_frames: int) -> Iterator[Iterator[Block]]:
    """Clips as iterators of blocks, to be used up in turn (what is left of one is skipped when the next is asked for).

    A clip also ends where the frame size changes: one bitstream holds one size.
    """
    source = (block for block in blocks if len(block))
    waiting: list[Block] = []  # at most one block, read but not handed out

    def refill() -> bool:
        if not waiting:
            waiting.extend(block for block in [next(source, None)] if block is not None)
        return bool(waiting)

    def clip() -> Iterator[Block]:
        shape = waiting[0].shape[1:]
        left = clip_frames
        while left and refill() and waiting[0].shape[1:] == shape:
            block = waiting.pop()
            if len(block) > left:
                waiting.append(block[left:])
                block = block[:left]
            left -= len(block)
            yield block

    while refill():
        current = clip()
        yield current
        for _ in current:
            pass
