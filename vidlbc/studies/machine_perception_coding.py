"""Codecs at equal bytes: learned latents, x264 and per-frame JPEG, each with one setting that moves its rate.

Every size is that of a file that decodes alone (but for the weights of the learned codec):

    latents     a vidlbc bitstream, temporal=none: every frame by the image stage's own prior
    x264        a raw H.264 stream (Annex B, no container), libx264 medium, 4:2:0, CRF; it predicts between frames
    jpeg        the tables once (an abbreviated stream, ITU-T T.81 B.5), then every frame without tables, as Motion JPEG
                files do: of a 128-pixel JPEG file on its own, over 600 bytes are the standard tables
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec import Codec
from vidlbc.errors import InputError, VidlbcError

_LENGTH = 4  # bytes that say how long a JPEG frame is


class OutOfReach(VidlbcError):
    """A codec has no setting near the bytes wanted."""


class Coder(ABC):
    """Frames uint8 (T, H, W, 3) to bytes and back. `settings`: values of its one setting, by rising rate."""

    name: str
    setting: str
    settings: tuple[float, ...]

    @abstractmethod
    def encode(self, frames: np.ndarray, value: float) -> bytes: ...

    @abstractmethod
    def decode(self, data: bytes) -> np.ndarray: ...

    def seen(self, frames: np.ndarray, value: float, chosen: Sequence[int]) -> list[Tensor]:
        """What a head sees of the `chosen` frames: one tensor a level, here pictures (T, H, W, 3) uint8."""
        return [torch.from_numpy(self.decode(self.encode(frames, value))[list(chosen)])]


class Latents(Coder):
    setting, settings = "qp", tuple(range(64))

    def __init__(self, name: str, codec: Codec) -> None:
        self.name, self.codec = name, codec

    def encode(self, frames: np.ndarray, value: float) -> bytes:
        return self.codec.compress(frames, qp=int(value))

    def decode(self, data: bytes) -> np.ndarray:
        return self.codec.decompress(data)

    def seen(self, frames: np.ndarray, value: float, chosen: Sequence[int]) -> list[Tensor]:
        """Dequantised latents (T, C_l, H_l, W_l). No bitstream is written: without a temporal stage frames are coded
        each on its own, and a bitstream gives back the very symbols."""
        return self.codec.dequantise(self.codec.analyse(frames[list(chosen)], int(value)), int(value))


class X264(Coder):
    """Sides must be even. Raises InputError where PyAV has no libx264."""

    name, setting = "x264", "crf"
    settings = tuple(float(crf) / 4 for crf in range(4 * 51, -1, -1))

    def encode(self, frames: np.ndarray, value: float) -> bytes:
        import av

        try:
            codec: Any = av.CodecContext.create("libx264", "w")
        except ValueError:
            raise InputError("PyAV has no libx264 encoder: install PyAV's own wheels") from None
        codec.height, codec.width = frames.shape[1:3]
        codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, 15), Fraction(15)
        codec.options = {"preset": "medium", "crf": str(value), "threads": "1"}
        pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24") for frame in frames)
        packets = [packet for picture in pictures for packet in codec.encode(picture)]
        return b"".join(bytes(packet) for packet in [*packets, *codec.encode(None)])

    def decode(self, data: bytes) -> np.ndarray:
        import av

        with av.open(io.BytesIO(data), "r", format="h264") as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class Jpeg(Coder):
    name, setting = "jpeg", "quality"
    settings = tuple(float(quality) for quality in range(1, 96))

    def encode(self, frames: np.ndarray, value: float) -> bytes:
        from PIL import Image

        def saved(frame: np.ndarray, stream: int) -> bytes:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=int(value), subsampling="4:2:0", streamtype=stream)
            return file.getvalue()

        parts = [saved(frames[0], 1), *(saved(frame, 2) for frame in frames)]
        return b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)

    def decode(self, data: bytes) -> np.ndarray:
        from PIL import Image

        parts, at = [], 0
        while at < len(data):
            length = int.from_bytes(data[at : at + _LENGTH], "big")
            parts.append(data[at + _LENGTH : at + _LENGTH + length])
            at += _LENGTH + length
        tables = parts[0][:-2]  # without its end marker; a frame's own start marker is left out instead
        return np.stack([np.array(Image.open(io.BytesIO(tables + part[2:])).convert("RGB")) for part in parts[1:]])


def matched(
    coder: Coder, clips: Sequence[np.ndarray], target: int, on_trial: Callable[[], Any] | None = None
) -> float:
    """The setting at which the clips' bytes are nearest to `target`: bisection over the settings.

    Raises OutOfReach where even the ends of the range are more than twice too large or too small.
    """

    def size(index: int) -> int:
        if index not in sizes:
            sizes[index] = sum(len(coder.encode(clip, coder.settings[index])) for clip in clips)
            if on_trial is not None:
                on_trial()
        return sizes[index]

    sizes: dict[int, int] = {}
    low, high = 0, len(coder.settings) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    best = min((low, high), key=lambda index: abs(size(index) - target))
    if not target / 2 <= size(best) <= 2 * target:
        at = f"{coder.setting} {coder.settings[best]:g}"
        raise OutOfReach(f"{coder.name}: its nearest to {target} bytes are {size(best)} at {at}; change probe.qps")
    return coder.settings[best]
