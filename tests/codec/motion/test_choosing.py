"""Vectors weighed by what they truly take."""

import pytest
import torch

from tests.codec.motion.test_search import texture
from vidlbc.codec.motion.choosing import Cheapest
from vidlbc.codec.motion.prior import VectorPrior
from vidlbc.codec.motion.search import blocks_of, price_of_bits, search
from vidlbc.codec.motion.warp import moved, shown
from vidlbc.codec.prior.topdown import symbol_bits

QP = torch.tensor([32])


@pytest.fixture(scope="module")
def prior() -> VectorPrior:
    torch.manual_seed(0)
    return VectorPrior().eval()


def two_motions(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A frame and its reference, (1, 96, 128, 3): halves that move apart, and noise that makes each block a bit off."""
    reference = texture(96, 128, seed)[None]
    frame = torch.cat([reference.roll((2, 3), (1, 2))[:, :48], reference.roll((-3, 1), (1, 2))[:, 48:]], 1)
    noise = torch.randint(-60, 61, frame.shape, generator=torch.Generator().manual_seed(seed))
    return (frame.int() + noise).clamp(0, 255).to(torch.uint8), reference


def cost(prior, qp, before, field, frames, references) -> torch.Tensor:
    """Differences and bits of each clip."""
    differences = blocks_of(frames, references)[8].differences(field[..., None, :]).sum((1, 2, 3))
    return differences + price_of_bits(qp) * prior.bits(qp, before, field, symbol_bits)


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(3))
def test_what_is_chosen_costs_less_than_what_was_found(prior, seed):
    frame, reference = two_motions(seed)
    found = search(frame, reference, QP)
    still = torch.zeros_like(found)
    field = prior.chosen(QP, still, Cheapest(QP, found, blocks_of(frame, reference)))
    assert field.shape == found.shape and field.dtype == torch.int32
    before, after = (cost(prior, QP, still, x, frame, reference) for x in (found, field))
    assert after < before
    assert prior.bits(QP, still, field, symbol_bits) < prior.bits(QP, still, found, symbol_bits)
    # What is cheap is still what moved: as good a picture, nearly.
    error = [(shown(moved(reference, x)).float() - frame.float()).square().mean() for x in (found, field)]
    assert error[1] < 1.05 * error[0]


@torch.inference_mode()
def test_clips_are_weighed_as_each_would_be_alone(prior):
    frames, references = (torch.cat(x) for x in zip(*(two_motions(seed) for seed in range(3)), strict=True))
    qp = torch.tensor([8, 32, 56])
    found = search(frames, references, qp)
    before = found.roll(1, 0)
    together = prior.chosen(qp, before, Cheapest(qp, found, blocks_of(frames, references)))
    for i in range(3):
        one = slice(i, i + 1)
        blocks = blocks_of(frames[one], references[one])
        alone = prior.chosen(qp[one], before[one], Cheapest(qp[one], found[one], blocks))
        assert torch.equal(together[one], alone)


@torch.inference_mode()
def test_parts_keep_their_vectors_where_that_pays(prior):
    """Halves that meet in the middle of blocks of 16x16."""
    reference = texture(64, 64)[None]
    frame = torch.cat([reference.roll((0, 6), (1, 2))[:, :, :24], reference.roll((5, -6), (1, 2))[:, :, 24:]], 2)
    found = search(frame, reference, QP)
    field = prior.chosen(QP, torch.zeros_like(found), Cheapest(QP, found, blocks_of(frame, reference)))
    left, right = field[0, 1:-1, 2], field[0, 1:-1, 3]
    assert bool((left != right).any(-1).all())
    assert bool((left == torch.tensor([0, -24])).all(-1).float().mean() > 0.8)
