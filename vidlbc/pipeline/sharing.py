"""What the processes of a torchrun run share of the job beside training: encoding, by shard; features, by video.

rank 0: launch(plan, RankEngine) --todo--> every rank takes the next shard --reports--> rank 0: log, manifest
every rank: features of every N-th video --files--> rank 0: one set, in the order of the videos
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from vidlbc.codec.codec import Codec
from vidlbc.evaluate import FeatureSet
from vidlbc.run import distributed
from vidlbc.shards import LocalEngine, ShardReport, encode_shard, load_codec
from vidlbc.shards.launchers.run import Job, plan_at_hand

_POLL_SECONDS = 0.2


class RankEngine:
    """The launcher's end, on rank 0, which encodes as well. Each other rank calls `encode_with_first`, once.

    A process that dies ends the run of them all; the next one has what was in work encoded by a process apart.
    """

    def __init__(self, device: str, codec: Codec) -> None:
        self._device, self._codec, self._asked = device, codec, False

    def __call__(self, job: Job) -> Iterator[ShardReport]:
        apart = tuple(index for index in job.todo if index in job.begun)
        yield from LocalEngine(1, self._device, self._codec, load_codec)(replace(job, todo=apart))
        todo = [index for index in job.todo if index not in job.begun]
        self._ask(todo)
        others = set(todo)
        for index in _next_of(todo):
            others.discard(index)
            yield encode_shard(job.plan, index, self._codec, progress=lambda note: job.meter.update([note]))
            yield from self._finished(others)
        while others:
            yield from self._finished(others)
            job.meter.show(others)
            time.sleep(_POLL_SECONDS)

    def end(self) -> None:
        """Lets the others go on. Call it once the folder is complete."""
        if not self._asked:
            self._ask([])
        distributed.barrier()

    def _ask(self, todo: Sequence[int]) -> None:
        self._asked = True
        distributed.from_first(list(todo))

    def _finished(self, others: set[int]) -> Iterator[ShardReport]:
        for index in sorted(others):
            told = distributed.pick_up(f"shard/{index}")
            if told is not None:
                others.discard(index)
                yield ShardReport(**told)


def encode_with_first(folder: Path, codec: Codec) -> None:
    """On a rank other than 0: encode what the first one hands out; returns once the folder is complete."""
    todo = distributed.from_first(None)
    if todo:
        plan = plan_at_hand(folder)
        for index in _next_of(todo):
            distributed.leave(f"shard/{index}", asdict(encode_shard(plan, index, codec)))
    distributed.barrier()


def _next_of(todo: Sequence[int]) -> Iterator[int]:
    while (place := distributed.next_number("shards")) < len(todo):
        yield todo[place]


def own_share(count: int) -> range:
    """Of `count` things, those of this rank."""
    return range(distributed.rank(), count, distributed.world())


def join_shares(features: FeatureSet, file: Path, order: Sequence[str]) -> FeatureSet:
    """All ranks' `features` of one input, on rank 0; its own on others. `order`: keys of all videos.

    `file`: beside it the ranks' parts lie for a moment.
    """
    if distributed.world() == 1:
        return features
    parts = [file.with_suffix(f".rank{rank}") for rank in range(distributed.world())]
    if distributed.rank():
        features.save(parts[distributed.rank()])
    distributed.barrier()
    if distributed.rank():
        return features
    for part in parts[1:]:
        features = features.joined(FeatureSet.load(part))
        part.unlink()
    place = {key: at for at, key in enumerate(order)}
    at = sorted(range(len(features)), key=lambda i: place[features.keys[i]])
    failed = tuple(sorted(features.failed, key=lambda failure: place[failure[0]]))
    return replace(features.subset(at), failed=failed)
