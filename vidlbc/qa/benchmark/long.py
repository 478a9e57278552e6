"""Does a frame cost more in a long clip than in a short one, and does memory grow? One bitstream a clip, up to an hour.

    a loop of 100 frames, repeated --> mp4 of each length --encoding processes--> bitstreams --decoding processes-->

Every length has a process of its own, fresh and warm, for each direction. They take turns, a hundredth of their frames
each, so that what else the machine does hits all lengths alike; short clips are coded again and again, until they are
a twentieth of the longest. What is compared is processor time: it changes least with the machine's load.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import IO

import numpy as np

from vidlbc.errors import InputError, VidlbcError
from vidlbc.qa.benchmark.clip import generated_clip, read_clip
from vidlbc.qa.benchmark.long_worker import CHILDREN, LongTask, Sample

LOOP_FRAMES = 100
FPS = Fraction(250, 9)  # 100,000 frames are an hour
EARLY_FRAMES = 1000  # memory is compared from here on: by then every buffer and graph is there
_TURNS = 100
_SHARE = 20
_WINDOW = 0.1


@dataclass(frozen=True)
class LongSettings:
    """`frames`: lengths of clips, ascending; `clip`: a video whose first frames are the loop, None: a generated one."""

    frames: Sequence[int]
    size: int
    clip: str | None
    model: str
    temporal: str | None
    device: str
    threads: int
    qp: int

    def __post_init__(self) -> None:
        """Raises InputError."""
        lengths = list(self.frames)
        if not lengths or any(not isinstance(n, int) or n < 1 for n in lengths) or lengths != sorted(set(lengths)):
            raise InputError(f"long_frames={lengths}: expected ascending numbers of frames, at least 1")
        if self.size < 16 or self.size % 2:
            raise InputError(f"long_size={self.size}: expected an even number of pixels, at least 16")
        if not CHILDREN.exists():
            raise InputError(f"{CHILDREN}: no such file: the long benchmark measures on Linux only")

    def clips(self, frames: int) -> int:
        """How often a clip of that length is coded."""
        return max(1, max(self.frames) // _SHARE // frames)

    @property
    def total(self) -> int:
        """Frames that are coded in each direction."""
        return sum(frames * self.clips(frames) for frames in self.frames)


@dataclass(frozen=True)
class LongRun:
    """All samples of the process that coded one length in one direction: the first is of the warm process."""

    frames: int
    clips: int
    samples: list[Sample]

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds a frame; encoding includes decoding the video."""
        return self._per_frame(self.samples[-1].cpu_s + self.samples[-1].reader_cpu_s)

    @property
    def wall_ms(self) -> float:
        return self._per_frame(self.samples[-1].wall_s)

    @property
    def mb(self) -> float:
        """Resident at the end, with the video decoder's process."""
        return self.samples[-1].mb + self.samples[-1].reader_mb

    @property
    def slices(self) -> list[tuple[int, float]]:
        """(frames until then, processor milliseconds a frame) of each turn."""
        pairs = [(a, b) for a, b in zip(self.samples, self.samples[1:], strict=False) if b.frames > a.frames]
        return [
            (b.frames, 1000 * (b.cpu_s + b.reader_cpu_s - a.cpu_s - a.reader_cpu_s) / (b.frames - a.frames))
            for a, b in pairs
        ]

    def drift(self) -> float:
        """Median cost of the last tenth of the turns over that of the first tenth."""
        costs = [cost for _, cost in self.slices]
        tenth = max(1, round(_WINDOW * len(costs)))
        return median(costs[-tenth:]) / median(costs[:tenth])

    def growth(self, frames: int) -> float:
        """Memory at the end over that after the first `frames` frames."""
        early = next(sample for sample in self.samples if sample.frames >= min(frames, self.samples[-1].frames))
        return self.mb / (early.mb + early.reader_mb)

    def _per_frame(self, seconds: float) -> float:
        return 1000 * seconds / self.samples[-1].frames


@dataclass(frozen=True)
class Container:
    """The longest bitstream without its weights: milliseconds to open it, and to check every packet of it."""

    bytes: int
    frames: int
    open_ms: float
    inspect_ms: float


@dataclass(frozen=True)
class LongFigures:
    """Runs by length, shortest first."""

    encode: list[LongRun]
    decode: list[LongRun]
    container: Container


def measure_long(settings: LongSettings, progress: Callable[[int], object] = lambda frames: None) -> LongFigures:
    """Make the videos, encode and decode them; `progress` is told of frames that were coded, `settings.total` twice.

    Raises InputError for a clip too short or small, VidlbcError where a process fails or frames are lost.
    """
    loop = (
        read_clip(Path(settings.clip), LOOP_FRAMES, settings.size)
        if settings.clip
        else np.stack(list(generated_clip(LOOP_FRAMES, settings.size)))
    )
    with tempfile.TemporaryDirectory(prefix="vidlbc-long-") as folder:
        for frames in settings.frames:
            write_loop(Path(folder) / f"{frames}.mp4", loop, frames)
        encode = _run(settings, Path(folder), True, progress)
        decode = _run(settings, Path(folder), False, progress)
        return LongFigures(encode, decode, _container(Path(folder) / f"{settings.frames[-1]}.vlbc"))


def write_loop(path: Path, loop: np.ndarray, frames: int) -> None:
    """An H.264 video of `frames` frames: uint8 (n, H, W, 3), again and again."""
    from vidlbc.video import write_mp4

    write_mp4(path, islice(cycle(loop), frames), FPS)


def _run(settings: LongSettings, folder: Path, encode: bool, progress: Callable[[int], object]) -> list[LongRun]:
    """All lengths in one direction, in turns."""
    tasks = [
        LongTask(
            encode,
            str(folder / f"{frames}.mp4"),
            str(folder / f"{frames}.vlbc"),
            frames,
            settings.clips(frames),
            settings.model,
            settings.temporal,
            settings.device,
            settings.threads,
            settings.qp,
            str(FPS),
        )
        for frames in settings.frames
    ]
    workers: list[_Worker] = []
    try:
        # One after another: so many models at once would slow each other's start.
        for task in tasks:
            workers.append(_Worker(task))
            workers[-1].sample()
        for turn in range(1, _TURNS + 1):
            for worker in workers:
                before = worker.samples[-1].frames
                worker.go(-(-worker.task.total * turn // _TURNS))
                progress(worker.samples[-1].frames - before)
        return [LongRun(w.task.frames, w.task.clips, w.samples) for w in workers]
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """One process, from outside."""

    def __init__(self, task: LongTask) -> None:
        self.task = task
        self.samples: list[Sample] = []
        self._errors = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "vidlbc.qa.benchmark.long_worker", json.dumps(asdict(task))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)

    def go(self, frames: int) -> None:
        """Let it code until `frames` of its total are done."""
        if self.samples[-1].frames >= frames:
            return
        with contextlib.suppress(BrokenPipeError):  # a process that has failed says why in what follows
            print(frames, file=self._stream(self._process.stdin), flush=True)
        self.sample()

    def sample(self) -> None:
        """Wait for the next. Raises VidlbcError with the process's last line where there is none."""
        line = self._stream(self._process.stdout).readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
            way = "encoding" if self.task.encode else "decoding"
            raise VidlbcError(f"{way} {self.task.frames} frames failed: {words[-1]}")
        self.samples.append(Sample(**json.loads(line)))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                self._stream(stream).close()
        self._errors.close()

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


def _container(path: Path) -> Container:
    from vidlbc.codec.bitstream import Reader, inspect

    with open(path, "rb") as source:
        began = time.perf_counter()
        Reader(source)
        opened = time.perf_counter()
        source.seek(0)
        info = inspect(source)
        ended = time.perf_counter()
    return Container(info.bytes, info.frames, 1000 * (opened - began), 1000 * (ended - opened))
