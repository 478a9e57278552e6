"""Every frame as a JPEG file of its own (Pillow, 4:2:0, optimised tables), one after another."""

import io
from fractions import Fraction

import numpy as np

from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.base import Anchor

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"


class Jpeg(Anchor):
    name, scale, suffix = "jpeg", "quality", ".mjpeg"
    qualities = (10, 25, 50, 75, 90)

    def __init__(self) -> None:
        import PIL

        self.settings = f"Pillow {PIL.__version__}, a file a frame, 4:2:0, optimised tables"

    def check(self, quality: int) -> None:
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise InputError(f"jpeg={quality}: expected qualities from 1 to 100")

    def encode(self, frames: np.ndarray, quality: int, fps: Fraction) -> bytes:
        from PIL import Image

        self.check(quality)
        file = io.BytesIO()
        for frame in frames:
            Image.fromarray(frame).save(file, "JPEG", quality=quality, optimize=True)
        return file.getvalue()

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        from PIL import Image

        # Within entropy-coded data 0xff is followed by 0 or a restart marker: end and start together mark a file's end.
        parts = data.split(_END + _START)
        files = [(_START if i else b"") + part + (_END if i < len(parts) - 1 else b"") for i, part in enumerate(parts)]
        return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
