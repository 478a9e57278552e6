"""The settings of an encoding run, and which of them show in the bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vidlbc.errors import InputError


@dataclass(frozen=True)
class EncodingSettings:
    """What, besides source and weights, decides the bytes (but for those in `INVISIBLE`)."""

    qp: int = 32
    context: bool = True
    clip_frames: int = 256
    max_side: int | None = None
    backend: str = "auto"
    model: str = "default"
    temporal: str | None = None
    precision: str = "fp32"
    block: int = 16
    deadline_s: float = 60.0
    variant: str | None = None
    psnr: float | None = None
    bpp_per_db: float | None = None
    bitrate: float | None = None
    rdo: bool = False
    every: int | None = None
    effort: str = "default"
    keyint: int = 0
    deinterlace: bool = False
    picture_fps: float = 25.0

    def __post_init__(self) -> None:
        if not 0 <= self.qp <= 63:
            raise InputError(f"qp={self.qp}: expected a whole number from 0 to 63")
        for name in ("clip_frames", "block", "every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.max_side is not None and self.max_side < 16:
            raise InputError(f"max_side={self.max_side}: expected at least 16 pixels, or null")
        if not 0 < self.picture_fps <= 1000:
            raise InputError(f"picture_fps={self.picture_fps}: expected frames a second above 0, at most 1000")
        if self.deadline_s <= 0:
            raise InputError(f"deadline_s={self.deadline_s}: expected seconds above 0")
        if not isinstance(self.rdo, bool):
            raise InputError(f"rdo={self.rdo}: expected true, false or null")
        for name, (unit, most) in _TARGETS.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or not 0 < value < most):
                raise InputError(f"{name}={value}: expected {unit} above 0 and below {most}, or null")
        given = [name for name in (*_TARGETS, "variant") if getattr(self, name) is not None]
        if len(given) > 1:
            choices = f"{', '.join(_TARGETS)} and variant"
            raise InputError(f"{given[0]} and {given[1]} are both given: expected one of {choices}")

    @property
    def target(self) -> tuple[str, float] | None:
        """What rate control aims at (`vidlbc.codec.rate_control.Target`); None: `qp` for all clips."""
        return next(((n, getattr(self, n)) for n in _TARGETS if getattr(self, n) is not None), None)

    @property
    def step(self) -> int:
        """Frames of the source from one coded frame to the next."""
        return self.every or 1

    def visible(self) -> dict[str, Any]:
        """The settings that show in the bytes; those of _LATER only where set, so that older shards keep their keys."""
        shown = {name: value for name, value in asdict(self).items() if name not in INVISIBLE}
        return {
            name: value
            for name, value in shown.items()
            if name not in _LATER or value != getattr(EncodingSettings, name)
        }


# `model` and `temporal` say where the weights were found; the fingerprint says what they are.
INVISIBLE = ("block", "deadline_s", "model", "temporal")
_TARGETS = {"psnr": ("dB", 100), "bitrate": ("kbit/s", 10**9), "bpp_per_db": ("bits per pixel", 100)}
_LATER = ("variant", *_TARGETS, "rdo", "every", "effort", "keyint", "deinterlace", "picture_fps")
