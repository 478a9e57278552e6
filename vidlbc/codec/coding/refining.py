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
from typing import NamedTuple

import torch
from torch import Tensor

from vidlbc.codec.coding.priors import dequantised
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.codec.motion.copies import copied_at, copied_symbols
from vidlbc.codec.motion.networks import ReferenceSynthesis
from vidlbc.codec.motion.stage import Prediction
from vidlbc.codec.motion.warp import CONTRAST, seen
from vidlbc.codec.prior.topdown import Gains, TopDownPrior, symbol_bits
from vidlbc.codec.temporal_stage import Memory, MovedStage

_RATE = 0.02  # of Adam, in symbols
_WARM, _COLD = 1.0, 0.2  # temperatures
_TILE, _MARGIN = 768, 64  # pixels, multiples of the coarsest stride
LARGEST = 1024**2  # pixels of a frame that is looked at whole: gradients take a kilobyte each
_SURE = 1e-4  # how near to a whole number a symbol is told from it

# From whole symbols, nearly, to the bits of each level's, (1, H_l, W_l), and the error of each pixel, (1, H, W).
_Judge = Callable[[list[Tensor]], tuple[list[Tensor], Tensor]]
_Part = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, each from and to


class Aim(NamedTuple):
    """What the symbols of one frame are for. scaled: gain * y, float (1, H_l, W_l, C_l) a level; qp (1,); picture: what
    shall be shown, uint8 (1, H, W, 3), padded; visible: of its pixels, (1, H, W), 1 or 0, None: all."""

    scaled: Sequence[Tensor]
    gains: Sequence[Gains]
    qp: Tensor
    picture: Tensor
    visible: Tensor | None

    def part(self, pixels: _Part) -> "Aim":
        height = self.picture.shape[1]
        return self._replace(
            scaled=[_cut(y, pixels, height // y.shape[1]) for y in self.scaled],
            picture=_cut(self.picture, pixels, 1),
            visible=None if self.visible is None else _cut(self.visible, pixels, 1),
        )

    def with_gradients(self) -> "Aim":
        """A copy: tensors of inference cannot carry them."""
        gains = [Gains(g.gain.clone(), g.step.clone(), g.log2_gain.clone()) for g in self.gains]
        visible = None if self.visible is None else self.visible.clone()
        return Aim([y.clone() for y in self.scaled], gains, self.qp.clone(), self.picture.clone(), visible)

    def latents(self, symbols: Sequence[Tensor]) -> list[Tensor]:
        return [dequantised(q, g.step) for q, g in zip(symbols, self.gains, strict=True)]


def refined_key(prior: TopDownPrior, synthesis: ReferenceSynthesis, aim: Aim, steps: int) -> list[Tensor]:
    """Whole numbers in place of `aim.scaled`, of a frame without a past. The same numbers each time on one machine.
    Large frames go tile by tile, with a margin."""
    height, width = aim.picture.shape[1:3]
    out = [y.clone() for y in aim.scaled]
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            bottom, right = min(top + _TILE, height), min(left + _TILE, width)
            y, x = max(top - _MARGIN, 0), max(left - _MARGIN, 0)
            outer = (y, min(bottom + _MARGIN, height)), (x, min(right + _MARGIN, width))
            with torch.inference_mode(False), torch.enable_grad():
                tile = aim.part(outer).with_gradients()
                found = _descend(tile, _of_key(prior, synthesis, tile), steps, tile.visible)
            inner, within = ((top, bottom), (left, right)), ((top - y, bottom - y), (left - x, right - x))
            for whole, q in zip(out, found, strict=True):
                stride = height // whole.shape[1]
                _cut(whole, inner, stride).copy_(_cut(q, within, stride))
    return out


def refined_inter(
    temporal: MovedStage, memory: Memory, moved: Tensor, prediction: Prediction, aim: Aim, steps: int
) -> list[Tensor]:
    """As `refined_key`, of a frame that reads `memory` and is predicted from the picture `moved`, some blocks of which
    are copied (`prediction`)."""
    assert prediction.copied is not None
    with torch.inference_mode(False), torch.enable_grad():
        aim, flags = aim.with_gradients(), prediction.copied.clone()
        coded = 1 - copied_at(flags, 1)
        counted = coded if aim.visible is None else coded * aim.visible
        read = {index: tuple(x.clone() for x in tensors) for index, tensors in memory.items()}
        latents = [y.clone() for y in prediction.latents]
        return _descend(aim, _of_inter(temporal, read, moved.clone(), latents, flags, aim), steps, counted)


def _of_key(prior: TopDownPrior, synthesis: ReferenceSynthesis, aim: Aim) -> _Judge:
    wanted = seen(aim.picture)

    def judge(symbols: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        latents = aim.latents(symbols)
        bits = _bits(symbols, prior(latents, aim.qp, aim.gains))
        return bits, (synthesis(latents, aim.qp) - wanted).square().sum(-1)

    return judge


def _of_inter(
    temporal: MovedStage, memory: Memory, moved: Tensor, predicted: Sequence[Tensor], flags: Tensor, aim: Aim
) -> _Judge:
    wanted, synthesis = seen(aim.picture), temporal.motion.synthesis
    reader, expected = temporal.reader(memory), temporal.expectation(memory)
    left = [copied_at(flags, level.stride) == 1 for level in temporal.levels]
    given = [copied_symbols(y, g.gain) for y, g in zip(predicted, aim.gains, strict=True)]

    def judge(symbols: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        mixed = [torch.where(c[..., None], x, q) for c, x, q in zip(left, given, symbols, strict=True)]
        latents = aim.latents(mixed)
        bits = _bits(mixed, temporal.trunk(latents, aim.qp, aim.gains, reader, expected))
        shown = synthesis(latents, aim.qp, moved)
        return [torch.where(c, 0.0, b) for c, b in zip(left, bits, strict=True)], (shown - wanted).square().sum(-1)

    return judge


def _descend(aim: Aim, judge: _Judge, steps: int, counted: Tensor | None) -> list[Tensor]:
    """`counted`: the weight of each pixel's error, None: 1."""
    generator = torch.Generator().manual_seed(0)
    weights = 1.0 if counted is None else counted
    worth = float(qp_lambda(aim.qp)) * (255 / CONTRAST) ** 2 / 3
    free = [y.requires_grad_() for y in aim.scaled]
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


def _cut(x: Tensor, part: _Part, stride: int) -> Tensor:
    """Of a map (1, H/stride, W/stride, ...) the part that covers these pixels, ((top, bottom), (left, right))."""
    (top, bottom), (left, right) = ((a // stride, b // stride) for a, b in part)
    return x[:, top:bottom, left:right]
