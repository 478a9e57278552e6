"""What a scalable model does on test clips, from real bitstreams: each clip is written once a QP, then read in parts.

clip -> bytes -+-> base section alone -> y_b, z_b -> class, preview      its bytes, and those read, counted
               +-> all of it ----------> frames                     the class must come out the same
"""

import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import vidlbc
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError, VidlbcError
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.scalable.image_stage import Scalable
from vidlbc.experiments.scalable.task import ClipHead, segment_frames
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.progress import progress_bar
from vidlbc.run.request import keep_request
from vidlbc.video.distortion import psnr


@dataclass(frozen=True)
class ClipPoint:
    """One clip at one QP. Bytes are file sizes; PSNR in dB, mean over frames; seconds of decoding to latents.

    None: what a stand-alone model has not. `base_read`: bytes taken from the file to decode the base.
    """

    key: str
    pixels: int
    bytes: int
    psnr: float
    seconds: float
    base_bytes: int | None = None
    base_read: int | None = None
    base_seconds: float | None = None
    preview_psnr: float | None = None
    right: bool | None = None
    nats: float | None = None


class CountedFile(io.BytesIO):
    """Counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def clips_to_measure(clips: ClipSet, frames: int, most: int | None) -> ClipSet:
    """The labelled clips of the test split, at most so many, `frames` evenly spread frames of each.

    Raises InputError where there is none.
    """
    found = clips.split("test")
    labelled = [i for i, label in enumerate(found.labels) if label >= 0]
    if not labelled:
        raise InputError("the test split has no labelled clip")
    if most is not None and most < len(labelled):
        labelled = [labelled[i] for i in np.linspace(0, len(labelled) - 1, most).astype(int)]
    found = found.subset(labelled)
    return replace(found, clips=tuple(clip[segment_frames(len(clip), frames)] for clip in found.clips))


def measure_model(folder: Path, clips: ClipSet, qps: Sequence[int], points: Path) -> dict[int, list[ClipPoint]]:
    """Points of every clip by QP; what `points` (a folder) holds already is taken from there.

    Raises InputError where `folder` holds no finished model, or `points` is of another model or other clips.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no trained model: run the phases before evaluate first")
    codec = vidlbc.load(folder, device="cpu", temporal="none")
    wanted = {"weights": codec.fingerprint, "clips": list(clips.keys), "frames": [len(clip) for clip in clips.clips]}
    keep_request(points / "request.json", wanted, points, write=True)
    head_file = folder / "head.safetensors"
    head = ClipHead.load(head_file)[0] if head_file.is_file() else None
    found = {}
    for qp in qps:
        file = points / f"qp{qp}.json"
        if not file.is_file():
            rows_of = zip(clips.keys, clips.clips, clips.labels, strict=True)
            bar = progress_bar(rows_of, desc=f"{folder.name}, qp {qp}", total=len(clips), unit="clip")
            rows = [measure_clip(codec, head, key, clip, int(label), qp) for key, clip, label in bar]
            write_atomic(file, dump_json([asdict(row) for row in rows], indent=1))
        found[qp] = [ClipPoint(**row) for row in json.loads(file.read_text())]
    return found


def measure_clip(codec: Codec, head: ClipHead | None, key: str, clip: np.ndarray, label: int, qp: int) -> ClipPoint:
    """Code a clip, uint8 (T, H, W, 3), and decode it; `head`: None for a model without a base.

    Raises VidlbcError where the base alone gives other logits than the whole stream.
    """
    data = codec.compress(clip, qp)
    height, width = clip.shape[1:3]
    started = time.perf_counter()
    latents = codec.dequantise(codec.padded_symbols(data), qp)
    seconds = time.perf_counter() - started
    decoded = codec.synthesize(latents, qp, height, width)
    plain = ClipPoint(key, clip[..., 0].size, len(data), float(psnr(decoded, clip).mean()), seconds)
    if head is None:
        return plain
    stage = codec.stage
    assert isinstance(stage, Scalable)
    file = CountedFile(data)
    started = time.perf_counter()
    base = codec.latents(file, base=True)
    base_seconds = time.perf_counter() - started
    with torch.inference_mode():
        logits, from_all = head(base[0][None])[0], head(codec.crop(latents, height, width)[-2][None])[0]
        shown = stage.preview(base)[..., :height, :width]
    if not torch.equal(logits, from_all):
        raise VidlbcError(f"{key} at qp {qp}: the base alone gives other logits than the whole stream")
    own = {
        "base_bytes": vidlbc.inspect(data).base_bytes,
        "base_read": file.count,
        "base_seconds": base_seconds,
        "preview_psnr": float(psnr(as_frames(shown), clip).mean()),
        "right": bool(logits.argmax() == label),
        "nats": float(F.cross_entropy(logits[None], torch.tensor([label]))),
    }
    return replace(plain, **own)


def as_frames(decoded: torch.Tensor) -> np.ndarray:
    """(T, 3, H, W), not clamped -> uint8 (T, H, W, 3)."""
    return (decoded.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
