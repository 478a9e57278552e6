"""A compression ratio per clip, found by the encoder and told by the header: how much a clip needs depends on it.

    compress_to_psnr     the fewest bytes that reach a quality: each variant's lowest QP that does, then the smallest
    compress_at_price    each clip stops where a further dB would cost more than a price: min bpp - price * PSNR

"It is possible to use a shorter vector to represent an image with simple geometry and clean background, while a longer
vector to represent a web image with rich details" (Xie et al., arXiv 2105.13978, section 3.1). The first gives every
clip the same quality; the second gives a set of clips the best mean quality for its bytes, since at its optimum no byte
can be moved from one clip to another to gain (Shoham and Gersho, 1988). A decoder needs no more than for a constant
ratio: variant and QP are in every header.
"""

import io
import math
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from vidlbc.codec import PACKET_FRAMES, Codec
from vidlbc.coding import EncodeReport
from vidlbc.errors import InputError
from vidlbc.evaluation.distortion import psnr
from vidlbc.evaluation.rate import bits_per_pixel
from vidlbc.prior.topdown import NUM_QP

# Frames that the bisection looks at, evenly spread; the QP that it finds is then held against all frames.
_LOOKED_AT = 12


def compress_to_psnr(
    codec: Codec,
    frames: np.ndarray,
    sink: BinaryIO,
    target: float,
    context: bool = True,
    fps: float | Fraction = 0,
    variants: tuple[str | None, ...] | None = None,
) -> EncodeReport:
    """Write the smallest bitstream of uint8 (T, H, W, 3) whose mean PSNR (RGB, over frames) is at least `target` dB.

    `variants`: those to choose from, by default all of the codec's. Where none reaches the target, the best that the
    codec can do is written. Raises InputError for a target that is no number of dB above 0.
    """
    check_psnr(target)
    found = []
    for variant in variants or codec.variants or (None,):
        qp, reached = _lowest_qp(codec, frames, variant, target)
        data = io.BytesIO()
        report = codec.compress_stream([frames], data, qp, context, fps, variant)
        found.append((not reached, report.bytes if reached else -_quality(codec, frames, qp, variant), data, report))
    best = min(found, key=lambda entry: entry[:2])
    sink.write(best[2].getvalue())
    return best[3]


def compress_at_price(
    codec: Codec,
    frames: np.ndarray,
    sink: BinaryIO,
    price: float,
    context: bool = True,
    fps: float | Fraction = 0,
    variants: tuple[str | None, ...] | None = None,
) -> EncodeReport:
    """Write uint8 (T, H, W, 3) at the variant and QP that minimise bits per pixel - `price` * mean PSNR in dB.

    The search codes a packet of frames from the middle of the clip. Raises InputError for a price that is no number of
    bits per pixel above 0.
    """
    check_price(price)
    first = max(0, (len(frames) - PACKET_FRAMES) // 2)
    part = frames[first : first + PACKET_FRAMES]
    known: dict[tuple[str | None, int], float] = {}

    def cost(variant: str | None, qp: int) -> float:
        if (variant, qp) not in known:
            report = codec.compress_stream([part], io.BytesIO(), qp, context, fps, variant)
            rate = bits_per_pixel(report.bytes, report.frames, report.height, report.width)
            known[variant, qp] = rate - price * _quality(codec, part, qp, variant)
        return known[variant, qp]

    for variant in variants or codec.variants or (None,):
        low, high = 0, NUM_QP - 1
        while high - low > 2:  # the cost falls, then rises
            left, right = low + (high - low) // 3, high - (high - low) // 3
            low, high = (low, right) if cost(variant, left) <= cost(variant, right) else (left, high)
        for qp in range(low, high + 1):
            cost(variant, qp)
    variant, qp = min(known, key=lambda choice: known[choice])
    return codec.compress_stream([frames], sink, qp, context, fps, variant)


def check_price(price: float) -> None:
    """Raises InputError where it is no number of bits per pixel above 0."""
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < math.inf:
        raise InputError(f"bpp_per_db={price!r}: expected bits per pixel above 0, or null")


def check_psnr(target: float) -> None:
    """Raises InputError where it is no number of dB above 0."""
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target < math.inf:
        raise InputError(f"psnr={target!r}: expected a number of dB above 0, or null")


def _lowest_qp(codec: Codec, frames: np.ndarray, variant: str | None, target: float) -> tuple[int, bool]:
    """The lowest QP that reaches the target, and whether any does (the highest QP then stands in)."""
    # Whole units, evenly spread.
    units = -(-len(frames) // codec.unit)
    some_units = np.unique(np.linspace(0, units - 1, min(units, -(-_LOOKED_AT // codec.unit))).round().astype(int))
    index = (some_units[:, None] * codec.unit + np.arange(codec.unit)).reshape(-1)
    some = frames[index[index < len(frames)]]
    low, high = 0, NUM_QP - 1
    while low < high:
        middle = (low + high) // 2
        if _quality(codec, some, middle, variant) >= target:
            high = middle
        else:
            low = middle + 1
    while (reached := _quality(codec, frames, low, variant) >= target) is False and low < NUM_QP - 1:
        low += 1
    return low, reached


def _quality(codec: Codec, frames: np.ndarray, qp: int, variant: str | None) -> float:
    """Mean PSNR in dB of the decoded frames: they depend on the symbols alone, so nothing need be coded."""
    latents = codec.dequantise(codec.analyse(frames, qp, variant), qp, len(frames))
    return float(np.mean(psnr(codec.synthesize(latents, qp, *frames.shape[1:3]), frames)))
