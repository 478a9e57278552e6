"""Vectors and the levels that they are coded as."""

import pytest
import torch

from vidlbc.motion.field import enlarged, from_levels, pyramid, to_levels


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (24, 4)])
def test_levels_give_back_the_field(size):
    generator = torch.Generator().manual_seed(sum(size))
    field = torch.randint(-300, 300, (3, *size, 2), generator=generator, dtype=torch.int32)
    levels = to_levels(field)
    assert [tuple(level.shape[1:3]) for level in levels] == [(size[0] // k, size[1] // k) for k in (1, 2, 4)]
    assert torch.equal(from_levels(levels), field)
    assert torch.equal(levels[-1], pyramid(field)[-1])


def test_one_motion_is_told_once_a_block_of_32():
    field = torch.full((1, 8, 8, 2), 0, dtype=torch.int32) + torch.tensor([5, -9], dtype=torch.int32)
    fine, middle, coarse = to_levels(field)
    assert not fine.any() and not middle.any() and bool((coarse == torch.tensor([5, -9])).all())


def test_a_block_takes_the_vector_of_most_of_its_parts():
    parts = torch.tensor([[[1, 1], [2, 2]], [[2, 2], [3, 3]]], dtype=torch.int32)[None]
    field = enlarged(parts)
    assert pyramid(field)[1][0].tolist() == parts[0].tolist()
    assert pyramid(field)[2][0, 0, 0].tolist() == [2, 2]
    tie = torch.tensor([[[4, 0], [5, 0]], [[5, 0], [4, 0]]], dtype=torch.int32)[None]
    assert pyramid(enlarged(tie))[2][0, 0, 0].tolist() == [4, 0]  # the first of two that are as common
