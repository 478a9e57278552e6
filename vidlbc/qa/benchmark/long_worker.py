"""The process that codes clips of one length, some frames at a time, and says what they cost.

    python -m vidlbc.qa.benchmark.long_worker TASK     TASK: JSON with the fields of `Task`

stdin: a number of frames a line; the process goes on until it has coded that many of its total, then prints a `Sample`
as JSON and waits for the next line. The last sample, of all frames, follows what ends a clip. Needs Linux's /proc.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.errors import VidlbcError

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_IDLE_S = 0.005
_WARM_FRAMES = 100
# Of the main thread, which starts them.
CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children")


@dataclass(frozen=True)
class LongTask:
    """`clips` times a clip of `frames` frames: `video` into `bitstream` (encode), or `bitstream` into nothing."""

    encode: bool
    video: str
    bitstream: str
    frames: int
    clips: int
    model: str
    temporal: str | None
    device: str
    threads: int
    qp: int
    fps: str

    @property
    def total(self) -> int:
        return self.frames * self.clips


@dataclass(frozen=True)
class Sample:
    """After `frames` frames: seconds of this process's processors, of its video decoder's, and of the clock, all
    without the waits; resident MB of both now (memory that they share counts in both), and the most of this one so far.
    """

    frames: int
    cpu_s: float
    reader_cpu_s: float
    wall_s: float
    mb: float
    reader_mb: float
    peak_mb: float


@dataclass
class _Pace:
    """Reports, and waits, at the frames that the parent names."""

    total: int
    frames: int = 0
    _target: int = 0
    _began: tuple[float, float, float] = field(default=(0, 0, 0))

    def start(self) -> None:
        self._began = _clocks()
        self._report()

    def passed(self, frames: int) -> None:
        self.frames += frames
        while self._target <= self.frames < self.total:
            self._report()

    def end(self) -> None:
        self._print()

    def _report(self) -> None:
        stopped = _idle_since()
        self._print(stopped)
        self._target = int(sys.stdin.readline())
        cpu, reader, wall = self._began
        self._began = cpu, reader, wall + time.perf_counter() - stopped

    def _print(self, now: float | None = None) -> None:
        cpu, reader, wall = (late - early for late, early in zip(_clocks(now), self._began, strict=True))
        children = sum(_resident_mb(pid) for pid in _children())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sample = Sample(self.frames, cpu, reader, wall, _resident_mb(os.getpid()), children, peak)
        print(json.dumps(asdict(sample)), flush=True)


def _idle_since() -> float:
    """Waits for the threads that work ahead of the caller: what they do is no part of the pause that follows."""
    while True:
        now, cpu = time.perf_counter(), time.process_time()
        time.sleep(_IDLE_S)
        if time.process_time() - cpu < _IDLE_S / 10:
            return now


def _clocks(now: float | None = None) -> tuple[float, float, float]:
    """Processor seconds of this process and of its children, and the clock's."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(_processor_s(pid) for pid in _children())
    wall = time.perf_counter() if now is None else now
    return time.process_time(), ended.ru_utime + ended.ru_stime + running, wall


def _children() -> list[int]:
    """Processes that this one started and that still run."""
    return [int(pid) for pid in CHILDREN.read_text().split()]


def _processor_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * _TICK_S  # utime and stime of proc(5), which counts from 1


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB
    except OSError:
        return 0.0


def _encode(codec: Any, task: LongTask, pace: _Pace) -> int:
    """Codes one clip as shards do; its bytes."""
    from vidlbc.video import VideoReader

    reader = VideoReader(task.video)

    def blocks() -> Iterator[np.ndarray]:
        for block in reader.blocks():
            yield block
            pace.passed(len(block))

    with open(task.bitstream, "wb") as sink:
        report = codec.compress_stream(blocks(), sink, qp=task.qp, fps=Fraction(task.fps))
    if report.frames != task.frames:
        raise VidlbcError(f"coded {report.frames} of {task.frames} frames: {reader.verdict}")
    return int(report.bytes)


def _decode(codec: Any, task: LongTask, pace: _Pace) -> int:
    """Decodes one clip; the checksum of its pixels."""
    done = checksum = 0
    with open(task.bitstream, "rb") as source:
        for block in codec.decompress_stream(source):
            checksum = zlib.crc32(np.ascontiguousarray(block).data, checksum)
            done += len(block)
            pace.passed(len(block))
    if done != task.frames:
        raise VidlbcError(f"decoded {done} of {task.frames} frames")
    return checksum


def main() -> None:
    import torch

    import vidlbc
    from vidlbc.video import read_blocks

    task = LongTask(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    codec = vidlbc.load(task.model, device=task.device, temporal=task.temporal)
    # Steps of the codec become graphs after some frames (vidlbc/codec/traced.py): that is no cost of a short clip.
    frames = np.concatenate(list(read_blocks(task.video, stop=_WARM_FRAMES)))
    for _ in range(2):
        codec.decompress(codec.compress(frames, qp=task.qp))
    del frames
    pace = _Pace(task.total)
    pace.start()
    results = {(_encode if task.encode else _decode)(codec, task, pace) for _ in range(task.clips)}
    if len(results) > 1:
        raise VidlbcError(f"the same {task.frames} frames gave {len(results)} different results")
    pace.end()


if __name__ == "__main__":
    main()
