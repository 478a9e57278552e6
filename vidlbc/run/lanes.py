"""Files side by side: each in a thread, what comes of them in order."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_lanes(run: Callable[[int], T], count: int, lanes: int, stop: Callable[[], None]) -> Generator[T, None, None]:
    """`run(0)`, `run(1)`, ... in order, up to `lanes` of them at a time, and as many again finished and waiting.

    `stop` is called where one has failed, or the caller has: it ends those at work. One lane is the caller's thread.
    """
    if lanes == 1 or count == 1:
        yield from map(run, range(count))
        return
    executor = ThreadPoolExecutor(lanes, "lane", _one_thread)
    coming: deque[Future[T]] = deque()
    try:
        for index in range(count):
            coming.append(executor.submit(run, index))
            if len(coming) == 2 * lanes:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    except BaseException:
        stop()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """What a lane computes itself is little; the codec has threads of its own."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
