"""The local launcher: `encode_shard` over every shard that is not done, in this process or in several."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any

from vidlbc.errors import InputError
from vidlbc.shards.encode import ShardReport, encode_shard, load_codec
from vidlbc.shards.launchers.run import Job, LoadCodec, launch
from vidlbc.shards.launchers.worker_pool import Ending, Worker, encode_with
from vidlbc.shards.manifest import Manifest
from vidlbc.shards.plan import Plan
from vidlbc.shards.sources import ClipCodec, OpenReader, open_video


def encode_corpus(
    plan: Plan,
    *,
    processes: int = 1,
    device: str = "auto",
    codec: ClipCodec | None = None,
    load: LoadCodec | None = None,
    open_reader: OpenReader = open_video,
    bar: bool = True,
) -> tuple[Manifest, list[ShardReport]]:
    """Encode every shard of `plan` that is not done; returns the manifest and one report a shard, in order.

    With one process the work runs here, with `codec` if given; with more, each spawned process calls `load(plan,
    device)` once (default: the plan's model, by its name), so `load` and `open_reader` must be importable functions.
    A file that kills two processes is unreadable. With one, shards that an earlier run had in work when it was killed
    have a spawned process, which a file may kill; not so where `codec` is given and `load` is not.

    Resumes whatever was left. Raises ShardError when the folder holds another run, is in use, or its disk is full, or
    processes die for no file's sake; InputError for bad values.
    """
    return launch(plan, LocalEngine(processes, device, codec, load, open_reader), bar=bar)


class LocalEngine:
    """Processes on this machine; arguments as of `encode_corpus`."""

    def __init__(
        self,
        processes: int = 1,
        device: str = "auto",
        codec: ClipCodec | None = None,
        load: LoadCodec | None = None,
        open_reader: OpenReader = open_video,
    ) -> None:
        if processes < 1:
            raise InputError(f"processes={processes}: expected at least 1")
        self._processes, self._device, self._codec = processes, device, codec
        self._load, self._open_reader = load or load_codec, open_reader
        self._spawns = codec is None or load is not None

    def __call__(self, job: Job) -> Iterator[ShardReport]:
        begun = job.begun if self._spawns else ()
        apart = [index for index in job.todo if self._processes > 1 or index in begun]
        here = [index for index in job.todo if self._processes == 1 and index not in begun]
        pool = _Processes((self._processes, job.plan, self._device, self._load, self._open_reader))
        yield from encode_with(pool, job.plan, apart, job.meter)
        if here:
            codec = self._codec or self._load(job.plan, self._device)
        for index in here:
            yield encode_shard(
                job.plan, index, codec, open_reader=self._open_reader, progress=lambda note: job.meter.update([note])
            )


class _Processes:
    """A pool of spawned processes; fork would copy the threads' locks of torch and of the decoders."""

    def __init__(self, arguments: tuple[int, Plan, str, LoadCodec, OpenReader]) -> None:
        self.size = arguments[0]
        self._arguments = arguments

    def start(self) -> Worker:
        return _Process(self._arguments)


class _Process:
    """An executor of one process: when that dies, no other worker does, as in an executor of several."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _start, arguments)

    def ready(self) -> Future[None]:
        return self._pool.submit(_load)

    def encode(self, index: int, quarantined: Sequence[int], lanes: int | None) -> Future[ShardReport]:
        return self._pool.submit(_encode, index, quarantined, lanes)

    def ending(self, error: BaseException) -> Ending | BaseException:
        return Ending.DIED if isinstance(error, BrokenProcessPool) else error

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}


def _start(processes: int, plan: Plan, device: str, load: LoadCodec, open_reader: OpenReader) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))  # Ctrl-C reaches the launcher too; it reports
    _worker.update(processes=processes, plan=plan, device=device, load=load, open_reader=open_reader)


def _die_with_parent() -> None:
    """A killed launcher must not leave writers behind: the next run would wait for them."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _load() -> None:
    _worker["codec"] = _worker["load"](_worker["plan"], _worker["device"])
    if "torch" in sys.modules:  # a codec without torch need not wait for its import
        sys.modules["torch"].set_num_threads(max(1, len(os.sched_getaffinity(0)) // _worker["processes"]))


def _encode(index: int, quarantined: Sequence[int], lanes: int | None) -> ShardReport:
    plan, codec, reader = (_worker[name] for name in ("plan", "codec", "open_reader"))
    return encode_shard(plan, index, codec, open_reader=reader, quarantined=quarantined, lanes=lanes)
