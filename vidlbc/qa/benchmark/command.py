"""Speed and memory of vidlbc beside CompressAI and x265: same frames, same threads, same run; results as ratios.

vidlbc qa benchmark         frames a second, symbols a second of the range coder alone, peak memory of clips
vidlbc qa benchmark long    cost of a frame and memory, from clips of 100 frames to one of an hour
vidlbc qa benchmark pipeline                  each stage of encoding alone, and the whole of it
vidlbc qa benchmark reading shards=SHARDS     clips a second out of shards, beside decoding the videos
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from vidlbc.errors import InputError
from vidlbc.run.options import option
from vidlbc.run.progress import progress_bar


@dataclass
class Options:
    """See `--help`."""

    command: str = option(
        "race",
        "race (beside other codecs), long (cost of a frame and memory against length), pipeline or "
        "reading; may be the first word",
    )
    model: str = option("default", "shipped model or model folder")
    temporal: str | None = option(None, "transformer, lstm or none; null is the model's own")
    qp: int = option(32, "quality of vidlbc, 0 to 63")
    device: str = option("cpu", "cpu, cuda or auto; x265 stays on the CPU")
    threads: int | None = option(None, "threads of every contestant; null is one a core")
    clip: str | None = option(
        None, "video to code, for pipeline also a folder; null is a generated scene with texture, motion and noise"
    )
    frames: int = option(32, "frames to code")
    size: int = option(256, "side of the frames, in pixels")
    rounds: int = option(3, "times that each contestant codes the clip; medians are compared")
    against: list[str] = option(
        ["bmshj2018-hyperprior", "mbt2018-mean", "ssf2020", "x265"], "who else runs; [] for none"
    )
    coder_symbols: int = option(2000000, "symbols for the range coders alone; 0 leaves them out")
    memory_frames: list[int] = option([32, 128, 512], "clip lengths whose peak memory is measured; [] leaves it out")
    out: str = option("out/benchmark.json", "where the figures go; long: a plot beside them, of the same name")
    long_frames: list[int] = option(
        [100, 1000, 10000, 100000], "long: lengths of the clips; the longest is an hour at 250/9 frames/s"
    )
    long_size: int = option(
        128, "long: side of the frames, in pixels; of clip, or of the generated scene, the first 100 frames repeat"
    )
    videos: int = option(
        8, "pipeline: how many generated scenes, as mp4; with clip, a folder of videos, those are coded"
    )
    video_frames: int = option(96, "pipeline: frames of each")
    shards: str | None = option(None, "reading: folder of shards whose source videos are there too")
    clips: int = option(24, "reading: how many of its clips, evenly spread")


def main(cfg: DictConfig) -> None:
    commands = {"race": race_, "long": long, "pipeline": pipeline, "reading": reading}
    if cfg.command not in commands:
        raise InputError(f"command={cfg.command}: expected one of {', '.join(commands)}")
    commands[cfg.command](cfg)


def race_(cfg: DictConfig) -> None:
    import torch

    import vidlbc
    from vidlbc.qa.benchmark.clip import generated_clip, read_clip
    from vidlbc.qa.benchmark.contestants import build_others, ours
    from vidlbc.qa.benchmark.memory import MemoryTask, measure
    from vidlbc.qa.benchmark.race import race
    from vidlbc.qa.benchmark.range_coder import race_coders
    from vidlbc.qa.benchmark.report import table, write_json

    threads = cfg.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    codec = vidlbc.load(cfg.model, device=cfg.device, temporal=cfg.temporal)
    others = build_others(list(cfg.against), str(codec.device), threads)
    frames = (
        read_clip(Path(cfg.clip), cfg.frames, cfg.size)
        if cfg.clip
        else np.stack(list(generated_clip(cfg.frames, cfg.size)))
    )
    speeds = race([ours(codec, cfg.qp), *others], frames, cfg.rounds, say)
    say("range coders")
    coders = race_coders(cfg.coder_symbols, cfg.rounds) if cfg.coder_symbols else []
    peaks = []
    for length in cfg.memory_frames:
        say(f"peak memory of {length} frames")
        task = MemoryTask(cfg.model, cfg.temporal, cfg.device, threads, cfg.qp, cfg.size, length)
        peaks.append(measure(task))
    say("")
    print(f"{cfg.frames} frames of {cfg.size}x{cfg.size}, {threads} threads, {codec.device}, qp {cfg.qp}\n")
    print(table(speeds, coders, peaks))
    write_json(Path(cfg.out), {str(key): value for key, value in cfg.items()}, threads, speeds, coders, peaks)
    print(f"\nwritten to {cfg.out}")


def long(cfg: DictConfig) -> None:
    from vidlbc.qa.benchmark.long import LongSettings, measure_long

    threads = cfg.threads or os.cpu_count() or 1
    settings = LongSettings(
        list(cfg.long_frames), cfg.long_size, cfg.clip, cfg.model, cfg.temporal, cfg.device, threads, cfg.qp
    )
    from vidlbc.qa.benchmark.long_report import plot_long, table, write_json

    say("writing the videos")
    with progress_bar(desc="encode, decode", unit="frame", total=2 * settings.total) as meter:
        figures = measure_long(settings, meter.update)
    out = Path(cfg.out)
    print(f"{cfg.long_size}x{cfg.long_size}, {threads} threads, {cfg.device}, qp {cfg.qp}\n")
    print(table(figures))
    write_json(out, {str(key): value for key, value in cfg.items()}, threads, figures)
    plot_long(out.with_suffix(".png"), figures)
    print(f"\nwritten to {out} and {out.with_suffix('.png')}")


def pipeline(cfg: DictConfig) -> None:
    import tempfile

    import torch

    import vidlbc
    from vidlbc.qa.benchmark.pipeline import generated_videos, measure_pipeline
    from vidlbc.qa.benchmark.pipeline_report import pipeline_table, write_pipeline

    threads = cfg.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    codec = vidlbc.load(cfg.model, device=cfg.device, temporal=cfg.temporal)
    with tempfile.TemporaryDirectory(prefix="vidlbc-") as folder:
        say("writing the videos")
        generated = not cfg.clip
        videos = Path(cfg.clip or generated_videos(Path(folder) / "videos", cfg.videos, cfg.video_frames, cfg.size))
        max_side = None if generated else cfg.size
        figures = measure_pipeline(codec, videos, cfg.qp, threads, cfg.rounds, max_side, say)
    say("")
    where = "generated scenes" if generated else f"{videos}, longest side {cfg.size}"
    print(f"{where}, {threads} threads, {codec.device}, {codec.kind}, qp {cfg.qp}\n")
    print(pipeline_table(figures))
    write_pipeline(Path(cfg.out), {str(key): value for key, value in cfg.items()}, threads, figures)
    print(f"\nwritten to {cfg.out}")


def reading(cfg: DictConfig) -> None:
    import vidlbc
    from vidlbc.qa.benchmark.pipeline import reading_shards
    from vidlbc.qa.benchmark.pipeline_report import reading_table, write_reading

    if cfg.shards is None:
        raise InputError("shards=: expected a folder of shards, as vidlbc encode writes it")
    codec = vidlbc.load(cfg.model, device=cfg.device, temporal=cfg.temporal)
    rows = reading_shards(Path(cfg.shards), codec, cfg.clips, cfg.rounds)
    print(reading_table(rows))
    write_reading(Path(cfg.out), {str(key): value for key, value in cfg.items()}, rows)
    print(f"\nwritten to {cfg.out}")


def say(text: str) -> None:
    """What is going on now, on one moving line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
