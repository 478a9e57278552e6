"""Measured beside a training: do two devices code alike, how fast are they, what does bf16 cost.

    clips --encoder on A--> bitstreams --decoder on B--> symbols, compared one by one with A's; and the other way round

The decoder takes every clip twice in one batch, so that its batch size is never the encoder's. Where there is one
device alone, the second is the same with other threads; the figures then say nothing of a GPU.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidlbc.codec.codec import Codec
from vidlbc.codec.inputs import pick_device
from vidlbc.codec.load import load
from vidlbc.errors import InputError, VideoError, VidlbcError
from vidlbc.evaluate.rate_distortion.clips import find_clips
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table
from vidlbc.video.distortion import psnr

Clips = dict[str, np.ndarray]


@dataclass(frozen=True)
class Side:
    """Where one of the two codecs runs. `threads`: of torch."""

    device: str
    threads: int

    def __str__(self) -> str:
        return self.device if self.device != "cpu" else f"cpu, {self.threads} threads"


@dataclass(frozen=True)
class Symbols:
    """`differing` of `symbols`, and the first clip in which some differ."""

    encoder: str
    decoder: str
    clips: int
    symbols: int
    differing: int
    first: str | None


@dataclass(frozen=True)
class Speed:
    """Frames a second of a whole clip, the median of `rounds`; frames of `height` x `width`."""

    where: str
    precision: str
    frames: int
    height: int
    width: int
    encode: float
    decode: float


@dataclass(frozen=True)
class Precision:
    """Of all clips at one QP: bits a pixel and PSNR with the analysis and synthesis in that precision."""

    precision: str
    qp: int
    bpp: float
    psnr: float


def sides(device: str) -> tuple[Side, Side]:
    """The device against the CPU; a CPU against itself with another number of threads."""
    threads = torch.get_num_threads()
    if device == "cpu":
        return Side("cpu", threads), Side("cpu", threads + 1 if threads < 2 else threads - 1)
    return Side("cpu", threads), Side(device, threads)


def read_clips(folder: Path, count: int, frames: int) -> Clips:
    """The first `frames` of `count` clips, evenly spread. Raises InputError where there is none to read."""
    found = find_clips(folder)
    chosen = sorted({round(index) for index in np.linspace(0, len(found) - 1, min(count, len(found)))})
    clips = {}
    for index in chosen:
        try:
            clips[found[index].name] = found[index].read(frames).frames[:frames]
        except (InputError, VideoError):
            continue  # one that cannot be read here; the count of clips is told
    if not clips:
        raise InputError(f"data={folder}: none of {len(chosen)} clips can be read")
    return clips


@dataclass(frozen=True)
class MeasureSettings:
    """`what`: symbols, speeds, precisions; the others as in vidlbc.commands.offline."""

    model: str
    temporal: str | None
    data: Path
    out: Path
    device: str
    qps: tuple[int, ...]
    clips: int
    frames: int
    what: tuple[str, ...]


def measure_all(settings: MeasureSettings) -> dict[str, Any]:
    """Writes OUT/metrics.json after each part, so that what was measured is there when its time is over."""
    if unknown := set(settings.what) - {"symbols", "speeds", "precisions"}:
        raise InputError(f"what={sorted(unknown)[0]}: expected symbols, speeds, precisions")
    if not settings.qps or settings.clips < 1 or settings.frames < 1:
        raise InputError("expected at least one of qps, clips and frames")
    pair = sides(str(pick_device(settings.device)))
    clips = read_clips(settings.data, settings.clips, settings.frames)
    model, kind, middle = settings.model, settings.temporal, settings.qps[len(settings.qps) // 2]
    found: dict[str, Any] = {"devices": [str(side) for side in pair], "clips": len(clips)}
    longest = max(clips.values(), key=len)
    for what in settings.what:
        if what == "symbols":
            found[what] = [asdict(one) for one in both_ways(model, kind, clips, settings.qps, pair)]
        elif what == "speeds":
            found[what] = [asdict(speed(model, kind, longest, middle, pair[1], p)) for p in ("fp32", "bf16")]
        else:
            found[what] = [asdict(one) for one in precisions(model, kind, clips, settings.qps, pair[1])]
        write_atomic(settings.out / "metrics.json", dump_json(found, indent=1))
    return found


def table(found: Mapping[str, Any]) -> str:
    """All parts, one below the other."""
    parts = [f"{found['clips']} clips on {' and '.join(found['devices'])}"]
    for what in ("symbols", "speeds", "precisions"):
        if rows := found.get(what):
            parts.append(format_table([list(row.values()) for row in rows], list(rows[0])))
    return "\n\n".join(parts)


@contextmanager
def _on(side: Side) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(side.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _codec(model: str, side: Side, temporal: str | None, precision: str = "fp32") -> Codec:
    with _on(side):  # which reads the number of threads when it is built
        return load(model, side.device, temporal, precision)


def both_ways(
    model: str, temporal: str | None, clips: Clips, qps: Sequence[int], pair: tuple[Side, Side]
) -> list[Symbols]:
    """One result for each direction. A clip that the other side refuses counts with all its symbols."""
    codecs = [_codec(model, side, temporal) for side in pair]
    return [_one_way(pair, codecs, clips, qps, way) for way in ((0, 1), (1, 0))]


def _one_way(
    pair: tuple[Side, Side], codecs: Sequence[Codec], clips: Clips, qps: Sequence[int], way: tuple[int, int]
) -> Symbols:
    encoder, decoder = (codecs[index] for index in way)
    total = differing = 0
    first = None
    for number, (name, frames) in enumerate(clips.items()):
        qp, (height, width) = qps[number % len(qps)], frames.shape[1:3]
        with _on(pair[way[0]]):
            symbols = encoder.analyse(frames, qp)
            data, _ = encoder.compress_symbols(symbols, qp, height, width)
            wanted = [level.cpu() for level in encoder.unpadded(symbols, height, width)]
        count = sum(level.numel() for level in wanted)
        try:
            with _on(pair[way[1]]):
                found = decoder.symbols([data, data])
            wrong = max(
                sum(int((a.cpu() != b[row].cpu()).sum()) for a, b in zip(wanted, found, strict=True)) for row in (0, 1)
            )
        except VidlbcError:
            wrong = count
        total, differing = total + count, differing + wrong
        first = name if wrong and first is None else first
    return Symbols(str(pair[way[0]]), str(pair[way[1]]), len(clips), total, differing, first)


def speed(
    model: str, temporal: str | None, frames: np.ndarray, qp: int, side: Side, precision: str, rounds: int = 3
) -> Speed:
    """Of one clip, uint8 (T, H, W, 3); the first round, which compiles and allocates, is left out."""
    codec = _codec(model, side, temporal, precision)
    times = []
    with _on(side):
        for _ in range(rounds + 1):
            began = time.perf_counter()
            data = codec.compress(frames, qp)
            encoded = time.perf_counter()
            codec.decompress(data)
            times.append((encoded - began, time.perf_counter() - encoded))
    encode, decode = (float(len(frames) / np.median(column)) for column in zip(*times[1:], strict=True))
    count, height, width = frames.shape[:3]
    return Speed(str(side), precision, count, height, width, encode, decode)


def precisions(model: str, temporal: str | None, clips: Clips, qps: Sequence[int], side: Side) -> list[Precision]:
    """fp32 against bf16 of analysis and synthesis, at each QP, over all clips."""
    results = []
    for precision in ("fp32", "bf16"):
        codec = _codec(model, side, temporal, precision)
        for qp in qps:
            rows = []
            for frames in clips.values():
                data = codec.compress(frames, qp)
                pixels = frames.shape[0] * frames.shape[1] * frames.shape[2]
                rows.append((8 * len(data) / pixels, float(np.mean(psnr(codec.decompress(data), frames)))))
            bpp, quality = (float(value) for value in np.mean(rows, axis=0))
            results.append(Precision(precision, qp, bpp, quality))
    return results
