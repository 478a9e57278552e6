"""That one model decodes every variant: bitstreams written here, decoded by a process that has only files."""

import hashlib
import multiprocessing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.codec.codec import Codec
from vidlbc.codec.load import load
from vidlbc.run.atomic_files import write_atomic


def check_streams(out: Path, codec: Codec, frames: np.ndarray, variants: Iterable[str], qp: int) -> dict[str, Any]:
    """Write OUT/streams/VARIANT.vlbc of uint8 (T, H, W, 3) frames, decode them in a new process with OUT/model.

    `codec` is that model. By variant: bytes, frames, and whether both processes decoded the same pixels.
    """
    names = list(variants)
    files = [out / "streams" / f"{name}.vlbc" for name in names]
    here = []
    for name, file in zip(names, files, strict=True):
        data = codec.compress(frames, qp=qp, variant=name)
        write_atomic(file, data)
        here.append((len(data), _digest(codec, data)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_decoded, (out / "model", files))
    return {
        name: {"bytes": size, "frames": len(frames), "same_in_another_process": digest == other}
        for name, (size, digest), other in zip(names, here, there, strict=True)
    }


def _decoded(model: Path, files: list[Path]) -> list[str]:
    codec = load(model, "cpu")
    return [_digest(codec, file.read_bytes()) for file in files]


def _digest(codec: Codec, data: bytes) -> str:
    return hashlib.sha256(codec.decompress(data).tobytes()).hexdigest()
