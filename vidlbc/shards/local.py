"""The local launcher: `encode_shard` over every shard that is not done, in this process or in several.

It schedules nothing of its own: `concurrent.futures` hands out indices; another engine is another function like this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, ShardError
from vidlbc.shards.encode import ShardReport, encode_shard, is_done, load_codec
from vidlbc.shards.layout import MANIFEST, clean_stale, exclusive, full_disk_as_error
from vidlbc.shards.manifest import Manifest, write_manifest
from vidlbc.shards.plan import Plan
from vidlbc.shards.resume import begin
from vidlbc.shards.sources import Codec, OpenReader, Progress, open_video

LoadCodec = Callable[[Plan, str], Codec]


def encode_corpus(
    plan: Plan,
    *,
    processes: int = 1,
    device: str = "auto",
    codec: Codec | None = None,
    load: LoadCodec = load_codec,
    open_reader: OpenReader = open_video,
    bar: bool = True,
) -> tuple[Manifest, list[ShardReport]]:
    """Encode every shard of `plan` that is not done; returns the manifest and one report a shard, in order.

    With one process the work runs here, with `codec` if given. With more, each spawned process calls `load(plan,
    device)` once, so `load` and `open_reader` must be importable functions. Resumes whatever was left; raises
    ShardError when the folder holds another run, is in use, or its disk is full, InputError for bad values.
    """
    if processes < 1:
        raise InputError(f"processes={processes}: expected at least 1")
    with exclusive(Path(plan.output)):
        clean_stale(Path(plan.output))
        plan = begin(plan)
        finished = [is_done(plan, index) for index in range(len(plan.shards))]
        todo = [index for index, whole in enumerate(finished) if not whole]
        done = [index for index, whole in enumerate(finished) if whole]
        reports = [encode_shard(plan, index) for index in done]
        with _progress_bar(plan, done, bar) as progress:
            if not todo:
                pass
            elif processes == 1:
                codec = codec or load(plan, device)
                for index in todo:
                    report = encode_shard(plan, index, codec, open_reader=open_reader, progress=progress)
                    _log(plan, report)
                    reports.append(report)
            else:
                for report in _in_processes(plan, todo, processes, device, load, open_reader, progress):
                    _log(plan, report)
                    reports.append(report)
        manifest = write_manifest(plan)
    return manifest, sorted(reports, key=lambda report: report.index)


def logged_seconds(plan: Plan) -> tuple[int, float]:
    """(frames, seconds of encoding) over all runs that made this folder, for rates that survive a resume."""
    path = Path(plan.output) / MANIFEST / "runs.jsonl"
    frames, seconds = 0, 0.0
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            frames, seconds = frames + int(entry["frames"]), seconds + float(entry["seconds"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            continue  # the last line of a killed run
    return frames, seconds


def _log(plan: Plan, report: ShardReport) -> None:
    """Timings live here and nowhere else: everything else in the folder is the same on every machine."""
    path = Path(plan.output) / MANIFEST / "runs.jsonl"
    with full_disk_as_error(Path(plan.output)), open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps({"time": time.time(), **asdict(report)}) + "\n")


@contextmanager
def _progress_bar(plan: Plan, done: list[int], shown: bool) -> Iterator[Progress]:
    """A bar over files, with frames a second; the rate and the time left count this run only."""
    from vidlbc.progress import progress_bar

    finished = sum(plan.shards[index].last - plan.shards[index].first for index in done)
    began, frames_seen = time.monotonic(), 0
    total = len(plan.sources)
    with progress_bar(total=total, initial=finished, unit="video", desc="encode", disable=not shown) as meter:

        def progress(frames: int, files: int) -> None:
            nonlocal frames_seen
            frames_seen += frames
            meter.update(files)
            meter.set_postfix_str(f"{frames_seen / max(1e-9, time.monotonic() - began):.1f} frames/s", refresh=False)

        yield progress


_worker: dict[str, Any] = {}


def _start_worker(
    plan: Plan, processes: int, device: str, load: LoadCodec, open_reader: OpenReader, queue: Any
) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))  # Ctrl-C reaches the launcher too; it reports
    _worker.update(plan=plan, codec=load(plan, device), open_reader=open_reader, queue=queue)
    if "torch" in sys.modules:  # a codec without torch need not wait for its import
        sys.modules["torch"].set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))


def _die_with_parent() -> None:
    """A killed launcher must not leave writers behind: the next run would meet them in the same folder."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(index: int) -> ShardReport:
    def progress(frames: int, files: int) -> None:
        _worker["queue"].put((frames, files))

    return encode_shard(_worker["plan"], index, _worker["codec"], open_reader=_worker["open_reader"], progress=progress)


def _in_processes(
    plan: Plan,
    todo: list[int],
    processes: int,
    device: str,
    load: LoadCodec,
    open_reader: OpenReader,
    progress: Progress,
) -> Iterator[ShardReport]:
    context = get_context("spawn")  # fork would copy the threads' locks of torch and of the decoders
    queue = context.SimpleQueue()
    arguments = (plan, processes, device, load, open_reader, queue)
    pool = ProcessPoolExecutor(min(processes, len(todo)), context, _start_worker, arguments)
    try:
        waiting: set[Future[ShardReport]] = {pool.submit(_work, index) for index in todo}
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
            while not queue.empty():
                progress(*queue.get())
    except BrokenProcessPool:
        raise ShardError(
            f"{plan.output}: an encoding process died (out of memory?); finished shards are kept: run the same command"
            " again, with fewer processes if it recurs"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
