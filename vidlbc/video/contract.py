"""What the rest of vidlbc knows about video files: `VideoInfo`, `Verdict`, `VideoSource`.

The lower half (`Backend`, `Picture`, `Damage`, `Unreadable`) is the contract of a back end, the code that runs inside a
decoder process (`worker.py`). A back end decodes one file from its first frame to its last, in presentation order, and
never hands out a frame that the decoder flagged as damaged or made up. A new back end is one class with this contract:
`backend="package.module:Class"` selects it, an entry in `backends.BACKENDS` gives it a name.

This module is imported by every decoder process: it stays free of anything but numpy and the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

MIN_SIDE = 16
Status = Literal["ok", "damaged", "unreadable"]


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its first video stream, checked against its first decoded frame.

    width, height: pixels of the frames as delivered, after rotation, before any `max_side`.
    frames: the header's claim (None where the container makes none); only decoding tells the truth (`examine`).
    fps: average frames per second. duration: seconds, None when unknown.
    rotation: degrees counter-clockwise that the frames were turned by, from the file's display matrix, after they were
    mirrored left to right if `mirrored`. aspect: width of a pixel to its height, as shown.
    """

    path: str
    width: int
    height: int
    frames: int | None
    fps: Fraction
    duration: float | None
    codec: str
    pixel_format: str
    rotation: int
    backend: str
    backend_version: str
    mirrored: bool = False
    aspect: Fraction = Fraction(1)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; fps and aspect become strings "num/den"."""
        return {**self.__dict__, "fps": _written(self.fps), "aspect": _written(self.aspect)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> VideoInfo:
        return cls(**{**fields, "fps": Fraction(fields["fps"]), "aspect": Fraction(fields.get("aspect", 1))})


def _written(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


@dataclass(frozen=True)
class Verdict:
    """What decoding a file showed.

    ok: every frame asked for decoded cleanly. damaged: `frames` leading frames did, then `reason`. unreadable: none
    did. frames counts from the file's frame 0, also when reading began later; with `stop` it counts up to there.
    notes: in what the frames that were given are not what a player shows, or when.
    """

    status: Status
    frames: int
    reason: str
    backend: str
    backend_version: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.status == "unreadable":
            return f"unreadable: {self.reason}"
        told = "ok" if self.status == "ok" else f"damaged ({self.frames} frames): {self.reason}"
        return f"{told}; noted: {'; '.join(self.notes)}" if self.notes else told

    def with_reason(self, reason: str) -> Verdict:
        return replace(self, reason=reason)


class VideoSource(Protocol):
    """One video file. Frames are uint8 RGB; index i is the i-th frame that decoding from the start presents."""

    @property
    def info(self) -> VideoInfo: ...

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames start, start+1, ... as (H, W, 3). Raises VideoError at the first frame that does not decode."""
        ...

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Exactly these frames, in this order, (n, H, W, 3). Raises VideoError naming an index that does not decode."""
        ...

    def timestamps(self) -> np.ndarray:
        """Presentation time of every frame, float64 seconds, as the file states it (the first need not be 0)."""
        ...


class Damage(Exception):
    """Raised by a back end: from this frame on the file cannot be trusted."""


class Unreadable(Exception):
    """Raised by a back end: no frame can be had. settled: another back end would fare no better, do not try."""

    def __init__(self, reason: str, settled: bool = False) -> None:
        super().__init__(reason)
        self.settled = settled


class Missing(Exception):
    """Raised when a back end's library is not installed or does not load."""


class Picture(NamedTuple):
    """One decoded frame, not yet converted: skipping a frame then costs no colour conversion.

    height, width: as coded, before rotation. rgb: converts to uint8 (H, W, 3), rotated, its longest side at most the
    given number of pixels (None: untouched).
    """

    height: int
    width: int
    seconds: float | None
    rgb: Callable[[int | None], np.ndarray]


class Backend(Protocol):
    """Decodes one file inside a decoder process. `__init__(path)` raises Unreadable or Missing.

    One may also have `notes`, a list of str (see Verdict), complete once the pictures have been read; and
    `deinterlace`, set to True before where fields are to be parted.
    """

    name: str
    version: str

    def pictures(self) -> Iterator[Picture]:
        """Every frame in presentation order; raises Damage (also at the end, when the header promised more)."""
        ...

    def info(self, height: int, width: int) -> VideoInfo:
        """Called once, after the first picture, with the size of its RGB frame."""
        ...


def fitted_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """The size (height, width) whose longest side is at most max_side, same proportions; never larger than given.

    The shorter side keeps at least 16 pixels, which is what the codec takes: of a strip the longer one may be longer.
    """
    if max_side is None or max(height, width) <= max_side:
        return height, width
    scale = min(1.0, max(max_side / max(height, width), MIN_SIDE / min(height, width)))
    return max(1, round(height * scale)), max(1, round(width * scale))
