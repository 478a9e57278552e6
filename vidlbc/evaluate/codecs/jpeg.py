"""Every frame as a JPEG file of its own, one after another (Pillow, 4:2:0)."""

import io
from fractions import Fraction

import numpy as np

from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.base import Anchor

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_LENGTH = 4  # bytes that say how long a frame without tables is


class Jpeg(Anchor):
    """`shared_tables`: the standard tables once (an abbreviated stream, ITU-T T.81 B.5), then every frame without
    tables, as Motion JPEG files do; of a file of 128 pixels on its own, over 600 bytes are tables. Otherwise whole
    files, each with optimised tables."""

    name, scale, suffix = "jpeg", "quality", ".mjpeg"
    qualities = (10, 25, 50, 75, 90)
    steps = range(1, 96)

    def __init__(self, shared_tables: bool = False) -> None:
        import PIL

        self._shared = shared_tables
        tables = "standard tables once" if shared_tables else "a file a frame, optimised tables"
        self.settings = f"Pillow {PIL.__version__}, {tables}, 4:2:0"

    def check(self, quality: float) -> None:
        if isinstance(quality, bool) or quality != int(quality) or not 1 <= quality <= 100:
            raise InputError(f"jpeg={quality}: expected qualities from 1 to 100")

    def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
        from PIL import Image

        self.check(quality)

        def saved(frame: np.ndarray, **options: int) -> bytes:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=int(quality), subsampling="4:2:0", **options)
            return file.getvalue()

        if not self._shared:
            return b"".join(saved(frame, optimize=True) for frame in frames)
        parts = [saved(frames[0], streamtype=1), *(saved(frame, streamtype=2) for frame in frames)]
        return b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)

    def decode(self, data: bytes, height: int | None = None, width: int | None = None) -> np.ndarray:
        from PIL import Image

        files = _with_tables(data) if self._shared else _files(data)
        return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


def _files(data: bytes) -> list[bytes]:
    # Within entropy-coded data 0xff is followed by 0 or a restart marker: end and start together mark a file's end.
    parts = data.split(_END + _START)
    return [(_START if i else b"") + part + (_END if i < len(parts) - 1 else b"") for i, part in enumerate(parts)]


def _with_tables(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + _LENGTH], "big")
        parts.append(data[at + _LENGTH : at + _LENGTH + length])
        at += _LENGTH + length
    tables = parts[0][:-2]  # without its end marker; a frame's own start marker is left out instead
    return [tables + part[2:] for part in parts[1:]]
