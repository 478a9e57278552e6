"""Rate-distortion optimised quantisation: symbols that cost less than their error is worth. No decoder knows of it.

Where rounding takes a symbol one further from what the prior expects than it would have to be, the nearer neighbour is
weighed against it, level by level as a decoder meets them:

    bits(q) + ERROR_PRICE * (q - y)^2        q in {round(y), round(y) one nearer to the prior's mean}

so later levels and frames are predicted from the symbols that were chosen. One price serves all QPs, as errors are in
units of the step. High-resolution theory puts it at 6 / ln 2 = 8.7 bits; errors that all lean towards the prediction
add up in the synthesis and in later frames, which asks for more: on three training clips 6, 9, 14, 20, 30 and 45 gave
a BD-rate of +1.9, -2.2, -4.2, -4.7, -4.4 and -3.8% (transformer, 10 frames). A dead zone that does not look at the
prior loses (+1 to +8%).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vidlbc.bitstream import Header
from vidlbc.coding.encoding import ideal_bits
from vidlbc.coding.priors import Priors
from vidlbc.prior.topdown import Distribution
from vidlbc.traced import Traced

ERROR_PRICE = 20.0


class RateDistortionQuantiser:
    """Symbols of one clip, frame by frame, under the priors that will code them."""

    def __init__(self, priors: Priors, header: Header):
        self._priors, self._header = priors, header
        self._qps = torch.tensor([header.qp], device=priors.pool.device)
        self._gains = priors.image.gains(self._qps)
        self._state = priors.start(1, header)
        self._first = True

    @torch.inference_mode()
    def choose(self, scaled: Sequence[Tensor]) -> list[Tensor]:
        """gain * y, float (T, H_l, W_l, C_l) a level -> symbols, int32; channels that the header leaves out are 0."""
        frames = [self._frame([y[t : t + 1] for y in scaled]) for t in range(len(scaled[0]))]
        return [torch.cat(level) for level in zip(*frames, strict=True)]

    def _frame(self, scaled: Sequence[Tensor]) -> list[Tensor]:
        priors, gains = self._priors, self._gains
        # The writer codes a frame without a past by the intra prior, or by the null context where that is shorter.
        by_intra = self._first and priors.context and priors.intra_frames and self._header.context
        memory = {} if by_intra else priors.memory(self._state)
        hidden = priors.hidden(by_intra, self._qps, self._header)
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
        for index in reversed(range(len(scaled))):
            hidden, distribution = priors.expect(by_intra, index, hidden, gains[index], memory.get(index, ()))
            coded = self._header.coded[index]
            q = _CHOOSE(scaled[index], distribution.mean, distribution.log2_scale)
            q[..., coded:] = 0
            symbols[index] = q
            if index:
                hidden = priors.absorb(by_intra, index, hidden, q, gains[index], self._qps)
        if self._header.context and priors.context:
            self._state = priors.advance(self._state, priors.observe(symbols, gains))
            self._first = False
        return symbols


def _choose(scaled: Tensor, mean: Tensor, log2_scale: Tensor) -> Tensor:
    distribution = Distribution(mean, log2_scale)
    nearest, expected = scaled.round(), mean.round().to(scaled.dtype)
    nearer = nearest + (expected - nearest).sign()
    costs = [ideal_bits(q, distribution) + ERROR_PRICE * (q - scaled).square() for q in (nearest, nearer)]
    return torch.where(costs[1] < costs[0], nearer, nearest).to(torch.int32)


_CHOOSE = Traced(_choose)
