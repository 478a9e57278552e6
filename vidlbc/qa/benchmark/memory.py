"""Peak memory against clip length: each length in a fresh process, streaming in and out.

    python -m vidlbc.qa.benchmark.memory '{"model": "default", "frames": 128, ...}'     what the parent starts

The child encodes a generated clip block by block into a file and decodes it block by block, so that what it holds is
the codec's, not the clip's. A codec that streams needs the same for 32 frames as for 512.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vidlbc.errors import VidlbcError
from vidlbc.qa.benchmark.clip import generated_clip

BLOCK = 16


@dataclass(frozen=True)
class MemoryTask:
    """What a child process measures."""

    model: str
    temporal: str | None
    device: str
    threads: int
    qp: int
    size: int
    frames: int


@dataclass(frozen=True)
class Peak:
    """Peak resident memory in MB: of the process with the codec loaded and warm, and after coding `frames` frames."""

    frames: int
    loaded_mb: float
    peak_mb: float
    bytes: int


def measure(task: MemoryTask, timeout_s: float = 1800) -> Peak:
    """Run `task` in a fresh process. Raises VidlbcError with the child's last line where it fails."""
    command = [sys.executable, "-m", "vidlbc.qa.benchmark.memory", json.dumps(asdict(task))]
    child = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise VidlbcError(f"memory measurement of {task.frames} frames failed: {last}")
    return Peak(**json.loads(child.stdout.splitlines()[-1]))


def _child(task: MemoryTask) -> Peak:
    import torch

    import vidlbc

    torch.set_num_threads(task.threads)
    codec = vidlbc.load(task.model, device=task.device, temporal=task.temporal)
    codec.decompress(codec.compress(np.stack(list(generated_clip(BLOCK, task.size))), qp=task.qp))
    loaded = _peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.vlbc"
        with path.open("wb") as sink:
            report = codec.compress_stream(_blocks(task.frames, task.size), sink, qp=task.qp)
        with path.open("rb") as source:
            decoded = sum(len(block) for block in codec.decompress_stream(source))
        if decoded != task.frames or report.frames != task.frames:
            raise VidlbcError(f"coded {report.frames} and decoded {decoded} of {task.frames} frames")
        return Peak(task.frames, loaded, _peak_mb(), path.stat().st_size)


def _blocks(frames: int, size: int) -> Iterator[np.ndarray]:
    block: list[np.ndarray] = []
    for picture in generated_clip(frames, size):
        block.append(picture)
        if len(block) == BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)  # Linux counts in KB, macOS in bytes


if __name__ == "__main__":
    print(json.dumps(asdict(_child(MemoryTask(**json.loads(sys.argv[1]))))))
