"""A codec and a reader, fast and exact, for tests of the machinery around them. Spawned processes import this.

A fake video is a text file `frames height width seed [damaged_at]`; the fake codec stores frames with zlib. To
`open_hostile`, a file `deadly` kills whatever process opens it, and `hangs` holds its decoder for ever.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

from vidlbc.errors import BitstreamError, InputError
from vidlbc.run.stage_clock import StageClock
from vidlbc.shards import EncodingSettings, Plan, PlannedFile, encode_task


@dataclass(frozen=True)
class FakeReport:
    frames: int
    bytes: int
    estimated_bits: float
    height: int
    width: int
    qp: int
    variant: None = None
    base_bytes: None = None


class FakeCodec:
    """zlib per frame. `log` gets a line per clip begun; `delay` seconds per frame give a killer time to strike."""

    def __init__(
        self, fingerprint: str = "f" * 32, log: Path | None = None, delay: float = 0.0, lanes: int = 1
    ) -> None:
        self.fingerprint = fingerprint
        self.log = log
        self.delay = delay
        self.largest_block = 0
        self.clock = StageClock()
        self.lanes = lanes

    def compress_stream(
        self,
        blocks: Iterable[np.ndarray],
        sink: BinaryIO,
        qp: int = 32,
        **options: Any,
    ) -> FakeReport:
        sizes, shape = [], (0, 0)
        if self.log:
            with open(self.log, "a") as log:
                log.write(f"clip {os.getpid()}\n")
        for block in blocks:
            self.largest_block = max(self.largest_block, len(block))
            for frame in block:
                if min(frame.shape[:2]) < 16:
                    raise InputError(f"{frame.shape[1]}x{frame.shape[0]} pixels: expected at least 16x16")
                shape = frame.shape[:2]
                data = zlib.compress(bytes([qp]) + frame.tobytes(), 1)
                sink.write(len(data).to_bytes(4, "little") + data)
                sizes.append(len(data) + 4)
                time.sleep(self.delay)
        sink.write(json.dumps([len(sizes), *shape]).encode().rjust(64))
        return FakeReport(len(sizes), sum(sizes) + 64, 8.0 * sum(sizes) + 0.25, *shape, qp)

    def compress_to_target(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def decompress_stream(self, source: bytes) -> Iterator[np.ndarray]:
        try:
            frames, height, width = json.loads(source[-64:])
        except ValueError:
            raise BitstreamError("not a fake bitstream") from None
        at = 0
        for _ in range(frames):
            size = int.from_bytes(source[at : at + 4], "little")
            raw = zlib.decompress(source[at + 4 : at + 4 + size])[1:]
            at += 4 + size
            yield np.frombuffer(raw, np.uint8).reshape(1, height, width, 3)

    def decompress(self, data: bytes) -> np.ndarray:
        return np.concatenate(list(self.decompress_stream(data)))

    def symbols(self, data: bytes) -> list[Any]:
        import torch

        frames = torch.from_numpy(self.decompress(data).astype(np.int32)).permute(0, 3, 1, 2)
        return [frames[:, :, ::stride, ::stride] for stride in (4, 8)]

    def latents(self, data: bytes) -> list[Any]:
        return [level.float() / 2 for level in self.symbols(data)]


class FakeReader:
    def __init__(self, path: Path, source: PlannedFile, settings: EncodingSettings) -> None:
        self.path, self.start, self.stop, self.block = path, source.start or 0, source.stop, settings.block
        self.info: Any = None
        self.spent = 0.0
        self.verdict: Any = None

    def blocks(self) -> Iterator[np.ndarray]:
        try:
            frames, height, width, seed, *damaged = (int(word) for word in self.path.read_text().split())
        except ValueError:
            self.verdict = _verdict("unreadable", 0, "not a fake\nvideo")
            return
        self.info = SimpleNamespace(fps=Fraction(30000, 1001))
        video = fake_frames(frames, height, width, seed)
        end = min([frames, *damaged])
        stop = min(end, self.stop or end)
        for low in range(self.start, stop, self.block):
            yield video[low : min(stop, low + self.block)]
        self.verdict = _verdict("damaged", end, "bits flipped") if damaged else _verdict("ok", end, "")


def open_hostile(path: Path, source: PlannedFile, settings: EncodingSettings) -> Any:
    """A fake video as ever; but see above."""
    text = path.read_text()
    if text == "deadly":
        # In this thread, as a crash is: sent to the process, it may reach another one first, and this one goes on.
        signal.raise_signal(signal.SIGSEGV)
    if text != "hangs":
        return FakeReader(path, source, settings)
    from vidlbc.video import VideoReader

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "video"))  # decoder processes inherit it
    return VideoReader(path, backend="misbehaving:HoldsTheLock", block=settings.block, deadline_s=settings.deadline_s)


@dataclass(frozen=True)
class FakeVerdict:
    status: str
    frames: int
    reason: str
    backend: str
    backend_version: str

    def __str__(self) -> str:
        return "ok" if self.status == "ok" else f"{self.status} ({self.frames} frames): {self.reason}"


def _verdict(status: str, frames: int, reason: str) -> FakeVerdict:
    return FakeVerdict(status, frames, reason, "fake", "1")


def fake_frames(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """What a fake video holds: uint8 (frames, height, width, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def load_fake(plan: Plan, device: str) -> FakeCodec:
    """The `load` of spawned workers."""
    log, delay, lanes = (os.environ.get(f"FAKE_CODEC_{name}") for name in ("LOG", "DELAY", "LANES"))
    return FakeCodec(plan.fingerprint, Path(log) if log else None, float(delay or 0), int(lanes or 1))


def run_slow_task(output: str) -> None:
    """Task 0 of the array over `output`, with a line in `log` beside it for each clip."""
    os.environ.update(FAKE_CODEC_LOG=str(Path(output).parent / "log"), FAKE_CODEC_DELAY="0.02")
    encode_task(output, 0, load=load_fake, open_reader=FakeReader, bar=False)


def load_dying(plan: Plan, device: str) -> FakeCodec:
    """A codec whose process is shot when it starts a clip, as the kernel does when memory runs out."""

    class Dying(FakeCodec):
        def compress_stream(self, *args: Any, **kwargs: Any) -> FakeReport:
            os.kill(os.getpid(), 9)
            raise AssertionError

    return Dying(plan.fingerprint)


if __name__ == "__main__":  # python -m tests.shards.fakes CORPUS OUT PROCESSES: one encoding run, to be killed
    from vidlbc.shards import encode_corpus, make_plan, read_annotations

    root, out, processes = sys.argv[1:]
    settings = EncodingSettings(clip_frames=5, block=2, deadline_s=2.0)
    plan = make_plan(read_annotations(root), out, FakeCodec(), settings, shard_videos=3)
    encode_corpus(plan, processes=int(processes), load=load_fake, open_reader=open_hostile, bar=False)
