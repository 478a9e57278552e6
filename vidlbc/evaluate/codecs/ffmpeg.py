"""x264, x265 and SVT-AV1 as PyAV's wheels hold them, at constant quality (CRF), as raw streams without a container.

Pictures go in and come out as 8-bit RGB and are coded as YUV 4:2:0 (swscale, BT.601), as these codecs are used; the
conversion is part of their distortion and of their time. Odd sides are padded by one and cut again. Streams are without
the text in which x264 and x265 name their settings, 0.7 and 2.3 kB: half of a short clip at a low rate.

    random access   the preset as it is: B-frames, lookahead, key frames as the encoder sets them
    low delay       no reordering and no lookahead: tune zerolatency (x264, x265), pred-struct 1 (SVT-AV1)
"""

import io
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.base import Anchor
from vidlbc.video.encoder_process import EncoderError, EncoderProcess
from vidlbc.video.x264 import repeatable_x264, without_messages

_PROCESS = EncoderProcess()


@dataclass(frozen=True)
class _Encoder:
    """`format`: FFmpeg's name of the raw stream; `worst`: the end of the CRF scale, which starts at 0."""

    library: str
    format: str
    suffix: str
    worst: int
    qualities: tuple[int, ...]
    preset: str


_ENCODERS = {
    "x264": _Encoder("libx264", "h264", ".264", 51, (41, 35, 29, 23, 17), "medium"),
    "x265": _Encoder("libx265", "hevc", ".265", 51, (41, 35, 29, 23, 17), "medium"),
    "svtav1": _Encoder("libsvtav1", "obu", ".obu", 63, (60, 50, 40, 30, 20), "8"),
}
NAMES = tuple(_ENCODERS)
_WHOLE_CRF = ("svtav1",)
LOW_DELAY = "-ld"


class VideoCodec(Anchor):
    """One of NAMES; `preset`: of its encoder, by default medium (x264, x265) and 8 (SVT-AV1). `bare`: without the text
    in which x264 names its settings.

    Raises InputError where PyAV lacks it.
    """

    scale = "crf"

    def __init__(
        self, name: str, low_delay: bool = False, preset: str | None = None, threads: int = 1, bare: bool = True
    ) -> None:
        self._encoder, self._low_delay, self._threads = _ENCODERS[name], low_delay, threads
        self._library, self._bare = name, bare
        self.preset = preset or self._encoder.preset
        self.name = name + (LOW_DELAY if low_delay else "")
        self.qualities, self.suffix = self._encoder.qualities, self._encoder.suffix
        parts = 1 if name in _WHOLE_CRF else 4
        self.steps = [step / parts for step in range(parts * self._encoder.worst, -1, -1)]
        mode = "low delay" if low_delay else "random access"
        version = _version(self._encoder.library)
        self.settings = f"{version}, preset {self.preset}, {mode}, 4:2:0, {threads} threads{', bare' if bare else ''}"

    def check(self, quality: float) -> None:
        whole = self._library not in _WHOLE_CRF or quality == int(quality)
        if isinstance(quality, bool) or not whole or not 0 <= quality <= self._encoder.worst:
            raise InputError(f"{self.name}={quality}: expected a CRF from 0 to {self._encoder.worst}")

    def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
        """In a process of its own. Raises InputError where the encoder refuses the pictures, or dies of them."""
        self.check(quality)
        padded = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
        options = self._options(quality, padded.shape[2])
        try:
            data = _PROCESS.encode(padded, self._encoder.library, self._encoder.format, options, fps)
        except EncoderError as error:
            size = f"{frames.shape[2]}x{frames.shape[1]}"
            raise InputError(f"{self.name} cannot code pictures of {size} ({error})") from None
        return without_messages(data) if self._library == "x264" and self._bare else data

    def decode(self, data: bytes, height: int | None = None, width: int | None = None) -> np.ndarray:
        import av

        with av.open(io.BytesIO(data), "r", format=self._encoder.format) as container:
            stream = container.streams.video[0]
            stream.thread_count = self._threads
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.ascontiguousarray(np.stack(pictures)[:, :height, :width])

    def _options(self, crf: float, width: int) -> dict[str, str]:
        options = {"preset": self.preset, "crf": f"{crf:g}", "threads": str(self._threads)}
        if self._library == "svtav1":
            structure = ":pred-struct=1" if self._low_delay else ""
            return options | {"svtav1-params": f"lp={self._threads}{structure}"}
        if self._low_delay:
            options["tune"] = "zerolatency"
        if self._library == "x264":
            options |= repeatable_x264()
        if self._library == "x265":
            pools = "none" if self._threads == 1 else str(self._threads)
            # Pictures of 48 columns corrupt its heap (PyAV 18.1), seldom without assembler or adaptive quantisation.
            assembler = ":asm=0" if width < 64 else ""
            options["x265-params"] = f"log-level=none:info=0:pools={pools}:frame-threads=1{assembler}"
        return options


def _version(library: str) -> str:
    """Raises InputError where PyAV is not installed, or was built without it."""
    try:
        import av
    except ModuleNotFoundError:
        raise InputError(f"{library} needs PyAV: pip install av") from None

    try:
        av.CodecContext.create(library, "w")
    except (ValueError, av.error.FFmpegError):
        raise InputError(f"PyAV has no {library} encoder: install PyAV's own wheels") from None
    return f"{library} of PyAV {av.__version__}"
