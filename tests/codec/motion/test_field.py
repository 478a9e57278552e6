"""Fields of vectors at several sizes of blocks."""

import torch

from vidlbc.codec.motion.field import commonest, enlarged, pyramid


def test_a_block_takes_the_vector_of_most_of_its_parts():
    parts = torch.tensor([[[1, 1], [2, 2]], [[2, 2], [3, 3]]], dtype=torch.int32)[None]
    field = enlarged(parts)
    assert pyramid(field)[16][0].tolist() == parts[0].tolist()
    assert pyramid(field)[32][0, 0, 0].tolist() == [2, 2]
    tie = torch.tensor([[[4, 0], [5, 0]], [[5, 0], [4, 0]]], dtype=torch.int32)[None]
    assert commonest(tie)[0, 0, 0].tolist() == [4, 0]  # the first of two that are as common


def test_one_motion_is_that_of_blocks_of_every_size():
    field = torch.zeros(2, 8, 12, 2, dtype=torch.int32) + torch.tensor([5, -9], dtype=torch.int32)
    for stride, vectors in pyramid(field).items():
        assert vectors.shape == (2, 64 // stride, 96 // stride, 2)
        assert bool((vectors == torch.tensor([5, -9])).all())
