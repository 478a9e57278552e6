"""Verify shards: a fresh process, with other threads and batch sizes, must decode the symbols that the sources give."""

import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

import vidlbc
from vidlbc.codec.inputs import pick_device
from vidlbc.errors import InputError
from vidlbc.pipeline.check import require_number
from vidlbc.pipeline.quality import spread
from vidlbc.pipeline.verify import verify
from vidlbc.run.options import option, required
from vidlbc.run.progress import progress_bar
from vidlbc.shards import LatentShards


@dataclass
class Options:
    """See `--help`."""

    input: str = required("folder of shards")
    split: str | None = option(None, "train, val or test; null is everything")
    videos: int | None = option(None, "clips to verify, evenly spread; null is all")
    model: str | None = option(None, "shipped model or model folder; null is what the shards name")
    temporal: str | None = option(None, "transformer, lstm or none; null is what the shards name")
    device: str = option("auto", "auto, cpu or cuda: of this process")
    other_device: str = option("cpu", "cpu or cuda: of the process that decodes")
    other_threads: int = option(1, "threads of the process that decodes")
    other_batch: int = option(3, "clips of equal size that it decodes at once")


def main(config: DictConfig) -> None:
    require_number("other_threads", config.other_threads, 1, whole=True)
    require_number("other_batch", config.other_batch, 1, whole=True)
    if config.videos is not None:
        require_number("videos", config.videos, 1, whole=True)
    pick_device(config.other_device)
    source = Path(config.input)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder (expected a folder of shards)")
    shards = LatentShards(source, config.split)
    if not len(shards):
        raise InputError(f"{source}: holds no clip" + (f" of split {config.split}" if config.split else ""))
    settings = shards.plan.settings
    model = config.model or settings.model
    codec = vidlbc.load(
        model,
        device=config.device,
        temporal=config.temporal or settings.temporal,
        precision=settings.precision,
        effort=settings.effort,
        keyint=settings.keyint,
    )
    indices = list(range(len(shards))) if config.videos is None else spread(shards, config.videos)
    began = time.monotonic()
    print(
        f"decoding {len(indices)} clips in another process: {config.other_device}, {config.other_threads} thread(s), "
        f"up to {config.other_batch} clips at once",
        flush=True,
    )
    with progress_bar(desc="compare", unit="frame", total=sum(shards.meta(i)["frames"] for i in indices)) as meter:
        done = verify(
            shards, codec, model, indices, config.other_threads, config.other_batch, config.other_device, meter.update
        )
    print(
        f"{done.clips} clips, {done.frames} frames, {done.symbols} symbols: 0 differ. "
        f"{done.sources} clips were compared with a new analysis of their source on {codec.device}, "
        f"{done.clips - done.sources} with this process's own decoding. {time.monotonic() - began:.0f} s"
    )
