"""What the probes read, and its bytes: tokens of every labelled video of every split for each input.

An input's features are kept until its probes are fitted; its sizes are kept for good. Videos are named alike in all
inputs, so every view of a video holds the same frames whatever the probe reads.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError, VideoError
from vidlbc.evaluate import FeatureBuilder, FeatureSet, ViewPlan
from vidlbc.evaluate.codecs import VideoCodec
from vidlbc.evaluate.codecs.equal_bytes import X264_FPS, nearest
from vidlbc.pipeline.recognition import LabelledVideo, build_features, labelled_videos, latents_at
from vidlbc.pipeline.sources import source_frames_at, spanned, stored_frames_at
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.shards import LatentShards

LATENTS, DECODED, X264_MEDIUM, PIXELS, FULL = "latents", "decoded", "x264", "pixels", "pixels-full"
Features = dict[str, FeatureSet]  # by split
Tokens = Mapping[str, Tensor | VideoError]


@dataclass(frozen=True)
class Videos:
    """Of every labelled video that could be coded, by its name: bytes of its bitstreams and of its source file, pixels
    and seconds (NaN where the rate is unknown) of the coded frames, and its split."""

    bytes: dict[str, int]
    source_bytes: dict[str, int]
    pixels: dict[str, int]
    seconds: dict[str, float]
    splits: dict[str, str]

    def of(self, split: str) -> list[str]:
        return [name for name, part in self.splits.items() if part == split]

    def facts(self, split: str) -> dict[str, Any]:
        return {
            "videos": len(self.bytes),
            "videos_of_split": len(self.of(split)),
            "source_bytes": sum(self.source_bytes.values()),
        }


def videos_of(parts: Iterable[LatentShards]) -> Videos:
    """From the tables of the shards; nothing is decoded."""
    found = Videos({}, {}, {}, {}, {})
    for shards in parts:
        size_of = {(source.path, source.sha256): source.size for source in shards.plan.sources}
        for video in labelled_videos(shards):
            row, name = video.first, video.first["video"]
            found.bytes[name] = sum(clip["bytes"] for _, clip in video.clips)
            found.source_bytes[name] = size_of[row["source"], row["source_sha256"]]
            found.pixels[name] = video.frames * row["height"] * row["width"]
            found.seconds[name] = float(video.frames / Fraction(row["fps"])) if row["fps"] else float("nan")
            found.splits[name] = row["split"] or ""
    return found


@dataclass(frozen=True)
class Media:
    """`levels`: (channels, stride) of the latents, which pictures are cut into patches for."""

    out: Path
    splits: tuple[str, ...]
    plan: ViewPlan
    grid: int
    levels: Sequence[tuple[int, int]]

    def coded(
        self, names: Sequence[str], parts: Mapping[str, LatentShards], others: Mapping[str, Codec]
    ) -> dict[str, Features]:
        """Features of `names` (latents-..., decoded-...), and sizes of the same symbols under `others` (by name)."""
        for split, shards in parts.items():
            sizes: dict[str, dict[str, int]] = {n: {} for n in others if not self._sizes(n, split).is_file()}
            builders = {
                name: self._builder(split, pixels=name.startswith(DECODED))
                for name in names
                if not self._features(name, split).is_file()
            }
            if builders or sizes:
                for codec in (shards.codec, *others.values()):
                    codec.start_threads()
                work = partial(_read_coded, shards.codec, builders, sizes, others)
                title = f"read {shards.codec.kind} qp {shards.plan.settings.qp}, {split}"
                self._keep(split, build_features(shards, builders, work, title, "video"))
                for name, found in sizes.items():
                    write_atomic(self._sizes(name, split), dump_json(found))
        return {name: self._load(name) for name in names}

    def x264(self, name: str, parts: Mapping[str, LatentShards]) -> Features:
        """Every video through libx264 medium, at the bytes of its bitstreams or as near as CRF goes (1%)."""
        for split, shards in parts.items():
            if not self._features(name, split).is_file():
                builder, told = self._builder(split, pixels=True), dict[str, int]()
                work = partial(_read_x264, shards, name, builder, told)
                built = build_features(shards, {name: builder}, work, f"{name}, {split}", "video")
                write_atomic(self._sizes(name, split), dump_json(told))
                self._keep(split, built)
        return self._load(name)

    def pixels(self, name: str, parts: Mapping[str, LatentShards]) -> Features:
        """Source frames: those that were coded (PIXELS), or (FULL) of all frames of the file at its own size."""
        for split, shards in parts.items():
            if not self._features(name, split).is_file():
                builder = self._builder(split, pixels=True)
                work = partial(_read_pixels, shards, name, builder)
                self._keep(split, build_features(shards, {name: builder}, work, f"{name}, {split}", "video"))
        return self._load(name)

    def drop(self, name: str) -> None:
        """Forget the features of an input."""
        for split in self.splits:
            self._features(name, split).unlink(missing_ok=True)

    def sizes(self, name: str) -> dict[str, int]:
        """Bytes of every video by its name."""
        found: dict[str, int] = {}
        for split in self.splits:
            found |= json.loads(self._sizes(name, split).read_text())
        return found

    def _load(self, name: str) -> Features:
        for split in self.splits:
            if not self._features(name, split).is_file():
                raise InputError(f"no labelled video of the {split} split could be read")
        return {split: FeatureSet.load(self._features(name, split)) for split in self.splits}

    def _builder(self, split: str, pixels: bool) -> FeatureBuilder:
        plan = ViewPlan(self.plan.frames, self.plan.views, jitter=split == "train")
        return FeatureBuilder(self.levels, plan, grid=self.grid, pixels=pixels)

    def _keep(self, split: str, built: Mapping[str, FeatureSet]) -> None:
        for name, features in built.items():
            self._features(name, split).parent.mkdir(parents=True, exist_ok=True)
            features.save(self._features(name, split))

    def _features(self, name: str, split: str) -> Path:
        return self.out / "features" / f"{name}-{split}.safetensors"

    def _sizes(self, name: str, split: str) -> Path:
        return self.out / "sizes" / f"{name}-{split}.json"


def _read_coded(
    codec: Codec,
    builders: Mapping[str, FeatureBuilder],
    sizes: Mapping[str, dict[str, int]],
    others: Mapping[str, Codec],
    video: LabelledVideo,
    data: list[bytes],
) -> Tokens:
    """Tokens of one video for each builder; its bytes under other kinds go into `sizes`."""
    row, key = video.first, video.first["video"]
    height, width, qp = row["height"], row["width"], row["qp"]
    decoded = [codec.decode(bitstream) for bitstream in data]
    for name, found in sizes.items():
        fps = Fraction(row["fps"]) if row["fps"] else 0
        coded = [others[name].compress_symbols(q, qp, height, width, fps=fps)[0] for q, _ in decoded]
        found[key] = sum(map(len, coded))
    tokens: dict[str, Tensor | VideoError] = {}
    if builders:
        wanted = next(iter(builders.values())).wanted(key, video.frames)  # the same for all
        padded = latents_at(codec, video, decoded.__getitem__, wanted)
        for name, builder in builders.items():
            seen: Any = codec.crop(padded, height, width)
            if builder.pixels:
                seen = codec.synthesize(padded, qp, height, width)
            tokens[name] = builder.tokens(key, seen, video.frames)
    return tokens


def _read_x264(
    shards: LatentShards,
    name: str,
    builder: FeatureBuilder,
    sizes: dict[str, int],
    video: LabelledVideo,
    data: list[bytes],
) -> Tokens:
    row, key = video.first, video.first["video"]
    try:
        frames = source_frames_at(shards, row, video.frames, np.arange(video.frames))
    except VideoError as error:
        return {name: error}
    x264 = VideoCodec("x264")
    _, (stream,) = nearest(x264, [frames], sum(map(len, data)), X264_FPS)
    sizes[key] = len(stream)
    seen = x264.decode(stream, row["height"], row["width"])[builder.wanted(key, video.frames)]
    return {name: builder.tokens(key, seen, video.frames)}


def _read_pixels(
    shards: LatentShards, name: str, builder: FeatureBuilder, video: LabelledVideo, data: list[bytes]
) -> Tokens:
    row, key = video.first, video.first["video"]
    read, total = (
        (stored_frames_at, spanned(shards, video.frames)) if name == FULL else (source_frames_at, video.frames)
    )
    try:
        return {name: builder.tokens(key, read(shards, row, total, builder.wanted(key, total)), total)}
    except VideoError as error:
        return {name: error}
