"""Each stage of encoding alone, and the whole of it: the same videos, the same cores, in turn.

    videos --decoding--> frames --image stage--> symbols --temporal stage--> parameters --range coder--> bytes --> tar
    videos -------------------------------- encode_corpus --------------------------------------------------> shards

A stage alone has all cores to itself and its input in memory. On a CPU the stages share the cores, so that the whole
cannot come near the slowest one alone: what it can reach is the bound, all of them one after another.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from vidlbc.codec.codec import Codec
from vidlbc.codec.coding import PACKET_FRAMES
from vidlbc.codec.coding.encoding import CodedFrame, coded_frames
from vidlbc.codec.entropy import coder
from vidlbc.codec.options import CodingOptions
from vidlbc.errors import InputError
from vidlbc.qa.benchmark.clip import generated_clip
from vidlbc.run.stage_clock import stage_table
from vidlbc.shards import EncodingSettings, LatentShards, encode_corpus, make_plan, read_annotations
from vidlbc.shards.writer import member
from vidlbc.video import VideoReader, write_mp4

WHOLE, WHOLE_RDO = "the whole", "the whole, rdo"
_ON_DEVICE = ("image stage", "temporal stage")


@dataclass(frozen=True)
class StageSpeed:
    """Frames a second of one stage alone, or of the whole."""

    name: str
    fps: float


@dataclass(frozen=True)
class PipelineFigures:
    """`stages` alone and `whole` (with rounded symbols, then with chosen ones), medians over rounds.

    `bound`: frames a second that the stages allow together, those of one processor one after another. `table`: where
    the time of the first whole run went.
    """

    frames: int
    pixels: int
    stages: list[StageSpeed]
    whole: list[StageSpeed]
    bound: float
    table: str

    @property
    def slowest(self) -> StageSpeed:
        return min(self.stages, key=lambda stage: stage.fps)


def generated_videos(folder: Path, videos: int, frames: int, size: int) -> Path:
    """Scenes as mp4 files, each another."""
    folder.mkdir()
    for seed in range(videos):
        write_mp4(folder / f"{seed:02d}.mp4", generated_clip(frames, size, seed), 25)
    return folder


def measure_pipeline(
    codec: Codec,
    videos: Path,
    qp: int,
    threads: int,
    rounds: int,
    max_side: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PipelineFigures:
    """Time every stage and the whole `rounds` times over the videos of a folder, after one time that is not counted.

    Raises InputError where one of them cannot be read to its end.
    """
    settings = EncodingSettings(qp=qp, temporal=codec.kind, max_side=max_side)
    workers = ThreadPoolExecutor(threads, "bench", torch.set_num_threads, (1,))
    with tempfile.TemporaryDirectory(prefix="vidlbc-") as temporary, workers as pool:
        work = Path(temporary)
        corpus = read_annotations(videos)
        files = [Path(corpus.root) / item.path for item in corpus.items]
        clips = list(pool.map(lambda file: _read(file, max_side), files))
        frames = sum(map(len, clips))
        pixels = sum(clip[..., 0].size for clip in clips)
        stages = _Stages(codec, qp, pool, files, clips, max_side)
        runs: dict[str, Callable[[], object]] = {
            "video decoding": stages.read,
            "image stage": stages.analyse,
            "temporal stage": stages.predict,
            "entropy coding": stages.code,
            "files": lambda: stages.store(work / "files.tar"),
        }
        tables: list[str] = []
        numbers = count()

        def whole(rdo: bool) -> None:
            plan = make_plan(corpus, work / str(next(numbers)), codec, replace(settings, rdo=rdo))
            _, reports = encode_corpus(plan, codec=codec, bar=False)
            if not tables:
                tables.append(stage_table(reports[0].stages, reports[0].frames, reports[0].seconds))

        runs[WHOLE] = lambda: whole(False)
        if codec.sees_past:
            runs[WHOLE_RDO] = lambda: whole(True)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name, run in runs.items():
                progress(f"round {turn} of {rounds}: {name}")
                began = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - began)
    speeds = [StageSpeed(name, frames / statistics.median(times)) for name, times in seconds.items()]
    alone = [speed for speed in speeds if not speed.name.startswith(WHOLE)]
    return PipelineFigures(frames, pixels, alone, speeds[len(alone) :], _bound(alone, codec.device.type), tables[0])


def _bound(stages: Sequence[StageSpeed], device: str) -> float:
    shares = {"cpu": 0.0, device: 0.0}
    for stage in stages:
        shares[device if stage.name in _ON_DEVICE else "cpu"] += 1 / stage.fps
    return 1 / max(shares.values())


class _Stages:
    """The stages over the same clips, each from what the one before it left in memory."""

    def __init__(
        self,
        codec: Codec,
        qp: int,
        pool: ThreadPoolExecutor,
        files: Sequence[Path],
        clips: Sequence[np.ndarray],
        max_side: int | None,
    ) -> None:
        self._codec, self._qp, self._pool, self._files, self._clips = codec, qp, pool, files, clips
        self._max_side = max_side
        self._symbols = [codec.analyse(clip, qp) for clip in clips]
        self._coded = [list(self._predicted(number)) for number in range(len(clips))]
        self._bytes = [codec.compress(clip, qp) for clip in clips]

    def read(self) -> None:
        list(self._pool.map(lambda file: _count(file, self._max_side), self._files))

    def analyse(self) -> None:
        for clip in self._clips:
            for start in range(0, len(clip), PACKET_FRAMES):
                self._codec.analyse(clip[start : start + PACKET_FRAMES], self._qp)

    def predict(self) -> None:
        with ThreadPoolExecutor(self._codec.lanes, "lane", torch.set_num_threads, (1,)) as lanes:
            list(lanes.map(lambda number: sum(1 for _ in self._predicted(number)), range(len(self._clips))))

    def _predicted(self, number: int) -> Iterator[CodedFrame]:
        codec, (height, width) = self._codec, self._clips[number].shape[1:3]
        header = codec._header(height, width, CodingOptions(self._qp), ())
        state = codec._priors.start(1, header)
        for packet in zip(*[q.split(PACKET_FRAMES) for q in self._symbols[number]], strict=True):
            coded = list(coded_frames(codec._priors, packet, header, state))
            yield from (frame for frame, _ in coded)
            state = coded[-1][1]

    def code(self) -> None:
        list(self._pool.map(_coded, self._coded))

    def store(self, path: Path) -> None:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, data in enumerate(self._bytes):
                tar.addfile(member(f"{number}.vlbc", len(data)), io.BytesIO(data))


def _coded(frames: Sequence[CodedFrame]) -> int:
    size = 0
    for start in range(0, len(frames), PACKET_FRAMES):
        encoder = coder.Encoder()
        for frame in frames[start : start + PACKET_FRAMES]:
            for level in reversed(range(len(frame.symbols))):
                encoder.encode(frame.symbols[level], frame.parameters[level])
        size += len(encoder.finish())
    return size


def _read(file: Path, max_side: int | None) -> np.ndarray:
    reader = VideoReader(file, max_side=max_side)
    blocks = list(reader.blocks())
    if reader.verdict is None or reader.verdict.status != "ok":
        raise InputError(f"{file}: {reader.verdict}; a benchmark needs sound videos")
    return np.concatenate(blocks)


def _count(file: Path, max_side: int | None) -> int:
    return sum(len(block) for block in VideoReader(file, max_side=max_side).blocks())


def reading_shards(folder: Path, codec: Codec, clips: int, rounds: int) -> list[dict[str, object]]:
    """Clips a second from shards, beside decoding the very videos, one thread each; see
    vidlbc.pipeline.reading_speed. `ratio`: to the faster reader of the videos."""
    from vidlbc.pipeline.reading_speed import reading_speed

    if not len(LatentShards(folder, codec=codec)):
        raise InputError(f"{folder}: no clip to read")
    rows = reading_speed(folder, {codec.kind: codec}, None, clips, rounds)
    files = max(row["clips_per_s"] for row in rows if row["reader"].startswith("source files"))
    return [{**row, "ratio": row["clips_per_s"] / files} for row in rows]
