"""Codecs that race, each an anchor (vidlbc.evaluate.codecs) at one quality.

What a figure includes: RGB frames in memory to the bytes of a file in memory, and back; colour conversion, entropy
coding and Python overhead count, model loading does not. CompressAI's models run with random weights: their arithmetic
is the same, and so is their speed (their entropy coder's differs little with the symbols), but rate and quality mean
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError
from vidlbc.evaluate.codecs import Anchor, CompressAIModel, VideoCodec
from vidlbc.evaluate.codecs.compressai import PREFIX
from vidlbc.evaluate.codecs.ours import Vidlbc

_FPS = Fraction(25)


@dataclass(frozen=True)
class Contestant:
    """`trained=False`: rate and quality are not to be reported."""

    name: str
    anchor: Anchor
    quality: float
    trained: bool = True

    def encode(self, frames: np.ndarray) -> bytes:
        return self.anchor.encode(frames, self.quality, _FPS)

    def decode(self, data: bytes, frames: np.ndarray) -> np.ndarray:
        """`frames`: those that were coded, for their size."""
        return self.anchor.decode(data, *frames.shape[1:3])


def ours(codec: Codec, qp: int) -> Contestant:
    return Contestant(f"vidlbc {codec.kind}", Vidlbc(codec.kind, codec), qp)


def x265(preset: str, crf: int, threads: int) -> Contestant:
    return Contestant(f"x265 {preset}", VideoCodec("x265", preset=preset, threads=threads), crf)


def _untrained(architecture: str, device: str) -> Contestant:
    model = CompressAIModel(PREFIX + architecture, None, device, trained=False)
    return Contestant(architecture, model, model.qualities[0], trained=False)


# name -> maker(device, threads)
OTHERS: dict[str, Callable[[str, int], Contestant]] = {
    "bmshj2018-hyperprior": lambda device, threads: _untrained("bmshj2018-hyperprior", device),
    "mbt2018-mean": lambda device, threads: _untrained("mbt2018-mean", device),
    "ssf2020": lambda device, threads: _untrained("ssf2020", device),
    "x265": lambda device, threads: x265("medium", 28, threads),
}


def build_others(names: list[str], device: str, threads: int) -> list[Contestant]:
    """Contestants by name. Raises InputError for an unknown one."""
    for name in names:
        if name not in OTHERS:
            raise InputError(f"against: unknown codec '{name}', expected some of {', '.join(OTHERS)}")
    return [OTHERS[name](device, threads) for name in names]
