"""What an encoding run would take, from a few of its files: told before anything is hashed, encoded or written."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidlbc.codec.bitstream.rates import beside_sources
from vidlbc.codec.codec import Codec
from vidlbc.codec.options import Options
from vidlbc.codec.rate_control import Target
from vidlbc.data.content import local_file
from vidlbc.data.corpus import Corpus, locate
from vidlbc.errors import VideoError
from vidlbc.shards.settings import EncodingSettings
from vidlbc.video import VideoReader, probe

_PROBED, _CODED, _FRAMES = 8, 2, 16


@dataclass(frozen=True)
class Forecast:
    """`files`: of the corpus, `source_bytes` on disk; `frames` to code; the rest of coding them, all but `files` about.

    `seconds`: of one process. `qp`: None where each clip has its own. `unread`: of those looked at, why
    they could not be read.
    """

    files: int
    source_bytes: int
    looked_at: int
    unread: tuple[str, ...]
    frames: int
    size: str
    shard_bytes: int
    seconds: float
    qp: int | None = None

    def told(self, processes: int = 1) -> str:
        """Lines for people."""
        mb, of = self.shard_bytes / 1e6, self.source_bytes / 1e6
        lines = [f"{self.files} files, {of:.1f} MB; {self.looked_at} of them looked at"]
        lines += [f"  not readable: {text}" for text in self.unread]
        if self.frames:
            rate = self.frames / self.seconds * processes
            here = "one process" if processes == 1 else f"{processes} processes"
            lines += [
                f"about {self.frames:,} frames to code, {self.size}",
                f"shards: about {mb:.1f} MB, {beside_sources(self.shard_bytes, self.source_bytes, self.qp)}",
                f"time: about {_span(self.seconds / processes)} at {rate:.1f} frames/s, {here} here",
            ]
        return "\n".join([*lines, "nothing was hashed, encoded or written: plan=true only tells"])


def forecast(corpus: Corpus, codec: Codec, settings: EncodingSettings) -> Forecast:
    """From the headers of a few files, evenly spread, and the first frames of some, coded here and thrown away."""
    paths = list(dict.fromkeys(item.path for item in corpus.items))
    archives = {locate(corpus.root, path)[0] for path in paths}
    chosen = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(_PROBED, len(paths)))]
    counts: list[float] = []
    sizes: list[str] = []
    unread: list[str] = []
    coded: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="vidlbc-") as scratch:
        for path in chosen:
            try:
                with local_file(corpus.root, path, Path(scratch) / "file") as file:
                    info = probe(file, settings.backend, settings.deadline_s)
                    claimed = info.frames or (info.duration or 0.0) * float(info.fps)
                    counts.append(max(1.0, claimed / settings.step))
                    sizes.append(f"{info.width}x{info.height}")
                    if len(coded) < _CODED:
                        coded.append(_cost(_first_frames(file, settings), codec, settings, float(info.fps)))
            except VideoError as error:
                unread.append(str(error))
    frames = round(statistics.fmean(counts) * len(paths)) if counts else 0
    seconds, size = (statistics.fmean(values) for values in zip(*coded, strict=True)) if coded else (0.0, 0.0)
    return Forecast(
        len(paths),
        sum(file.stat().st_size for file in archives if file.is_file()),
        len(chosen),
        tuple(unread),
        frames,
        _sizes(sizes),
        round(size * frames),
        seconds * frames,
        settings.qp if settings.target is None else None,
    )


def held_out(share: float) -> str:
    """Of a corpus without splits: whose they are is known once every file was hashed."""
    return f"{share:.0%} would be held out as test, by group; who, their content decides"


def _first_frames(file: Path, settings: EncodingSettings) -> np.ndarray:
    stop = _FRAMES * settings.step
    reader = VideoReader(
        file,
        stop=stop,
        max_side=settings.max_side,
        backend=settings.backend,
        deadline_s=settings.deadline_s,
        deinterlace=settings.deinterlace,
        picture_fps=settings.picture_fps,
    )
    blocks = list(reader.blocks())
    if not blocks:
        raise VideoError(f"{file}: {reader.verdict}")
    return np.concatenate(blocks)[:: settings.step]


def _cost(frames: np.ndarray, codec: Codec, settings: EncodingSettings, fps: float) -> tuple[float, float]:
    """Seconds and bytes of a frame. The first frames of a network's life are slower: they are coded once before."""
    options = Options(context=settings.context, fps=fps or 25.0, variant=settings.variant, rdo=settings.rdo)
    codec.compress(frames[:2], settings.qp, **options)
    began = time.perf_counter()
    sink = io.BytesIO()
    if settings.target is None:
        size = codec.compress_stream([frames], sink, settings.qp, **options).bytes
    else:
        size = codec.compress_to_target(frames, sink, Target(*settings.target), **options).bytes
    return (time.perf_counter() - began) / len(frames), size / len(frames)


def _sizes(sizes: Sequence[str]) -> str:
    different = list(dict.fromkeys(sizes))
    return ", ".join(different[:3]) + (", ..." if len(different) > 3 else "")


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
