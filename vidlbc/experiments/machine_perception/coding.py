"""Codecs at equal bytes: learned latents, x264 and per-frame JPEG, each with one setting that moves its rate.

Every size is that of a file that decodes alone (but for the weights of the learned codec):

    latents     a vidlbc bitstream, temporal=none: every frame by the image stage's own prior
    x264        vidlbc.evaluate.codecs.equal_bytes; it predicts between frames
    jpeg        the tables once (an abbreviated stream, ITU-T T.81 B.5), then every frame without tables, as Motion JPEG
                files do: of a 128-pixel JPEG file on its own, over 600 bytes are the standard tables
"""

import io
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vidlbc.codec.codec import Codec
from vidlbc.evaluate.codecs.equal_bytes import Coder

_LENGTH = 4  # bytes that say how long a JPEG frame is


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
