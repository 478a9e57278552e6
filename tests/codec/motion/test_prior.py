"""Vectors under their prior: what is walked is what comes back, and what goes on as before costs least."""

import pytest
import torch

from vidlbc.codec.motion.field import enlarged
from vidlbc.codec.motion.prior import VectorPrior
from vidlbc.codec.prior.grid import to_grid
from vidlbc.codec.prior.topdown import symbol_bits

QP = torch.tensor([32])


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    return to_grid(VectorPrior())


def fields(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two frames, int32 (1, rows, columns, 2): blocks of several sizes with vectors of their own."""
    generator = torch.Generator().manual_seed(seed)

    def random(r: int, c: int, reach: int) -> torch.Tensor:
        return torch.randint(-reach, reach + 1, (1, r, c, 2), generator=generator, dtype=torch.int32)

    before = enlarged(enlarged(random(rows // 4, columns // 4, 90)))
    large, small = enlarged(random(rows // 2, columns // 2, 400)), random(rows, columns, 3)
    new = torch.where(torch.rand(1, rows, columns, 1, generator=generator) < 0.3, large, before)
    return before, torch.where(torch.rand(1, rows, columns, 1, generator=generator) < 0.2, new + small, new)


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (8, 8), (20, 28)])
def test_what_is_sent_is_what_comes_back(prior, size):
    before, field = fields(*size, seed=sum(size))
    sent = []

    def send(asked, kind, truth, mask):
        sent.append((asked, kind, truth if mask is None else truth[mask]))
        return truth

    def take(asked, kind, truth, mask):
        assert truth is None
        then, of_kind, symbols = sent.pop(0)
        assert torch.equal(then.mean, asked.mean) and torch.equal(then.log2_scale, asked.log2_scale) and of_kind == kind
        values = torch.full(asked.mean.shape[:-1], 7, dtype=torch.int32)  # where nothing was sent: anything
        here = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        values[here] = symbols.reshape(-1)
        return values

    with torch.inference_mode():
        assert torch.equal(prior.walk(QP, before, send, field), field)
        assert torch.equal(prior.walk(QP, before, take), field) and not sent


def test_vectors_that_go_on_as_before_cost_least(prior):
    before, other = fields(8, 12, seed=1)
    still = torch.zeros_like(before)
    with torch.inference_mode():
        pairs = ((before, before), (still, before), (before, other))
        costs = [float(prior.bits(QP, past, field, symbol_bits)) for past, field in pairs]
    assert costs[0] < 0.5 * min(costs[1:])


def test_bits_of_clips_are_those_of_each_alone(prior):
    pairs = [fields(8, 8, seed) for seed in range(3)]
    before, field = (torch.cat(x) for x in zip(*pairs, strict=True))
    qp = torch.tensor([5, 32, 60])
    with torch.inference_mode():
        together = prior.bits(qp, before, field, symbol_bits)
        alone = [prior.bits(qp[i : i + 1], b, f, symbol_bits) for i, (b, f) in enumerate(pairs)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-5)
