"""Labelled clips of one size, in memory: what the studies train and measure on.

    annotations --VideoReader--> every `every`-th frame, at most `frames` --area resampling--> uint8 (T, S, S, 3)

A small square size makes the studies run on two cores; every codec in a comparison codes these very clips, so that a
bit per pixel means the same for all. Read clips are kept as safetensors in a cache folder, named by what they are.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from vidlbc.data.corpus import Corpus, Item
from vidlbc.errors import InputError, VideoError
from vidlbc.pipeline.sources import source_file
from vidlbc.run.options import option
from vidlbc.run.progress import progress_bar
from vidlbc.shards import read_annotations
from vidlbc.video import VideoReader


@dataclass(frozen=True)
class ClipSettings:
    """Square side in pixels, frames kept of a clip at most, and every how many-th."""

    size: int = option(128, "side in pixels that clips are scaled to")
    frames: int = option(48, "at most so many frames of a clip")
    every: int = option(2, "one in so many frames is taken")

    def __post_init__(self) -> None:
        for name, least in (("size", 16), ("frames", 1), ("every", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"clips.{name}={value!r}: expected an integer of at least {least}")


@dataclass(frozen=True)
class ClipSet:
    """N clips, each uint8 (T_i, S, S, 3); `labels` index `classes`, -1 is unlabelled; groups must not cross splits."""

    clips: tuple[np.ndarray, ...]
    labels: np.ndarray  # (N,) int64
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def split(self, name: str) -> "ClipSet":
        """One split's clips. Raises InputError where there is none."""
        found = self.subset([i for i, split in enumerate(self.splits) if split == name])
        if not len(found):
            raise InputError(f"the {name} split has no clip that can be read")
        return found

    def subset(self, indices: Sequence[int]) -> "ClipSet":
        """The clips at `indices`, in that order."""
        at = list(indices)
        return replace(
            self,
            clips=tuple(self.clips[i] for i in at),
            labels=self.labels[at],
            groups=tuple(self.groups[i] for i in at),
            splits=tuple(self.splits[i] for i in at),
            keys=tuple(self.keys[i] for i in at),
        )

    @property
    def pixels(self) -> int:
        """Pixels of all frames: the denominator of bits per pixel."""
        return sum(clip.shape[0] * clip.shape[1] * clip.shape[2] for clip in self.clips)


def load_clips(annotations: str | Path, settings: ClipSettings, cache: Path | None = None) -> ClipSet:
    """Every clip of an annotation list or folder. Files that cannot be read are told, counted, never replaced.

    Raises InputError where nothing can be read.
    """
    corpus = read_annotations(Path(annotations))
    stored = cache / f"clips-{_identity(corpus, settings)}.safetensors" if cache is not None else None
    if stored is not None and stored.is_file():
        return _load(stored, corpus)
    clips, items, failed = [], [], []
    for item in progress_bar(corpus.items, desc=f"read {corpus.source}", unit="clip"):
        try:
            clips.append(_read(corpus, item, settings))
            items.append(item)
        except VideoError as error:
            print(f"left out: {item.path}: {error}", file=sys.stderr)
            failed.append((item.path, str(error)))
    if not clips:
        raise InputError(f"{annotations}: none of {len(corpus.items)} files gives a clip")
    found = _set_of(corpus, items, clips, failed)
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        _save(stored, found)
    return found


def batches_of(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive parts of at most `size`."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """uint8 (T, H, W, 3) -> (T, size, size, 3), area-averaged; the aspect ratio is not kept."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    out = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(out.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _read(corpus: Corpus, item: Item, settings: ClipSettings) -> np.ndarray:
    start = item.start or 0
    stop = start + settings.frames * settings.every
    with source_file(corpus.root, item.path) as file:
        reader = VideoReader(file, start=start, stop=stop if item.stop is None else min(stop, item.stop))
        parts, seen = [], 0
        for block in reader.blocks():
            wanted = [i for i in range(len(block)) if (seen + i) % settings.every == 0]
            seen += len(block)
            if wanted:
                parts.append(resize(block[wanted], settings.size))
    if not parts:
        raise VideoError(str(reader.verdict))
    return np.concatenate(parts)[: settings.frames]


def _set_of(
    corpus: Corpus, items: Sequence[Item], clips: Sequence[np.ndarray], failed: Sequence[tuple[str, str]]
) -> ClipSet:
    return ClipSet(
        tuple(clips),
        np.array([-1 if item.label is None else item.label for item in items], np.int64),
        tuple(item.group or item.path for item in items),
        tuple(item.split or "train" for item in items),
        tuple(item.path for item in items),
        corpus.classes,
        tuple(failed),
    )


def _identity(corpus: Corpus, settings: ClipSettings) -> str:
    described = repr((corpus.root, corpus.items, corpus.classes, settings))
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _save(path: Path, found: ClipSet) -> None:
    tensors: dict[str, Tensor] = {
        "frames": torch.from_numpy(np.concatenate(found.clips)),
        "lengths": torch.tensor([len(clip) for clip in found.clips]),
    }
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata={"keys": json.dumps(found.keys), "failed": json.dumps(found.failed)})
    part.replace(path)


def _load(path: Path, corpus: Corpus) -> ClipSet:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    clips = [clip.numpy() for clip in tensors["frames"].split(tensors["lengths"].tolist())]
    keys = set(json.loads(metadata["keys"]))
    failed = [(str(k), str(r)) for k, r in json.loads(metadata["failed"])]
    return _set_of(corpus, [item for item in corpus.items if item.path in keys], clips, failed)


def moved(frames: np.ndarray, down: int, right: int) -> np.ndarray:
    """(T, H, W, 3) moved by whole pixels, the border repeated."""
    height, width = frames.shape[1:3]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]
