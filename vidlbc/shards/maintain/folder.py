"""Verify a whole folder: every shard, what lies beside them, the manifest, and, where asked for, every picture.

plan --> shards (in processes) --+--> problems
files that belong to nothing ----+
keys of all shards, manifest ----+
decoding every n-th clip --------+
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, ShardError, VidlbcError
from vidlbc.run.atomic_files import dump_json
from vidlbc.shards.layout import MANIFEST, ShardFiles
from vidlbc.shards.maintain.check import Problem, check_shard, read_table, repeated
from vidlbc.shards.manifest import gather, manifest_files
from vidlbc.shards.plan import Plan
from vidlbc.shards.table import ClipRow

REMOVED = "removed"
_OURS = re.compile(r"(\d{5,})(\.tar|\.parquet|_stats\.json)")
_BESIDE = set("plan.json labels.json manifest.parquet manifest.json summary.txt runs.jsonl slurm".split())
_BESIDE |= {".lock", ".shards.lock", REMOVED}


def verify_folder(
    folder: str | Path, *, processes: int = 1, progress: Callable[[int], None] = lambda shards: None
) -> list[Problem]:
    """Every problem of a shard folder but those that only decoding shows; whatever bytes lie there, none is raised.

    Raises InputError where `folder` is none, holds no shards and no plan, or shards of temporal=chunk.
    """
    folder = Path(folder)
    if processes < 1:
        raise InputError(f"processes={processes}: expected at least 1")
    require_shards(folder)
    try:
        plan = Plan.load(folder)
    except ShardError as error:
        return [Problem(f"{MANIFEST}/plan.json", None, f"{error}; without it nothing else can be checked")]
    problems: list[Problem] = []
    for found in check_shards(plan, processes):
        problems += found
        progress(1)
    return [*problems, *check_keys(plan), *check_beside(plan), *check_manifest(plan, whole=not problems)]


def require_shards(folder: Path) -> None:
    """Raise InputError where there is no folder of shards at all, rather than a damaged one."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (expected a folder of shards)")
    names = [path.name for path in folder.iterdir()]
    if not (folder / MANIFEST / "plan.json").exists() and not any(_OURS.fullmatch(name) for name in names):
        raise InputError(f"{folder}: is not a folder of shards (it holds no {MANIFEST}/plan.json)")


def check_shards(plan: Plan, processes: int) -> Iterator[list[Problem]]:
    """The problems of each shard, in order."""
    count = len(plan.shards)
    if processes == 1 or count < 2:
        yield from (check_shard(plan, index) for index in range(count))
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(min(processes, count), context, _start, (plan,)) as pool:
        try:
            yield from pool.map(_check, range(count))
        except BrokenProcessPool:
            raise ShardError(f"{plan.output}: a checking process died (out of memory?); use fewer processes") from None
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_state: dict[str, Plan] = {}


def _start(plan: Plan) -> None:
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))  # Ctrl-C reaches the parent too; it reports
    _state["plan"] = plan


def _check(index: int) -> list[Problem]:
    return check_shard(_state["plan"], index)


def check_keys(plan: Plan) -> list[Problem]:
    """Clips that lie in more than one shard."""
    keys = []
    for index in range(len(plan.shards)):
        table, _, _ = read_table(ShardFiles(Path(plan.output), index))
        keys += list(dict.fromkeys(row["key"] for row in table or ()))
    return [Problem("*.parquet", key, "in more than one shard") for key in repeated(keys)]


def check_beside(plan: Plan) -> list[Problem]:
    """Files that belong to no shard of the plan."""
    folder = Path(plan.output)
    problems = []
    for path in sorted(folder.iterdir()):
        match = _OURS.fullmatch(path.name)
        if path.name == MANIFEST or (match and f"{int(match[1]):05d}" == match[1] and int(match[1]) < len(plan.shards)):
            continue
        what = f"no shard of the plan, which has {len(plan.shards)}" if match else "belongs to no shard"
        if path.name.endswith(".tmp"):
            what = "unfinished work of a run that goes on or was killed; the next one removes it"
        problems.append(Problem(path.name, None, what))
    for path in sorted((folder / MANIFEST).iterdir()):
        if path.name not in _BESIDE:
            problems.append(Problem(f"{MANIFEST}/{path.name}", None, "belongs to no manifest"))
    return problems


def check_manifest(plan: Plan, whole: bool) -> list[Problem]:
    """Is the manifest what the shards give? Where they are not `whole`, only the label map is compared."""
    wanted = {"labels.json": dump_json({"classes": list(plan.classes)}, indent=1)}
    if whole:
        wanted |= manifest_files(gather(plan))
    problems = []
    for name, data in wanted.items():
        path = Path(plan.output) / MANIFEST / name
        try:
            good = path.read_bytes() == data or (name == "manifest.parquet" and _same_table(path, data))
        except OSError:
            problems.append(Problem(f"{MANIFEST}/{name}", None, "missing"))
            continue
        if not good:
            problems.append(Problem(f"{MANIFEST}/{name}", None, "not what the shards and the plan give"))
    return problems


def _same_table(path: Path, data: bytes) -> bool:
    """Another version of pyarrow writes other bytes; the rows count."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        ours, theirs = pq.ParquetFile(pa.BufferReader(data)), pq.ParquetFile(path)
        return bool(ours.metadata.created_by != theirs.metadata.created_by and ours.read().equals(theirs.read()))
    except (pa.ArrowException, OSError, ValueError):
        return False


def check_decoding(shards: Any, every: int, progress: Callable[[int], None] = lambda clips: None) -> list[Problem]:
    """Decode every `every`-th clip of `LatentShards`: the bitstream's own checks, and as many frames as recorded."""
    problems = []
    for index in range(0, len(shards), every):
        meta = shards.meta(index)
        try:
            told = _decoded(shards, index, meta)
        except VidlbcError as error:
            told = str(error)
        if told:
            problems.append(Problem(meta["tar"], meta["key"], told))
        progress(1)
    return problems


def _decoded(shards: Any, index: int, meta: ClipRow) -> str:
    frames = 0
    for block in shards.codec.decompress_stream(shards.bitstream(index)):
        if block.shape[1:3] != (meta["height"], meta["width"]):
            return f"frames of {block.shape[2]}x{block.shape[1]}, recorded {meta['width']}x{meta['height']}"
        frames += len(block)
    return "" if frames == meta["frames"] else f"{frames} frames, recorded {meta['frames']}"
