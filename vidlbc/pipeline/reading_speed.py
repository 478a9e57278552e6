"""Clips a second that a training could read: latents from shards beside decoding the videos. One thread each.

Readers take turns, so that a machine whose speed moves moves for all; medians over the rounds after one that is not
counted. Nothing is scaled after decoding: a training on smaller frames would read the files more slowly than is said.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.codec.codec import Codec
from vidlbc.data.content import local_file
from vidlbc.evaluate.codecs import VideoCodec
from vidlbc.evaluate.codecs.equal_bytes import X264_FPS, nearest
from vidlbc.evaluate.probe.fit import one_thread
from vidlbc.pipeline.quality import spread
from vidlbc.pipeline.sources import source_frames
from vidlbc.run.progress import progress_bar
from vidlbc.shards import LatentShards

Read = Callable[[int], int]  # a clip's place to how many frames were decoded


def reading_speed(
    shard_folder: Path, codecs: Mapping[str, Codec], split: str | None, clips: int, rounds: int
) -> list[dict[str, Any]]:
    """Up to `clips` clips of `split`, evenly spread. `shard_folder`: of the first of the `codecs`.

    A row a reader: `reader`, `clips_per_s`, `frames_per_s` (of the frames that it decodes), `bytes` (mean of a clip).
    """
    with tempfile.TemporaryDirectory(prefix="vidlbc-") as folder, one_thread():
        shards = LatentShards(shard_folder, split, codec=next(iter(codecs.values())))
        chosen = spread(shards, clips)
        readers = _of_shards(shards, codecs, chosen, Path(folder) / "symbols")
        readers["decoded frames, x264 at the same bytes"] = _x264(shards, chosen)
        readers |= _of_files(shards, chosen, Path(folder))
        rates: dict[str, list[float]] = {name: [] for name in readers}
        frames: dict[str, int] = {}
        for turn in progress_bar(range(rounds + 1), desc="reading speed", unit="round"):
            for name, (read, _) in readers.items():
                began = time.perf_counter()
                frames[name] = sum(read(place) for place in range(len(chosen)))
                if turn:
                    rates[name].append(len(chosen) / (time.perf_counter() - began))
    return [
        {
            "reader": name,
            "clips_per_s": (rate := statistics.median(rates[name])),
            "frames_per_s": rate * frames[name] / len(chosen),
            "bytes": float(np.mean(sizes)),
            "clips": len(chosen),
        }
        for name, (_, sizes) in readers.items()
    ]


def _of_shards(
    shards: LatentShards, codecs: Mapping[str, Codec], chosen: Sequence[int], cache: Path
) -> dict[str, tuple[Read, list[int]]]:
    """Latents of every kind and frames of the first one, out of the folder; other kinds' bitstreams are transcoded
    before and lie in memory. The round that is not counted fills the cache of symbols."""
    first, *others = codecs
    latents = LatentShards(shards.folder, shards.split, "latents", codecs[first])
    kept = LatentShards(shards.folder, shards.split, "latents", codecs[first], cache=cache)
    frames = LatentShards(shards.folder, shards.split, "frames", codecs[first])
    stored = [shards.bitstream(index) for index in chosen]
    found: dict[str, tuple[Read, list[int]]] = {
        f"latents, {first}": (lambda place: len(latents[chosen[place]]["latents"][0]), list(map(len, stored)))
    }
    found[f"latents, {first}, later epochs (symbols cached)"] = (
        (lambda place: len(kept[chosen[place]]["latents"][0])),
        list(map(len, stored)),
    )
    for kind in others:
        coded = [codecs[first].transcode(data, codecs[kind])[0] for data in stored]
        found[f"latents, {kind}"] = _in_memory(codecs[kind], coded)
    found[f"decoded frames, {first}"] = (lambda place: len(frames[chosen[place]]["frames"]), list(map(len, stored)))
    return found


def _in_memory(codec: Codec, coded: Sequence[bytes]) -> tuple[Read, list[int]]:
    return (lambda place: len(codec.latents(coded[place])[0])), list(map(len, coded))


def _x264(shards: LatentShards, chosen: Sequence[int]) -> tuple[Read, list[int]]:
    x264, coded = VideoCodec("x264"), list[bytes]()
    for index in chosen:
        meta = shards.meta(index)
        coded += nearest(x264, [source_frames(shards, meta)], meta["bytes"], X264_FPS)[1]
    return (lambda place: _pyav(io.BytesIO(coded[place]), "h264")), list(map(len, coded))


def _of_files(shards: LatentShards, chosen: Sequence[int], folder: Path) -> dict[str, tuple[Read, list[int]]]:
    """Whole source files, by PyAV and by decord. A back end that fails on one of them is left out, with a line."""
    files = []
    for place, index in enumerate(chosen):
        meta = shards.meta(index)
        with local_file(shards.root_of(meta), meta["source"], folder / str(place)) as file:
            data = file.read_bytes()
        files.append(folder / f"{place}{file.suffix}")
        files[-1].write_bytes(data)
    sizes = [file.stat().st_size for file in files]
    found: dict[str, tuple[Read, list[int]]] = {}
    for name, decode in (("PyAV", _pyav), ("decord", _decord)):
        try:
            for file in files:
                decode(file)
        except Exception as error:  # noqa: BLE001  # whatever a decoder raises
            print(f"left out: source files by {name}: {' '.join(str(error).split())[:160]}", file=sys.stderr)
            continue
        found[f"source files, {name}"] = partial(_nth, decode, files), sizes
    return found


def _nth(decode: Callable[[Path], int], files: Sequence[Path], place: int) -> int:
    return decode(files[place])


def _pyav(source: Path | io.BytesIO, form: str | None = None) -> int:
    import av

    with av.open(str(source) if isinstance(source, Path) else source, "r", format=form) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return sum(len(frame.to_ndarray(format="rgb24")) > 0 for frame in container.decode(stream))


def _decord(file: Path) -> int:
    import decord

    reader = decord.VideoReader(str(file), num_threads=1)
    return len(reader.get_batch(range(len(reader))).asnumpy())
