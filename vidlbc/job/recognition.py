"""Action recognition: one head, one budget, three inputs: latents from the shards, decoded frames, source pixels."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vidlbc.codec import Codec
from vidlbc.errors import VidlbcError
from vidlbc.evaluation import FeatureBuilder, FeatureSet, ProbeBudget, ProbeResult, ViewPlan, run_probe, view_indices
from vidlbc.job.settings import EvaluationSettings
from vidlbc.job.sources import source_frames
from vidlbc.shards import LatentShards

INPUTS = ("latents", "decoded", "pixels")


def recognise(
    shards_folder: Path, codec: Codec, settings: EvaluationSettings, cache: Path, seed: int = 0
) -> dict[str, ProbeResult]:
    """Probe results by input. Features are kept in `cache`, so a stopped run goes on where it was."""
    inputs = [n for n in INPUTS if n == "latents" or getattr(settings, n)]
    shards = {split: LatentShards(shards_folder, split, codec=codec) for split in ("train", "val", "test")}
    classes = len(shards["train"].classes)
    sets: dict[str, dict[str, FeatureSet]] = {name: {} for name in inputs}
    for split, part in shards.items():
        if len(part):
            for name, features in features_of(part, split, codec, settings, inputs, cache).items():
                sets[name][split] = features
    results = {}
    for name in tqdm(inputs, desc="probes", unit="probe", disable=None):
        parts = sets[name]
        results[name] = run_probe(
            parts["train"], parts["test"], classes, settings.head, val=parts.get("val"),
            budget=ProbeBudget(epochs=settings.epochs), options=settings.head_options, seed=seed, device=codec.device,
        )  # fmt: skip
    return results


def features_of(
    shards: LatentShards, split: str, codec: Codec, settings: EvaluationSettings, inputs: list[str], cache: Path
) -> dict[str, FeatureSet]:
    """Tokens of every labelled clip of one split, for each input; one decoding pass serves all."""
    stamp = f"{codec.fingerprint[:16]}-{shards.plan.identity[:16]}-{settings.frames}x{settings.views}-{settings.grid}"
    files = {name: cache / f"{split}-{name}-{stamp}.safetensors" for name in inputs}
    if all(file.is_file() for file in files.values()):
        return {name: FeatureSet.load(file) for name, file in files.items()}
    plan = ViewPlan(frames=settings.frames, views=settings.views, jitter=split == "train")
    levels = [(level.channels, level.stride) for level in codec.levels]
    builders = {n: FeatureBuilder(levels, plan, grid=settings.grid, pixels=n != "latents") for n in inputs}
    for meta, data in tqdm(
        _labelled(shards), total=len(shards), desc=f"features of {split}", unit="clip", disable=None
    ):
        key, label, group = meta["key"], int(meta["label"]), meta["group"]
        symbols = codec.padded_symbols(data)
        builders["latents"].add(
            key, label, codec.crop(codec.dequantise(symbols, meta["qp"]), meta["height"], meta["width"]), group
        )
        if "decoded" in builders:
            builders["decoded"].add(key, label, _decoded(codec, symbols, meta, plan), group)
        if "pixels" in builders:
            builders["pixels"].add(key, label, source_frames(shards, meta), group)
    for name, reason in failures(shards).items():
        for builder in builders.values():
            builder.fail(name, reason)
    cache.mkdir(parents=True, exist_ok=True)
    built = {name: builder.build() for name, builder in builders.items()}
    for name, features in built.items():
        features.save(files[name])
    return built


def _labelled(shards: LatentShards) -> Iterator[tuple[dict, bytes]]:
    """The first clip of every labelled video: one row a video, so that no video counts twice."""
    seen: set[str] = set()
    for index in range(len(shards)):
        meta = shards.meta(index)
        if meta["label"] is not None and meta["video"] not in seen:
            seen.add(meta["video"])
            yield meta, shards.bitstream(index)


def _decoded(codec: Codec, symbols: list, meta: dict, plan: ViewPlan) -> np.ndarray:
    """The whole clip's shape, but only the frames that a view holds are synthesised."""
    frames = np.zeros((meta["frames"], meta["height"], meta["width"], 3), np.uint8)
    chosen = np.unique(view_indices(meta["frames"], plan, meta["key"]))
    latents = codec.dequantise([q[chosen] for q in symbols], meta["qp"])
    frames[chosen] = codec.synthesize(latents, meta["qp"], meta["height"], meta["width"])
    return frames


def failures(shards: LatentShards) -> dict[str, str]:
    """Files of the split that gave no clip: counted in every result."""
    from vidlbc.shards import gather

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
