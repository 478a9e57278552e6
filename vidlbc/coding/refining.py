"""Symbols by gradient: what the analysis gives is but a first guess. Nothing here decides what decodes.

    gain * y --one of both neighbours, at random, ever more surely the nearer--> symbols
    symbols --prior--> bits;   symbols --reference synthesis--> picture --> error
    bits + lambda(qp) * error --gradient--> gain * y

Stochastic Gumbel annealing (Yang, Bamler and Mandt, arXiv 2006.04240, section 3.2): the networks stay as they are, and
so does the decoder. Every frame after it copies from a key frame, and there are few of them: of eight validation clips
(first frames alone, `default`) 60 steps took 5.8 points off the BD-rate against x265, 240 steps 9.9. All other frames
as well is for who has the time: of three clips 40 steps took 4.3 points more, at five times the time of encoding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vidlbc.image_stage.base import qp_lambda
from vidlbc.motion.copies import BLOCK, copied_at, copied_symbols
from vidlbc.motion.networks import ReferenceSynthesis
from vidlbc.motion.stage import Prediction
from vidlbc.motion.warp import CONTRAST, seen
from vidlbc.prior.topdown import Distribution, Gains, TopDownPrior, symbol_bits
from vidlbc.temporal_stage import Memory, MovedStage

_RATE = 0.02  # of Adam, in symbols
_WARM, _COLD = 1.0, 0.2  # temperatures
_TILE, _MARGIN = 768, 64  # pixels, multiples of the coarsest stride
LARGEST = 1024**2  # pixels of a frame that is looked at whole: gradients take a kilobyte each
_SURE = 1e-4  # how near to a whole number a symbol is told from it

# From whole symbols, nearly, to the bits of each level's, (1, H_l, W_l), and the error of each pixel, (1, H, W).
_Judge = Callable[[list[Tensor]], tuple[list[Tensor], Tensor]]


def refined_key(
    prior: TopDownPrior,
    synthesis: ReferenceSynthesis,
    scaled: Sequence[Tensor],
    gains: Sequence[Gains],
    qp: Tensor,
    picture: Tensor,
    steps: int,
    visible: Tensor | None = None,
) -> list[Tensor]:
    """Whole numbers, float (1, H_l, W_l, C_l) a level, in place of `scaled`, gain * y, of a frame without a past at qp
    (1,).

    picture: uint8 (1, H, W, 3), padded; visible: of its pixels, (1, H, W), 1 or 0, None: all. The same numbers each
    time on one machine. Large frames go tile by tile, with a margin.
    """
    height, width = picture.shape[1:3]
    out = [y.clone() for y in scaled]
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            inner = (top, min(top + _TILE, height)), (left, min(left + _TILE, width))
            sides = zip(inner, (height, width), strict=True)
            outer = [(max(a - _MARGIN, 0), min(b + _MARGIN, side)) for (a, b), side in sides]
            crop = [_cut(y, outer, height // y.shape[1]) for y in scaled]
            counted = None if visible is None else _cut(visible, outer, 1)
            with torch.inference_mode(False), torch.enable_grad():
                judge = _of_key(prior, synthesis, gains, qp, _cut(picture, outer, 1))
                found = _descend(crop, judge, qp, steps, counted)
            within = [(a - o, b - o) for (a, b), (o, _) in zip(inner, outer, strict=True)]
            for y, q in zip(out, found, strict=True):
                stride = height // y.shape[1]
                _cut(y, inner, stride).copy_(_cut(q, within, stride))
    return out


def refined_inter(
    temporal: MovedStage,
    memory: Memory,
    moved: Tensor,
    prediction: Prediction,
    scaled: Sequence[Tensor],
    gains: Sequence[Gains],
    qp: Tensor,
    picture: Tensor,
    steps: int,
    visible: Tensor | None = None,
) -> list[Tensor]:
    """As `refined_key`, of a frame that reads `memory` and is predicted from the picture `moved`, some blocks of which
    are copied (`prediction`)."""
    assert prediction.copied is not None
    coded = 1 - prediction.copied.float().repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    counted = coded if visible is None else coded * visible
    with torch.inference_mode(False), torch.enable_grad():
        judge = _of_inter(temporal, memory, moved, prediction, gains, qp, picture)
        return _descend(scaled, judge, qp, steps, counted)


def _of_key(
    prior: TopDownPrior, synthesis: ReferenceSynthesis, gains: Sequence[Gains], qp: Tensor, picture: Tensor
) -> _Judge:
    # Tensors of inference cannot carry gradients: copies can.
    at, wanted, own = qp.clone(), seen(picture.clone()), _copied(gains)

    def judge(symbols: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        latents = [q * g.step[:, None, None] for q, g in zip(symbols, own, strict=True)]
        bits = _bits(symbols, prior(latents, at, own))
        return bits, (synthesis(latents, at) - wanted).square().sum(-1)

    return judge


def _of_inter(
    temporal: MovedStage,
    memory: Memory,
    moved: Tensor,
    prediction: Prediction,
    gains: Sequence[Gains],
    qp: Tensor,
    picture: Tensor,
) -> _Judge:
    at, before, wanted, own = qp.clone(), moved.clone(), seen(picture.clone()), _copied(gains)
    read = {index: tuple(x.clone() for x in tensors) for index, tensors in memory.items()}
    reader, expected = temporal.reader(read), temporal.expectation(read)
    assert prediction.copied is not None
    flags, synthesis = prediction.copied.clone(), temporal.motion.synthesis
    left = [copied_at(flags, level.stride) == 1 for level in temporal.levels]
    given = [copied_symbols(y.clone(), g.gain) for y, g in zip(prediction.latents, own, strict=True)]

    def judge(symbols: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        mixed = [torch.where(c[..., None], x, q) for c, x, q in zip(left, given, symbols, strict=True)]
        latents = [q * g.step[:, None, None] for q, g in zip(mixed, own, strict=True)]
        bits = _bits(mixed, temporal.trunk(latents, at, own, reader, expected))
        shown = synthesis.picture(synthesis.mixed(*synthesis.alone(latents, at), at, before))
        return [torch.where(c, 0.0, b) for c, b in zip(left, bits, strict=True)], (shown - wanted).square().sum(-1)

    return judge


def _descend(scaled: Sequence[Tensor], judge: _Judge, qp: Tensor, steps: int, counted: Tensor | None) -> list[Tensor]:
    """`counted`: the weight of each pixel's error, None: 1."""
    generator = torch.Generator().manual_seed(0)
    weights = 1.0 if counted is None else counted.clone()
    worth = float(qp_lambda(qp)) * (255 / CONTRAST) ** 2 / 3
    free = [y.clone().requires_grad_() for y in scaled]
    adam = torch.optim.Adam(free, lr=_RATE)
    for step in range(steps):
        temperature = _WARM * (_COLD / _WARM) ** (step / steps)
        bits, error = judge([_either(y, temperature, generator) for y in free])
        adam.zero_grad()
        (torch.stack([b.sum() for b in bits]).sum() + worth * (error * weights).sum()).backward()
        adam.step()
    return [y.detach().round_() for y in free]


def _either(y: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Between the whole numbers on both sides of y: the nearer the surer."""
    low = y.detach().floor()
    above = (y - low).clamp(_SURE, 1 - _SURE)
    logit = (above.atanh() - (1 - above).atanh()) / temperature
    # Drawn where the generator is, so that a GPU draws the same numbers.
    chance = torch.rand(y.shape, generator=generator).clamp_(1e-6, 1 - 1e-6).to(y.device)
    return low + torch.sigmoid((logit + chance.logit()) / temperature)


def _bits(symbols: Sequence[Tensor], distributions: Sequence[Distribution]) -> list[Tensor]:
    return [symbol_bits(q, d).sum(-1) for q, d in zip(symbols, distributions, strict=True)]


def _copied(gains: Sequence[Gains]) -> list[Gains]:
    return [Gains(g.gain.clone(), g.step.clone(), g.log2_gain.clone()) for g in gains]


def _cut(x: Tensor, part: Sequence[tuple[int, int]], stride: int) -> Tensor:
    """Of a map (1, H/stride, W/stride, ...) the part that covers these pixels, ((top, bottom), (left, right))."""
    (top, bottom), (left, right) = ((a // stride, b // stride) for a, b in part)
    return x[:, top:bottom, left:right]
