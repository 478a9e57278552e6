"""The Ray launcher: actors on a cluster, each with the codec in memory, encode shards into a folder that all nodes see.

A node that is lost takes its actors along: their shards are encoded on others, and no file is blamed. An actor whose
process dies alone was killed by the file that it had in hand, as in `launcher=local`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError, ShardError
from vidlbc.run.options import option
from vidlbc.shards.encode import ShardReport, encode_shard, is_done, load_codec
from vidlbc.shards.launchers.run import Job, LoadCodec, plan_at_hand
from vidlbc.shards.launchers.worker_pool import Ending, Worker, encode_with
from vidlbc.shards.sources import OpenReader, open_video


@dataclass(frozen=True)
class RaySettings:
    """`address`: of a cluster; `auto`, one that runs here or that RAY_ADDRESS names, else a new one; None, a new one.

    `cpus`, `gpus` (may be a fraction) and `memory_gb` are what one actor holds; `workers` None: as many as find room.
    """

    address: str | None = option(
        "auto", "of a Ray cluster, HOST:PORT; auto: one at hand, else a new one on this machine; null: a new one"
    )
    workers: int | None = option(
        None, "actors, each with the codec in memory; null: as many as the cluster has room for"
    )
    cpus: float = option(1.0, "CPUs of an actor, and threads of its codec")
    gpus: float = option(0.0, "GPUs of an actor; may be a fraction")
    memory_gb: float | None = option(None, "memory that is reserved for an actor; null: none")

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("cpus", 0), ("gpus", 0), ("memory_gb", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"ray.{name}={value}: expected at least {least}")

    @property
    def resources(self) -> dict[str, float]:
        """Of one actor, in Ray's words."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory_gb or 0) * 2**30}
        return {name: amount for name, amount in wanted.items() if amount}


class RayEngine:
    """Actors on a Ray cluster. `load` and `open_reader` must be importable on every node, as vidlbc must."""

    def __init__(
        self,
        settings: RaySettings,
        device: str = "auto",
        load: LoadCodec = load_codec,
        open_reader: OpenReader = open_video,
    ) -> None:
        self._settings, self._device, self._load, self._open_reader = settings, device, load, open_reader
        require_ray()

    def __call__(self, job: Job) -> Iterator[ShardReport]:
        output = str(Path(job.plan.output).resolve())
        with _connected(self._settings):
            pool = _Actors(self._settings, (output, job.plan.identity, self._device, self._load, self._open_reader))
            for report in encode_with(pool, job.plan, job.todo, job.meter):
                if not is_done(job.plan, report.index):
                    raise ShardError(f"{output}: shard {report.index:05d} was written on another disk of that name")
                yield report


def require_ray() -> Any:
    """The module. Raises InputError, one line, where it is not installed."""
    try:
        import ray
    except ImportError:
        raise InputError("launcher=ray: Ray is not installed; pip install 'vidlbc[ray]'") from None
    return ray


@contextmanager
def _connected(settings: RaySettings) -> Iterator[None]:
    ray = require_ray()
    if ray.is_initialized():  # by whoever calls us; theirs to close
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "WARNING"}
    # Ray reports the use of clusters that it starts to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _answers(settings.address)
        ray.init(address=settings.address or "local", **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        if settings.address != "auto":
            raise InputError(f"ray.address={settings.address}: no Ray cluster answers there ({error})") from None
        ray.init(address="local", **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str | None) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself tries for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class _Actors:
    """A pool of actors. One that finds no room waits for it: a node may come back, or an autoscaler add one."""

    def __init__(self, settings: RaySettings, arguments: tuple[Any, ...]) -> None:
        self._ray, self._arguments = require_ray(), arguments
        wanted = settings.resources
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(min((int(n.get(k, 0) // v) for k, v in wanted.items()), default=1) for n in nodes)
        if not room and settings.workers is None:
            told = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items())
            raise InputError(f"launcher=ray: none of the cluster's {len(nodes)} nodes has {told} for one worker")
        self.size = settings.workers or room
        gpus, memory = wanted.get("GPU", 0), wanted.get("memory")
        actor = self._ray.remote(_Encoder)
        self._actor = actor.options(num_cpus=settings.cpus, num_gpus=gpus, memory=memory, max_restarts=0)

    def start(self) -> Worker:
        return _Actor(self._ray, self._actor.remote(*self._arguments))


class _Actor:
    """The launcher's end of an actor."""

    def __init__(self, ray: Any, handle: Any) -> None:
        self._ray, self._handle = ray, handle
        self._node: Future[str] = handle.ready.remote().future()

    def ready(self) -> Future[Any]:
        return self._node

    def encode(self, index: int, quarantined: Sequence[int], lanes: int | None) -> Future[ShardReport]:
        future: Future[ShardReport] = self._handle.encode.remote(index, quarantined, lanes).future()
        return future

    def ending(self, error: BaseException) -> Ending | BaseException:
        from ray import exceptions

        if isinstance(error, exceptions.RayTaskError):
            return error.cause  # as it was raised, without the trace in its text
        if isinstance(error, exceptions.ActorUnavailableError | exceptions.ObjectLostError):
            return Ending.LOST  # the connection broke: its node is gone, though the cluster may not know yet
        if isinstance(error, exceptions.RayActorError):
            return Ending.DIED if self._node_lives() else Ending.LOST
        return error

    def _node_lives(self) -> bool:
        if not self._node.done() or self._node.exception():
            return True  # it died before it was ready: no file can be blamed either way
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        return self._node.result() in alive

    def stop(self) -> None:
        self._ray.kill(self._handle)


class _Encoder:
    """The actor: holds the codec."""

    def __init__(self, output: str, identity: str, device: str, load: LoadCodec, open_reader: OpenReader) -> None:
        self._output, self._identity, self._device = output, identity, device
        self._load, self._open_reader = load, open_reader

    def ready(self) -> str:
        """Load the codec; returns the node's id."""
        import ray

        self._plan = plan_at_hand(self._output)
        if self._plan.identity != self._identity:
            raise ShardError(f"{self._output}: holds another plan on one of the nodes; all must see the same folder")
        self._codec = self._load(self._plan, self._device)
        context = ray.get_runtime_context()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))
        return str(context.get_node_id())

    def encode(self, index: int, quarantined: Sequence[int], lanes: int | None) -> ShardReport:
        reader = self._open_reader
        return encode_shard(self._plan, index, self._codec, open_reader=reader, quarantined=quarantined, lanes=lanes)
