"""All contestants code the same clip in turn, several rounds; the medians are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from vidlbc.errors import InputError
from vidlbc.qa.benchmark.contestants import Contestant


@dataclass(frozen=True)
class Speed:
    """Frames a second; the ratios are vidlbc's speed over this one's. `bpp` and `psnr` are None where untrained."""

    name: str
    encode_fps: float
    decode_fps: float
    bpp: float | None
    psnr: float | None
    encode_ratio: float = 1.0
    decode_ratio: float = 1.0


@dataclass
class _Times:
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def race(
    contestants: Sequence[Contestant],
    frames: np.ndarray,
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Speed]:
    """Time every contestant `rounds` times on `frames` (T, H, W, 3); the first is the one that ratios refer to.

    Rounds go over all contestants, so that what else the machine does hits them alike. The clip is coded once
    unmeasured before. Raises InputError where a contestant does not give back as many frames, of the same size.
    """
    times = {c.name: _Times() for c in contestants}
    results: dict[str, tuple[float | None, float | None]] = {}
    for contestant in contestants:
        progress(f"warming up {contestant.name}")
        contestant.decode(contestant.encode(frames), frames)
    for number in range(rounds):
        for contestant in contestants:
            progress(f"round {number + 1} of {rounds}: {contestant.name}")
            start = time.perf_counter()
            coded = contestant.encode(frames)
            middle = time.perf_counter()
            decoded = contestant.decode(coded, frames)
            times[contestant.name].decode.append(time.perf_counter() - middle)
            times[contestant.name].encode.append(middle - start)
            if decoded.shape != frames.shape:
                raise InputError(f"{contestant.name} decoded {decoded.shape}, expected {frames.shape}")
            results[contestant.name] = _quality(contestant, len(coded), decoded, frames)
    rates = {n: (len(frames) / median(t.encode), len(frames) / median(t.decode)) for n, t in times.items()}
    ours = rates[contestants[0].name]
    return [
        Speed(c.name, *rates[c.name], *results[c.name], ours[0] / rates[c.name][0], ours[1] / rates[c.name][1])
        for c in contestants
    ]


def _quality(
    contestant: Contestant, size: int, decoded: np.ndarray, frames: np.ndarray
) -> tuple[float | None, float | None]:
    """(bits per pixel, mean PSNR of the frames in dB), or (None, None) for random weights."""
    if not contestant.trained:
        return None, None
    pixels = frames.shape[0] * frames.shape[1] * frames.shape[2]
    error = ((decoded.astype(np.float32) - frames) ** 2).mean((1, 2, 3))
    psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-10))
    return 8 * size / pixels, float(psnr.mean())
