"""Codecs that race: each turns a clip into bytes and back, and has a name.

What a figure includes: RGB frames in memory to bytes in memory, and back; colour conversion, entropy coding and Python
overhead count, model loading does not. CompressAI's models run with random weights: their arithmetic is the same, and
so is their speed (their entropy coder's differs little with the symbols), but rate and quality mean nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.ffmpeg import VideoCodec


class Contestant(ABC):
    """`encode(frames) -> coded`, `decode(coded) -> frames`; frames are uint8 (T, H, W, 3)."""

    name: str
    trained = True  # False: rate and quality are not to be reported

    @abstractmethod
    def encode(self, frames: np.ndarray) -> Any: ...

    @abstractmethod
    def decode(self, coded: Any) -> np.ndarray: ...

    @abstractmethod
    def size(self, coded: Any) -> int:
        """Bytes of what `encode` returned."""


class Vidlbc(Contestant):
    """This package's codec."""

    def __init__(self, codec: Any, qp: int) -> None:
        self.codec, self.qp = codec, qp
        self.name = f"vidlbc {codec.kind}"

    def encode(self, frames: np.ndarray) -> bytes:
        return self.codec.compress(frames, qp=self.qp)

    def decode(self, coded: bytes) -> np.ndarray:
        return self.codec.decompress(coded)

    def size(self, coded: bytes) -> int:
        return len(coded)


class CompressAIImage(Contestant):
    """A CompressAI image model, frame after frame. One frame a call is also its fastest way on a CPU."""

    trained = False

    def __init__(self, architecture: str, device: str) -> None:
        self.name, self.device = architecture, device
        self.model = _untrained(_zoo().image_models[architecture](quality=4, pretrained=False), device)

    def encode(self, frames: np.ndarray) -> list[Any]:
        import torch

        with torch.inference_mode():
            return [self.model.compress(x) for x in _to_batches(frames, self.device)]

    def decode(self, coded: list[Any]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return _to_frames([self.model.decompress(c["strings"], c["shape"])["x_hat"] for c in coded])

    def size(self, coded: list[Any]) -> int:
        return sum(len(string) for c in coded for strings in c["strings"] for string in strings)


class CompressAIVideo(Contestant):
    """CompressAI's ssf2020 (scale-space flow)."""

    trained = False

    def __init__(self, architecture: str, device: str) -> None:
        self.name, self.device = architecture, device
        self.model = _untrained(_zoo().video_models[architecture](quality=4, pretrained=False), device)

    def encode(self, frames: np.ndarray) -> Any:
        import torch

        if frames.shape[1] % 128 or frames.shape[2] % 128:
            size = f"{frames.shape[1]}x{frames.shape[2]}"
            raise InputError(f"{self.name} takes sizes that are multiples of 128, got {size}")
        with torch.inference_mode():
            return self.model.compress(_to_batches(frames, self.device))

    def decode(self, coded: Any) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return _to_frames(self.model.decompress(*coded))

    def size(self, coded: Any) -> int:
        return _string_bytes(coded[0])


class X265(Contestant):
    """x265 as every comparison has it (vidlbc.evaluate.codecs): a raw stream, written in a process of its own."""

    def __init__(self, preset: str, crf: int, threads: int) -> None:
        self._codec, self._crf = VideoCodec("x265", preset=preset, threads=threads), crf
        self.name = f"x265 {preset}"
        self._size = (0, 0)

    def encode(self, frames: np.ndarray) -> bytes:
        self._size = frames.shape[1], frames.shape[2]
        return self._codec.encode(frames, self._crf, Fraction(25))

    def decode(self, coded: bytes) -> np.ndarray:
        return self._codec.decode(coded, *self._size)

    def size(self, coded: bytes) -> int:
        return len(coded)


# name -> maker(device, threads)
OTHERS: dict[str, Callable[[str, int], Contestant]] = {
    "bmshj2018-hyperprior": lambda device, threads: CompressAIImage("bmshj2018-hyperprior", device),
    "mbt2018-mean": lambda device, threads: CompressAIImage("mbt2018-mean", device),
    "ssf2020": lambda device, threads: CompressAIVideo("ssf2020", device),
    "x265": lambda device, threads: X265("medium", 28, threads),
}


def build_others(names: list[str], device: str, threads: int) -> list[Contestant]:
    """Contestants by name. Raises InputError for an unknown one."""
    for name in names:
        if name not in OTHERS:
            raise InputError(f"against: unknown codec '{name}', expected some of {', '.join(OTHERS)}")
    return [OTHERS[name](device, threads) for name in names]


def _zoo() -> Any:
    from vidlbc.codec.image_stage.compressai_families import import_compressai

    return import_compressai().zoo


def _untrained(model: Any, device: str) -> Any:
    model = model.eval().to(device)
    model.update(force=True)  # CDF tables: without them compress() raises
    return model


def _to_batches(frames: np.ndarray, device: str) -> list[Any]:
    import torch

    return [torch.from_numpy(f).to(device).permute(2, 0, 1)[None].float().div(255) for f in frames]


def _to_frames(pictures: list[Any]) -> np.ndarray:
    return np.stack([(x[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy() for x in pictures])


def _string_bytes(strings: Any) -> int:
    if isinstance(strings, bytes):
        return len(strings)
    values = strings.values() if isinstance(strings, dict) else strings
    return sum(_string_bytes(value) for value in values)
