"""A compression ratio per clip: the fewest bytes that reach a given quality, found by the encoder, told by the header.

    each variant --bisection over QP--> the lowest QP that reaches the PSNR --encode--> the smallest file is kept

"It is possible to use a shorter vector to represent an image with simple geometry and clean background, while a longer
vector to represent a web image with rich details" (Xie et al., arXiv 2105.13978, section 3.1). A decoder needs no more
than for a constant ratio: variant and QP are in every header.
"""

import io
import math
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from vidlbc.codec import Codec
from vidlbc.coding import EncodeReport
from vidlbc.errors import InputError
from vidlbc.evaluation.distortion import psnr
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


def check_psnr(target: float) -> None:
    """Raises InputError where it is no number of dB above 0."""
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target < math.inf:
        raise InputError(f"psnr={target!r}: expected a number of dB above 0, or null")


def _lowest_qp(codec: Codec, frames: np.ndarray, variant: str | None, target: float) -> tuple[int, bool]:
    """The lowest QP that reaches the target, and whether any does (the highest QP then stands in)."""
    some = frames[np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _LOOKED_AT)).round().astype(int))]
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
    latents = codec.dequantise(codec.analyse(frames, qp, variant), qp)
    return float(np.mean(psnr(codec.synthesize(latents, qp, *frames.shape[1:3]), frames)))
