"""Variant and QP of a clip, found by the encoder and told by the header: how much a clip needs depends on it.

    psnr        the fewest bytes that reach a quality: each variant's lowest QP that does, then the smallest
    bitrate     the best quality that fits: each variant's highest QP whose file is no larger, then the best
    bpp_per_db  each clip stops where a further dB would cost more than a price: min bpp - price * PSNR

"It is possible to use a shorter vector to represent an image with simple geometry and clean background, while a longer
vector to represent a web image with rich details" (Xie et al., arXiv 2105.13978, section 3.1). The first gives every
clip the same quality; the last gives a set of clips the best mean quality for its bytes, since at its optimum no byte
can be moved from one clip to another to gain (Shoham and Gersho, 1988). A decoder needs no more than for a constant
ratio: variant and QP are in every header. Real bytes and real pictures decide, never estimates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import count
from typing import BinaryIO, Protocol, Unpack

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream.rates import QP_GROWTH, bits_per_pixel, kilobits_per_second
from vidlbc.codec.coding import PACKET_FRAMES, EncodeReport
from vidlbc.codec.inputs import frames_tensor
from vidlbc.codec.options import CodingOptions, Options
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.video.distortion import psnr

# Frames that the bisection for a quality looks at, evenly spread; what it finds is then held against all frames.
_LOOKED_AT = 12
_FIRST_QP, _GROWTH = 32, math.log(QP_GROWTH)  # where the search for a bitrate starts from
# Latents are kept up to so many bytes (some 300 frames of 1280x720); those of larger clips are analysed at every try.
_KEPT_BYTES = 1 << 30

TARGETS = {"psnr": "a number of dB", "bitrate": "kbit/s", "bpp_per_db": "bits per pixel"}


@dataclass(frozen=True)
class Target:
    """What rate control aims at: `name` is one of TARGETS."""

    name: str
    value: float

    @classmethod
    def one_of(cls, **given: float | None) -> "Target":
        """The one that is not None. Raises InputError where there are two, or it is no number above 0."""
        found = [cls(name, value) for name, value in given.items() if value is not None]
        if len(found) != 1:
            both = " and ".join(target.name for target in found[:2])
            raise InputError(f"{both or 'none'} given: expected one of {', '.join(given)}")
        found[0].check()
        return found[0]

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Of what `str` gives, which rows of shards have. Raises ValueError."""
        name, _, value = text.partition("=")
        return cls(name, float(value))

    def __str__(self) -> str:
        return f"{self.name}={self.value:g}"

    def met(self, reached: float) -> bool:
        """Whether what was reached is no worse, or no larger, than what was asked for; a price always is."""
        if self.name == "psnr":
            return reached >= self.value - 0.005
        return self.name != "bitrate" or reached <= self.value * 1.0001

    def check(self) -> None:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{self.name}={value!r}: expected {TARGETS[self.name]} above 0, or null")

    def check_rate(self, fps: float | Fraction) -> None:
        """Raises InputError where a bitrate is wanted of frames whose rate is not known."""
        if self.name == "bitrate" and not fps > 0:
            raise InputError(
                f"bitrate={self.value!r}: the frame rate is not known, and kbit/s need it; give fps, or qp"
            )


@dataclass(frozen=True)
class TargetReport(EncodeReport):
    """`reached`: mean PSNR in dB for a target of quality or price, kbit/s for one of bitrate."""

    reached: float


class RateControlled(Protocol):
    """What rate control asks of a codec; see `vidlbc.codec.codec.Codec`."""

    moves: bool

    @property
    def variants(self) -> tuple[str, ...]: ...

    @property
    def prefers_rdo(self) -> bool: ...

    def encode(
        self, frames: np.ndarray | Tensor, qp: int = 32, **options: Unpack[Options]
    ) -> tuple[bytes, list[Tensor], EncodeReport]: ...

    def compress_symbols(
        self, symbols: Sequence[Tensor], qp: int, height: int, width: int, **options: Unpack[Options]
    ) -> tuple[bytes, EncodeReport]: ...

    def decompress(self, data: bytes) -> np.ndarray: ...

    def unquantised(self, frames: np.ndarray | Tensor) -> list[Tensor]: ...

    def quantise(
        self, latents: Sequence[Tensor], qp: int, height: int, width: int, **options: Unpack[Options]
    ) -> list[Tensor]: ...

    def dequantise(self, symbols: Sequence[Tensor], qp: int | Sequence[int]) -> list[Tensor]: ...

    def synthesize(self, latents: Sequence[Tensor], qp: int | Sequence[int], height: int, width: int) -> np.ndarray: ...


def compress_to_target(
    codec: RateControlled,
    frames: np.ndarray | Tensor,
    sink: BinaryIO,
    target: Target,
    *,
    variants: tuple[str | None, ...] | None = None,
    **options: Unpack[Options],
) -> TargetReport:
    """Write the bitstream of uint8 (T, H, W, 3) that meets the target best.

    psnr: the smallest whose mean PSNR (RGB, over frames) is at least the target; where none is, the best there is.
    bitrate: of those whose whole file is no larger than the target, the one with the highest QP, and over variants the
    highest mean PSNR; bytes are taken to rise with the QP. Where none is that small, the smallest there is. A step of
    the QP is some 7% of the bytes: so far below the target may be what is reached.
    bpp_per_db: the variant and QP that minimise bits per pixel - target * mean PSNR in dB, looked for on a packet of
    frames from the middle of the clip.

    `variants`: those to choose from, by default the `variant` of `options`, or all of the codec's. Raises InputError
    for a target that is no number above 0, and for a bitrate where `fps` is not known.
    """
    target.check()
    chosen = CodingOptions(**options)
    target.check_rate(chosen.rate)
    if chosen.rdo is None:
        chosen = replace(chosen, rdo=codec.prefers_rdo)
    if variants is None and chosen.variant is not None:
        variants = (chosen.variant,)
    clip = _Clip(codec, frames_tensor(frames), chosen)
    search = {"psnr": _to_psnr, "bitrate": _to_bitrate, "bpp_per_db": _at_price}[target.name]
    coded = search(clip, variants or codec.variants or (None,), target.value)
    sink.write(coded.data)
    reached = clip.kbps(coded) if target.name == "bitrate" else clip.quality(coded)
    return TargetReport(**vars(coded.report), reached=reached)


@dataclass(frozen=True)
class _Coded:
    symbols: list[Tensor]
    data: bytes
    report: EncodeReport


class _Clip:
    """A clip in memory, analysed once, to be coded at any QP and variant."""

    def __init__(self, codec: RateControlled, frames: Tensor, options: CodingOptions):
        self._codec, self.frames, self._options = codec, frames, options
        self._latents: list[Tensor] | None = None

    @property
    def predicted(self) -> bool:
        """Whether a picture that is shown may owe its quality to one before it."""
        return self._codec.moves and bool(self._options.rdo) and self._options.context

    def glimpse(self) -> "_Clip":
        """Some frames, evenly spread, whose symbols are rounded."""
        count = len(self.frames)
        indices = np.linspace(0, count - 1, min(count, _LOOKED_AT)).round().astype(int)
        return _Clip(self._codec, self.frames[torch.from_numpy(indices)], replace(self._options, rdo=False))

    def middle(self) -> "_Clip":
        """A packet's frames from the middle."""
        first = max(0, (len(self.frames) - PACKET_FRAMES) // 2)
        return _Clip(self._codec, self.frames[first : first + PACKET_FRAMES], self._options)

    def rounded_quality(self, variant: str | None, qp: int) -> float:
        """Mean PSNR in dB of frames that rounded symbols show, each alone."""
        return self._shown(self._symbols(variant, qp), qp)

    def code(self, variant: str | None, qp: int) -> _Coded:
        """What `compress` gives."""
        if self._codec.moves:
            data, symbols, report = self._codec.encode(self.frames, qp, **self._keywords(variant))
            return _Coded(symbols, data, report)
        height, width = self.frames.shape[1:3]
        symbols = self._symbols(variant, qp)
        options = self._keywords(variant) | {"rdo": False, "skip": self._options.skipped}
        data, report = self._codec.compress_symbols(symbols, qp, height, width, **options)
        return _Coded(symbols, data, report)

    def quality(self, coded: _Coded) -> float:
        """Mean PSNR in dB of the frames as they will be decoded."""
        if self._codec.moves:
            return self._psnr(self._codec.decompress(coded.data))
        return self._shown(coded.symbols, coded.report.qp)

    def _keywords(self, variant: str | None) -> Options:
        options = self._options
        return Options(context=options.context, fps=options.fps, variant=variant, rdo=options.rdo, skip=options.skip)

    def _symbols(self, variant: str | None, qp: int) -> list[Tensor]:
        latents = self._latents
        if latents is None:
            latents = self._codec.unquantised(self.frames)
            if sum(y.nbytes for y in latents) <= _KEPT_BYTES:
                self._latents = latents
        height, width = self.frames.shape[1:3]
        return self._codec.quantise(latents, qp, height, width, **self._keywords(variant))

    def _shown(self, symbols: list[Tensor], qp: int) -> float:
        latents = self._codec.dequantise(symbols, qp)
        return self._psnr(self._codec.synthesize(latents, qp, *self.frames.shape[1:3]))

    def _psnr(self, pictures: np.ndarray) -> float:
        return float(np.mean(psnr(pictures, self.frames.cpu().numpy())))

    def kbps(self, coded: _Coded) -> float:
        return kilobits_per_second(len(coded.data), len(self.frames), self._options.rate)


def _to_psnr(clip: _Clip, variants: tuple[str | None, ...], target: float) -> _Coded:
    found = []
    for variant in variants:
        coded, quality = _lowest_qp(clip, variant, target)
        found.append((quality < target, len(coded.data) if quality >= target else -quality, coded))
    return min(found, key=lambda entry: entry[:2])[2]


def _lowest_qp(clip: _Clip, variant: str | None, target: float) -> tuple[_Coded, float]:
    """The lowest QP that reaches the target, or the highest there is, with its quality.

    Rounding alone is tried on some frames first: what is chosen for its rate too needs a QP no lower, and seldom one
    much higher. Only where pictures are predicted from each other a lower one may do.
    """
    some = clip.glimpse()
    low, high = 0, NUM_QP - 1
    while low < high:
        middle = (low + high) // 2
        if some.rounded_quality(variant, middle) >= target:
            high = middle
        else:
            low = middle + 1
    known: dict[int, tuple[_Coded, float]] = {}

    def reaches(qp: int) -> bool:
        coded = clip.code(variant, qp)
        known[qp] = coded, clip.quality(coded)
        return known[qp][1] >= target

    step, under = 1, low - 1
    if reaches(low):
        while clip.predicted and under >= 0 and reaches(under):
            low, step = under, 2 * step
            under = max(low - step, -1)
    while known[low][1] < target and low < NUM_QP - 1:
        under, low, step = low, min(low + step, NUM_QP - 1), 2 * step
        reaches(low)
    while low - under > 1 and known[low][1] >= target:
        middle = (under + low) // 2
        under, low = (under, middle) if reaches(middle) else (middle, low)
    return known[low]


def _to_bitrate(clip: _Clip, variants: tuple[str | None, ...], target: float) -> _Coded:
    found = []
    for variant in variants:
        coded = _highest_qp(partial(clip.code, variant), clip.kbps, target)
        over = max(0.0, clip.kbps(coded) - target)
        quality = clip.quality(coded) if len(variants) > 1 else 0.0
        found.append((over, -quality, coded))
    return min(found, key=lambda entry: entry[:2])[2]


def _highest_qp(code: Callable[[int], _Coded], rate: Callable[[_Coded], float], target: float) -> _Coded:
    """What the highest QP gives whose rate is at most `target`, or QP 0 where none is.

    False position on the logarithm of rates, which are nearly a straight line; every third try halves the bracket.
    """
    fits: _Coded | None = None
    low, high = -1, NUM_QP  # `low` fits, `high` does not
    excess_low = excess_high = 0.0
    qp = _FIRST_QP
    for tries in count(1):
        coded = code(qp)
        excess = math.log(rate(coded) / target)
        if excess <= 0:
            fits, low, excess_low = coded, qp, excess
        else:
            high, excess_high = qp, excess
            if qp == 0:
                return coded
        if fits is not None and high - low == 1:
            break
        bracketed = low >= 0 and high < NUM_QP
        growth = (excess_high - excess_low) / (high - low) if bracketed else _GROWTH
        guess = low - excess_low / growth if low >= 0 else high - excess_high / growth
        qp = min(max(math.floor(guess), low + 1), high - 1) if tries % 3 else (low + high) // 2
    assert fits is not None
    return fits


def _at_price(clip: _Clip, variants: tuple[str | None, ...], price: float) -> _Coded:
    part = clip.middle()
    known: dict[tuple[str | None, int], float] = {}

    def cost(variant: str | None, qp: int) -> float:
        if (variant, qp) not in known:
            coded = part.code(variant, qp)
            known[variant, qp] = bits_per_pixel(len(coded.data), *part.frames.shape[:3])
            known[variant, qp] -= price * part.quality(coded)
        return known[variant, qp]

    for variant in variants:
        low, high = 0, NUM_QP - 1
        while high - low > 2:  # the cost falls, then rises
            left, right = low + (high - low) // 3, high - (high - low) // 3
            low, high = (low, right) if cost(variant, left) <= cost(variant, right) else (left, high)
        for qp in range(low, high + 1):
            cost(variant, qp)
    return clip.code(*min(known, key=lambda choice: known[choice]))
