"""Work off shards with a pool of workers, of which any may die: what every launcher with processes of its own shares.

    shards to do --encode--> worker --Future--> report
                     ^          |
                     +--- dies -+   the file in hand is counted; killed DEATHS workers: quarantined

An engine says how a worker is started and what an error of its means; futures come from it, and this loop only gives
out the next shard. A file's verdict must not depend on the engine, so which file a death counts against is decided
here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from enum import Enum
from pathlib import Path
from typing import Protocol

from vidlbc.errors import ShardError
from vidlbc.shards.claims import read_claim
from vidlbc.shards.encode import DEATHS, ShardReport
from vidlbc.shards.launchers.progress import Meter
from vidlbc.shards.layout import ShardFiles
from vidlbc.shards.plan import Plan

RETRIES = 3  # of a shard whose worker was lost with its machine, or died with no file in hand
HOPELESS = 4  # files in a row that kill their workers while none can be encoded: it is not the files
_POLL_SECONDS = 0.5


class Ending(Enum):
    """What became of a worker: it died of its work, or was lost with its machine."""

    DIED = "died"
    LOST = "lost"


class Worker(Protocol):
    """A process that holds the codec and encodes one shard at a time."""

    def ready(self) -> Future[None]:
        """Done once the codec is loaded; only then is it given a shard, so that none waits for a place that is full."""
        ...

    def encode(self, index: int, quarantined: Sequence[int], lanes: int | None) -> Future[ShardReport]: ...

    def ending(self, error: BaseException) -> Ending | BaseException:
        """What `error` of one of its futures says of the worker; where it lives, the error to raise."""
        ...

    def stop(self) -> None:
        """End it, now where it is idle or dead, else after its shard or by force, as the engine can."""
        ...


class WorkerPool(Protocol):
    """Hires the workers of one engine."""

    @property
    def size(self) -> int: ...
    def start(self) -> Worker: ...


def encode_with(pool: WorkerPool, plan: Plan, todo: Sequence[int], meter: Meter) -> Iterator[ShardReport]:
    """Encode the shards `todo`, in about this order; a report each, as they are finished.

    Raises ShardError when workers die for no reason that a file could be blamed for; whatever an encoding raised, else.
    """
    waiting, deaths = deque(todo), _Deaths(plan)
    busy: dict[Future, tuple[Worker, int | None]] = {}  # None: not ready yet
    try:
        for _ in range(min(pool.size, len(todo))):
            worker = pool.start()
            busy[worker.ready()] = (worker, None)
        while waiting or any(index is not None for _, index in busy.values()):
            for future in wait(busy, _POLL_SECONDS, FIRST_COMPLETED).done:
                worker, index = busy.pop(future)
                error = future.exception()
                if error is not None:
                    ending = worker.ending(error)
                    worker.stop()
                    if not isinstance(ending, Ending):
                        raise ending
                    deaths.record(index, ending)
                    if index is not None:
                        waiting.appendleft(index)
                    worker = pool.start()
                    busy[worker.ready()] = (worker, None)
                    continue
                if index is None:
                    deaths.started()
                else:
                    deaths.finished(future.result())
                    yield future.result()
                if waiting:
                    index = waiting.popleft()
                    busy[worker.encode(index, *deaths.told(index))] = (worker, index)
                else:
                    worker.stop()
            meter.show({index for _, index in busy.values() if index is not None})
    finally:
        for worker, _ in busy.values():
            worker.stop()


class _Deaths:
    """Counts deaths by the file in hand. Of several in hand none is to blame yet: the next time each is alone."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._deaths: Counter[int] = Counter()
        self._blameless: Counter[int | None] = Counter()
        self._alone: set[int] = set()
        self._in_a_row = 0

    def told(self, index: int) -> tuple[list[int], int | None]:
        """What a worker is told of shard `index`: the files in quarantine, and how many to open at a time."""
        shard = self._plan.shards[index]
        dead = [place for place in range(shard.first, shard.last) if self._deaths[place] >= DEATHS]
        return dead, 1 if index in self._alone else None

    def started(self) -> None:
        self._blameless[None] = 0

    def finished(self, report: ShardReport) -> None:
        if report.failed < report.files:
            self._in_a_row = 0

    def record(self, index: int | None, ending: Ending) -> None:
        """A worker on shard `index` (None: on none yet) has ended. Raises ShardError when it is no use going on."""
        note = None if index is None else read_claim(ShardFiles(Path(self._plan.output), index))
        if ending is Ending.DIED and index is not None and note is not None and note.sources:
            if len(note.sources) > 1 and index not in self._alone:
                self._alone.add(index)
                return
            source = note.sources[0]
            self._deaths[source] += 1
            if note.files > note.failed:
                self._in_a_row = 0
            elif self._deaths[source] == DEATHS:
                self._in_a_row += 1
            if self._in_a_row < HOPELESS:
                return
            what = f"with each of {HOPELESS} files in a row"
        else:
            self._blameless[index] += 1
            if self._blameless[index] <= RETRIES:
                return
            what = f"{RETRIES + 1} times " + ("while it started" if index is None else f"on shard {index:05d}")
        raise ShardError(
            f"{self._plan.output}: an encoding process died {what} (out of memory?); finished shards are kept: run the"
            " same command again, with fewer processes if it recurs"
        )
