"""Action recognition: one head, one budget, three inputs: latents from the shards, decoded frames, source pixels.

A video is one row of every feature set, however many clips it was cut into: its views spread over all of its frames,
and only the frames that a view holds are kept.
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.codec import Codec, Decoded
from vidlbc.errors import InputError, VideoError, VidlbcError
from vidlbc.evaluate import FeatureBuilder, FeatureSet, ProbeBudget, ProbeResult, ViewPlan, run_probe
from vidlbc.pipeline.settings import EvaluationSettings
from vidlbc.pipeline.sharing import join_shares, own_share
from vidlbc.pipeline.sources import source_frames_at
from vidlbc.run import distributed
from vidlbc.run.progress import progress_bar
from vidlbc.shards import LatentShards, gather
from vidlbc.shards.table import ClipRow

J = TypeVar("J")
T = TypeVar("T")
INPUTS = ("latents", "decoded", "pixels")


@dataclass(frozen=True)
class LabelledVideo:
    """The clips of one video, as (index in the shards, row), in order; they follow each other without a gap."""

    clips: tuple[tuple[int, ClipRow], ...]

    @property
    def first(self) -> ClipRow:
        return self.clips[0][1]

    @property
    def frames(self) -> int:
        return sum(int(row["frames"]) for _, row in self.clips)


def recognise(
    shards_folder: Path, codec: Codec, settings: EvaluationSettings, cache: Path, seed: int = 0, split: str = "test"
) -> dict[str, ProbeResult]:
    """Probe results on `split` by input; none on ranks other than 0, which only make their share of the features.

    Features are kept in `cache`, so a stopped run goes on where it was.
    Raises InputError where what could be read does not suffice to train and test a head.
    """
    inputs = [n for n in INPUTS if n == "latents" or getattr(settings, n)]
    sets: dict[str, dict[str, FeatureSet]] = {name: {} for name in inputs}
    if settings.base and not codec.stage.base_levels:
        raise InputError("eval.base=true: the image stage has no base layer")
    whole = LatentShards(shards_folder)
    base_alone = settings.base and "decoded" not in inputs
    present = {shard.split for shard in whole.plan.shards}
    for part in [p for p in ("train", "val", "test") if p in present and (p == split or p in ("train", "val"))]:
        shards = LatentShards(shards_folder, part, codec=codec, base=base_alone)
        for name, features in features_of(shards, part, codec, settings, inputs, cache).items():
            sets[name][part] = features
    if distributed.rank():
        return {}
    results = {}
    budget = ProbeBudget(
        epochs=settings.epochs, checkpoints=min(4, settings.epochs), rates=settings.rates, decays=settings.decays
    )
    for name in progress_bar(inputs, desc="probes", unit="probe"):
        parts = sets[name]
        for needed in ("train", split):
            if needed not in parts:
                raise InputError(f"no labelled video of the {needed} split could be read")
        results[name] = run_probe(
            parts["train"],
            parts[split],
            len(whole.classes),
            settings.head,
            val=None if split == "val" else parts.get("val"),
            budget=budget,
            options=settings.head_options,
            seed=seed,
            device=codec.device,
        )
    return results


def features_of(
    shards: LatentShards, split: str, codec: Codec, settings: EvaluationSettings, inputs: list[str], cache: Path
) -> dict[str, FeatureSet]:
    """Tokens of every labelled video of one split, for each input; one decoding pass serves all. Empty without any.

    Every rank decodes its share of the videos; rank 0 gets all of them, the others none.
    """
    stamp = f"{codec.fingerprint[:16]}-{shards.plan.identity[:16]}-{settings.frames}x{settings.views}-{settings.grid}"
    stamp += "-base" if settings.base else ""
    files = {name: cache / f"{split}-{name}-{stamp}.safetensors" for name in inputs}
    if all(file.is_file() for file in files.values()):
        return {name: FeatureSet.load(file) for name, file in files.items()}
    plan = ViewPlan(frames=settings.frames, views=settings.views, jitter=split == "train")
    read = codec.levels[len(codec.levels) - codec.stage.base_levels :] if settings.base else codec.levels
    levels = [(level.channels, level.stride) for level in read]
    builders = {n: FeatureBuilder(levels, plan, grid=settings.grid, pixels=n != "latents") for n in inputs}
    videos = list(labelled_videos(shards))
    if not videos:
        return {}
    cache.mkdir(parents=True, exist_ok=True)
    own = [videos[at] for at in own_share(len(videos))]
    _keep_tokens(
        own,
        shards,
        builders,
        lambda video, data: _tokens_of(video, data, shards, codec, builders),
        f"features of {split}",
    )
    keys, unread = [video.first["key"] for video in videos], tuple(failures(shards).items())
    built = {}
    for name, builder in builders.items():
        features = join_shares(builder.part(), files[name], keys)
        features = replace(features, failed=features.failed + unread)
        if distributed.from_first(len(features)) == 0:
            raise InputError(f"no clip could be read ({len(features.failed)} failed)")
        if distributed.rank() == 0:
            features.save(files[name])
            built[name] = features
    return built


def build_features(
    shards: LatentShards,
    builders: Mapping[str, FeatureBuilder],
    work: Callable[[LabelledVideo, list[bytes]], Mapping[str, Tensor | VideoError]],
    title: str,
    named: str = "key",
) -> dict[str, FeatureSet]:
    """Features of every labelled video of one split, for each input; empty without any.

    `work`: tokens of a video for each input, or why there are none, from the bitstreams of its clips; on several
    threads. `named`: the column that names a video in what is built.
    """
    videos = list(labelled_videos(shards))
    if not videos:
        return {}
    _keep_tokens(videos, shards, builders, work, title, named)
    for name, reason in failures(shards).items():
        for builder in builders.values():
            builder.fail(name, reason)
    return {name: builder.build() for name, builder in builders.items()}


def _keep_tokens(
    videos: Sequence[LabelledVideo],
    shards: LatentShards,
    builders: Mapping[str, FeatureBuilder],
    work: Callable[[LabelledVideo, list[bytes]], Mapping[str, Tensor | VideoError]],
    title: str,
    named: str = "key",
) -> None:
    jobs = ((video, [shards.bitstream(i) for i, _ in video.clips]) for video in videos)
    coming = side_by_side(lambda job: work(*job), jobs)
    silent = True if distributed.rank() else None
    for video, tokens in zip(progress_bar(videos, desc=title, unit="video", disable=silent), coming, strict=True):
        row = video.first
        for name, found in tokens.items():
            if isinstance(found, VideoError):
                print(f"without its pixels: {found}", file=sys.stderr)
                builders[name].fail(row[named], str(found))
            else:
                builders[name].keep(row[named], int(row["label"]), found, row["group"])


def _tokens_of(
    video: LabelledVideo,
    bitstreams: Sequence[bytes],
    shards: LatentShards,
    codec: Codec,
    builders: Mapping[str, FeatureBuilder],
) -> dict[str, Tensor | VideoError]:
    """Tokens of one video for each input; for pixels, why there are none where the source cannot be read."""
    row, total = video.first, video.frames
    key, height, width = row["key"], row["height"], row["width"]
    wanted = builders["latents"].wanted(key, total)
    padded = latents_at(codec, video, lambda clip: codec.decode(bitstreams[clip], shards.base), wanted)
    cropped = codec.crop(padded, height, width)[-len(builders["latents"].levels) :]
    out: dict[str, Tensor | VideoError] = {"latents": builders["latents"].tokens(key, cropped, total)}
    if "decoded" in builders:
        if codec.moves:
            pictures = frames_at(video, lambda clip: codec.decompress(bitstreams[clip]), wanted)
        else:
            pictures = codec.synthesize(padded, row["qp"], height, width)
        out["decoded"] = builders["decoded"].tokens(key, pictures, total)
    if "pixels" in builders:
        try:
            out["pixels"] = builders["pixels"].tokens(key, source_frames_at(shards, row, total, wanted), total)
        except VideoError as error:
            out["pixels"] = error
    return out


def side_by_side(work: Callable[[J], T], jobs: Iterable[J]) -> Iterator[T]:
    """`work` of every job, in order, several at a time: a clip decodes frame by frame, on one thread."""
    workers = torch.get_num_threads()
    with ThreadPoolExecutor(workers, "video", torch.set_num_threads, (1,)) as pool:
        waiting: deque[Future[T]] = deque()
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def labelled_videos(shards: LatentShards) -> Iterator[LabelledVideo]:
    """Every labelled video once. Where a video changes its frame size, what comes after the change is left out."""
    clips: dict[str, list[tuple[int, ClipRow]]] = {}
    for index in range(len(shards)):
        row = shards.meta(index)
        if row["label"] is not None:
            clips.setdefault(row["video"], []).append((index, row))
    for found in clips.values():
        found.sort(key=lambda clip: clip[1]["start"])
        size = found[0][1]["height"], found[0][1]["width"]
        same = [(row["height"], row["width"]) == size for _, row in found]
        yield LabelledVideo(tuple(found[: same.index(False)] if False in same else found))


def latents_at(
    codec: Codec, video: LabelledVideo, decoded_of: Callable[[int], Decoded], wanted: np.ndarray
) -> list[Tensor]:
    """Dequantised latents of some frames, of the padded frame, (n, C_l, H_l, W_l) a level.

    `decoded_of`: a clip of the video to what `Codec.decode` gives; asked for clips that hold some of `wanted`, which
    rises.
    """
    parts = []
    for clip, here in _places(video, wanted):
        found = decoded_of(clip)
        parts.append(codec.dequantise([q[here] for q in found.symbols], [found.qps[t] for t in here]))
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def frames_at(video: LabelledVideo, frames_of: Callable[[int], np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Some decoded frames, uint8 (n, H, W, 3); as `latents_at`."""
    return np.concatenate([frames_of(clip)[here] for clip, here in _places(video, wanted)])


def _places(video: LabelledVideo, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Clips of a video that hold some of these frames, and which of theirs they are."""
    first = 0
    for clip, (_, row) in enumerate(video.clips):
        here = wanted[(wanted >= first) & (wanted < first + row["frames"])] - first
        if len(here):
            yield clip, here
        first += row["frames"]


def failures(shards: LatentShards) -> dict[str, str]:
    """Files of the split that gave no clip: counted in every result."""
    return {
        file["path"]: file["reason"]
        for file in gather(shards.plan).files
        if file["status"] == "unreadable" and file["split"] == shards.split
    }


def write_results(folder: Path, results: dict[str, ProbeResult], classes: tuple[str, ...]) -> dict[str, dict]:
    """Per-view outputs as Parquet and the summaries as JSON; returns the summaries."""
    folder.mkdir(parents=True, exist_ok=True)
    summaries = {}
    for name, result in results.items():
        result.write_views(folder / f"views-{name}.parquet", classes)
        summaries[name] = result.summary()
    if not summaries:
        raise VidlbcError("no probe result to write")
    (folder / "probes.json").write_text(json.dumps(summaries, indent=2, default=float) + "\n")
    return summaries
