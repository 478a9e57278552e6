"""Decode latent shards, or one .vlbc bitstream, to mp4 files or png pictures."""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from omegaconf import DictConfig, ListConfig

import vidlbc
from vidlbc.codec.bitstream import Cut
from vidlbc.errors import BitstreamError, InputError
from vidlbc.run.options import option, required
from vidlbc.run.outputs import Outputs
from vidlbc.run.progress import progress_bar
from vidlbc.shards import DecodedVideo, LatentShards, decode_shards
from vidlbc.shards.decode import check_form, named, videos_of, write_frames


@dataclass
class Options:
    """See `--help`."""

    input: str = required("folder of shards, or one .vlbc file")
    output: str = required("folder for the videos")
    format: str = option("mp4", "mp4 or png")
    overwrite: bool = option(
        False, "true: replace files of these names that this run did not write; an interrupted run goes on without"
    )
    span: list[int] | None = option(
        None, "of one .vlbc file: [START, STOP], those frames alone, decoded from the key frame before them"
    )
    split: str | None = option(None, "train, val or test; null is everything")
    model: str | None = option(None, "shipped model or model folder; null is what the shards name")
    temporal: str | None = option(None, "transformer, lstm or none; null is what the shards name")
    refine: bool | None = option(
        None,
        "true: show what frames are predicted from, or refine them by the model's video decoder where its"
        " kind knows no motion; false: frames of the image stage alone; null: what each bitstream is "
        "meant to show",
    )
    device: str = option("auto", "auto, cpu or cuda")
    max_pixels: int = option(
        67108864, "larger frames (padded to the model's stride) are not decoded; bounds what a forged header may ask"
    )
    fps: Any = option(None, "frames a second of the mp4; null is the source's own")
    crf: int = option(18, "quality of the mp4, 0 (lossless) to 51")


def main(config: DictConfig) -> int:
    check_form(config.format)
    source = Path(config.input)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder (expected a folder of shards, or a .vlbc file)")
    if config.span is not None and source.is_dir():
        raise InputError(f"span={list(config.span)}: frames of one .vlbc file, and {source} is a folder of shards")
    began = time.monotonic()
    done = decode_folder(source, config) if source.is_dir() else [decode_file(source, config)]
    seconds = time.monotonic() - began
    failed = [video for video in done if video.problem]
    earlier = [video for video in done if video.earlier]
    frames = sum(video.frames for video in done if not video.earlier)
    before = f" ({len(earlier)} of them by an earlier run)" if earlier else ""
    for video in failed:
        print(f"not decoded: {video.source}: {video.problem}")
    count = f"{len(done) - len(failed)} videos{before}"
    print(f"{count}, {frames} frames, {frames / seconds:.1f} frames/s -> {config.output}")
    return 2 if failed else 0


def load_codec(config: DictConfig, model: str, kind: str | None) -> vidlbc.Codec:
    """What the options say, else this model and kind."""
    return vidlbc.load(
        config.model or model,
        config.device,
        config.temporal or kind,
        refine=config.refine,
        max_pixels=config.max_pixels,
    )


def decode_folder(source: Path, config: DictConfig) -> list[DecodedVideo]:
    shards = LatentShards(source, config.split)
    settings = shards.plan.settings
    shards = LatentShards(source, config.split, codec=load_codec(config, settings.model, settings.temporal))
    with progress_bar(total=len(videos_of(shards)), unit="video", desc="decode") as meter:
        return decode_shards(
            shards,
            config.output,
            config.format,
            fps=config.fps,
            crf=config.crf,
            overwrite=config.overwrite,
            progress=lambda video: meter.update(1) and None,
        )


def decode_file(source: Path, config: DictConfig) -> DecodedVideo:
    path = Path(config.output) / source.stem
    target = named(path, config.format)
    outputs = Outputs(config.output, config.overwrite)
    made_of = _made_of(source, config)
    try:
        with source.open("rb") as bitstream:
            info = vidlbc.inspect(bitstream)
            bitstream.seek(0)
            wanted = slice(0, info.frames)
            stream: BinaryIO = bitstream
            if config.span is not None:
                span = _span(config.span)
                part = _cut(source, *span)
                stream, wanted = io.BytesIO(part.data), part.place(*span)
            outputs.check({target: made_of})
            if (earlier := outputs.done(target, made_of)) is not None:
                return DecodedVideo(source.name, target, earlier, earlier=True)
            codec = load_codec(config, "default", info.kind)
            with progress_bar(total=wanted.stop - wanted.start, unit="frame", desc="decode") as meter:

                def frames() -> Iterator[np.ndarray]:
                    blocks = codec.decompress_stream(stream)
                    for frame in islice((frame for block in blocks for frame in block), wanted.start, wanted.stop):
                        yield frame
                        meter.update(1)

                with outputs.writing(target, made_of, config.format == "png") as written:
                    rate = config.fps or info.fps or 25
                    written.frames = write_frames(path, frames(), config.format, rate, config.crf)
    except BitstreamError as error:
        raise BitstreamError(f"{source}: {error}") from None
    return DecodedVideo(source.name, target, written.frames)


def _made_of(source: Path, config: DictConfig) -> str:
    """What the pictures depend on; a file is known by its time, since it may be larger than memory."""
    found = source.stat()
    options = [str(config[name]) for name in ("format", "fps", "crf", "span", "model", "temporal", "refine")]
    return " ".join([str(source.resolve()), str(found.st_size), str(found.st_mtime_ns), *options])


def _cut(source: Path, start: int, stop: int) -> Cut:
    """Raises InputError naming the file, BitstreamError."""
    with source.open("rb") as bitstream:
        try:
            return vidlbc.cut(bitstream, start, stop)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None


def _span(given: Any) -> tuple[int, int]:
    """Raises InputError."""
    numbers = list(given) if isinstance(given, ListConfig) else [given]
    if len(numbers) != 2 or any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
        raise InputError(f"span={given}: expected [START, STOP], two numbers of frames")
    return numbers[0], numbers[1]
