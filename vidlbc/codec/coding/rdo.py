"""Rate-distortion optimised quantisation: symbols that cost less than their error is worth.

Where rounding takes a symbol one further from what the prior expects than it would have to be, the nearer neighbour is
weighed against it, level by level as a decoder meets them:

    bits(q) + ERROR_PRICE * (q - y)^2        q in {round(y), round(y) one nearer to the prior's mean}

so later levels and frames are predicted from the symbols that were chosen. One price serves all QPs, as errors are in
units of the step. High-resolution theory puts it at 6 / ln 2 = 8.7 bits; errors that all lean towards the prediction
add up in the synthesis and in later frames, which asks for more: on three training clips 6, 9, 14, 20, 30 and 45 gave
a BD-rate of +1.9, -2.2, -4.2, -4.7, -4.4 and -3.8% (transformer, 10 frames). A dead zone that does not look at the
prior loses (+1 to +8%).

Symbols whose scale index is below the header's `skip` are not coded at all and take the prior's rounded mean, whatever
the image stage says: this alone needs a decoder that knows of it. On six training clips (10 frames of 256x192, QPs 8
to 56) 83 to 39% of the symbols lie below 10; they held 1.3 to 0.1% of the bits, and 1 in 10,000 of them would otherwise
have been chosen to be something else. A skip of 8, 10, 12, 16, 20 and 24 gave a BD-rate of -0.0, -0.1, -0.1, +1.3, +6.9
and +20% (the last three: four of the clips): where the prior is wrong a large one keeps its error.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.bitstream import Header
from vidlbc.codec.coding.encoding import NEAR_INTRA, Known, ideal_bits
from vidlbc.codec.coding.priors import Priors
from vidlbc.codec.coding.visible import Visible
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.traced import Traced

ERROR_PRICE = 20.0
SKIP = 10


class _Choice(NamedTuple):
    """Symbols of one frame under one prior, their bits, and bits with the price of their errors.

    `distributions`: of all levels, those that coding will find as well.
    """

    symbols: list[Tensor]
    bits: float
    cost: float
    distributions: list[Distribution]


class RateDistortionQuantiser:
    """Symbols of one clip, frame by frame, under the priors that will code them.

    All runs on one thread: vectorised and plain instructions may round a logarithm differently, and how a tensor is
    shared out among threads would say which elements take which.
    """

    def __init__(self, priors: Priors, header: Header, error_price: float = ERROR_PRICE):
        self._priors, self._header = priors, header
        self._qps = torch.tensor([header.qp], device=priors.pool.device)
        self._gains = priors.image.gains(self._qps)
        self._state = priors.start(1, header)
        self._rule = Rule.of(error_price, priors.pool.device, header.skip)
        self._context = header.context and priors.context
        # Frames without a past, and scene cuts, are coded by the intra prior.
        self._try_intra = self._context and priors.intra_frames
        self._intra_bits: float | None = None  # of the last frame that the intra prior was tried on
        self._visible = Visible.of(priors, header)

    def choose(self, scaled: Sequence[Tensor]) -> list[Tensor]:
        """gain * y, float (T, H_l, W_l, C_l) a level -> symbols, int32; channels that the header leaves out are 0."""
        return self._priors.pool.ahead(lambda: self._choose(scaled)).result()[0]

    def packets(self, scaled: Iterable[Sequence[Tensor]]) -> Iterator[tuple[list[Tensor], Known]]:
        """The same packet by packet, one ahead of the caller; and what coding them need not compute again."""
        return self._priors.pool.one_ahead(self._choose, scaled)

    @torch.inference_mode()
    def _choose(self, scaled: Sequence[Tensor]) -> tuple[list[Tensor], Known]:
        states, frames, distributions = [self._state], [], []
        for t in range(len(scaled[0])):
            symbols, expected = self._frame([y[t : t + 1] for y in scaled])
            states.append(self._state)
            frames.append(symbols)
            distributions.append(expected)
        return [torch.cat(level) for level in zip(*frames, strict=True)], Known(states, distributions)

    def _frame(self, scaled: Sequence[Tensor]) -> tuple[list[Tensor], list[Distribution] | None]:
        """Symbols, and their distributions given the past, where these were met on the way."""
        if self._try_intra and self._intra_bits is None:
            chosen, given_past = self._under(True, scaled), False
            self._intra_bits = chosen.bits
        else:
            chosen, given_past = self._under(False, scaled), True
            if self._intra_bits is not None and chosen.bits >= NEAR_INTRA * self._intra_bits:
                other = self._under(True, scaled)
                self._intra_bits = other.bits
                if other.cost < chosen.cost:
                    chosen, given_past = other, False
        if self._context:
            observed = self._priors.observe(chosen.symbols, self._gains)
            self._state = self._priors.advance(self._state, observed)
        return chosen.symbols, chosen.distributions if given_past else None

    def _under(self, by_intra: bool, scaled: Sequence[Tensor]) -> _Choice:
        priors, gains = self._priors, self._gains
        memory = {} if by_intra else priors.memory(self._state)
        hidden = priors.hidden(by_intra, self._qps, self._header)
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
        distributions: list[Distribution] = []
        bits = cost = 0.0
        for index in reversed(range(len(scaled))):
            hidden, distribution = priors.expect(by_intra, index, hidden, gains[index], memory.get(index, ()))
            distributions.insert(0, distribution)
            coded, visible = self._header.coded[index], self._visible.cells[index]
            chosen = choose_level(scaled[index], distribution, self._rule, coded, visible)
            symbols[index] = chosen.symbols
            bits, cost = bits + float(chosen.bits), cost + float(chosen.cost)
            if index:
                hidden = priors.absorb(by_intra, index, hidden, symbols[index], gains[index], self._qps)
        return _Choice(symbols, bits, cost, distributions)


def _choose(
    scaled: Tensor, mean: Tensor, log2_scale: Tensor, bound: Tensor, price: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols of one level of one frame, the sum of their bits, and that of their costs.

    Tables below `bound` are not coded; `price` is that of errors.
    """
    distribution = Distribution(mean, log2_scale)
    table, centre, _ = coder.quantise_tensors(distribution)
    skipped = table < bound
    nearest, expected = scaled.round(), mean.round().to(scaled.dtype)
    nearer = nearest + (expected - nearest).sign()
    bits = [ideal_bits(q, distribution) for q in (nearest, nearer)]
    better = bits[1] + price * (nearer - scaled).square() < bits[0] + price * (nearest - scaled).square()
    q = torch.where(skipped, centre.to(scaled.dtype), torch.where(better, nearer, nearest))
    paid = torch.where(skipped, 0.0, torch.where(better, bits[1], bits[0]))
    cost = paid + price * (q - scaled).square()
    return q.to(torch.int32), paid.sum(dtype=torch.float64), cost.sum(dtype=torch.float64)


_CHOOSE = Traced(_choose)


class Rule(NamedTuple):
    """What a choice goes by: the first table whose symbols are coded, and the price of errors, in bits."""

    bound: Tensor
    price: Tensor

    @classmethod
    def of(cls, price: float, device: torch.device, skip: int = 0) -> "Rule":
        return cls(torch.tensor(coder.first_table(skip), device=device), torch.tensor(price, device=device))


class ChosenLevel(NamedTuple):
    """Symbols of one level, int32; the sum of their bits, and with the price of their errors, float64."""

    symbols: Tensor
    bits: Tensor
    cost: Tensor


def choose_level(
    scaled: Tensor, distribution: Distribution, rule: Rule, coded: int | None = None, visible: Tensor | None = None
) -> ChosenLevel:
    """Symbols of one level of one frame under `distribution`; `scaled`: gain * y, (1, H, W, C).

    `coded`: how many channels are, the first ones, None: all; the others' symbols are 0. `visible`: of Visible.cells.
    """
    here = (..., slice(coded))
    if visible is not None:
        scaled = torch.where(visible > 0, scaled, distribution.mean)
        rule = rule._replace(price=rule.price * visible)
    q, *sums = _CHOOSE(scaled[here], distribution.mean[here], distribution.log2_scale[here], *rule)
    return ChosenLevel(F.pad(q, (0, scaled.shape[-1] - q.shape[-1])), *sums)
