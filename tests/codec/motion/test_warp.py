"""Pictures moved by block vectors: the numbers of a plain computation with integers."""

import numpy as np
import pytest
import torch

from tests.codec.reference_motion import moved_picture
from vidlbc.codec.motion.warp import CONTRAST, TAPS, moved, seen, shown
from vidlbc.codec.prior.grid import snap


def by_hand(picture: np.ndarray, field: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), int (H/8, W/8, 2) -> sums of pixels times taps, in 4096ths, clamped."""
    height, width, _ = picture.shape
    out = np.zeros(picture.shape, np.int64)
    for y in range(height):
        for x in range(width):
            down, across = field[y // 8, x // 8]
            rows = np.clip(y + down // 4 + np.arange(8) - 3, 0, height - 1)
            columns = np.clip(x + across // 4 + np.arange(8) - 3, 0, width - 1)
            around = picture[rows[:, None], columns].astype(np.int64)
            weights = np.outer(TAPS[down % 4], TAPS[across % 4])
            out[y, x] = np.tensordot(weights, around, ([0, 1], [0, 1]))
    return np.clip(out, 0, 255 * 4096)


@pytest.mark.parametrize("reach", [3, 40, 5000])
def test_the_numbers_of_a_plain_computation(reach):
    generator = torch.Generator().manual_seed(reach)
    picture = torch.randint(0, 256, (2, 16, 24, 3), generator=generator, dtype=torch.uint8)
    field = torch.randint(-reach, reach + 1, (2, 2, 3, 2), generator=generator, dtype=torch.int32)
    found = moved(picture, field)
    for clip in range(2):
        sums = by_hand(picture[clip].numpy(), field[clip].numpy())
        unit = np.float32(CONTRAST / (255 * 4096))
        scaled = sums.astype(np.float32) * unit - np.float32(CONTRAST / 2)
        assert np.array_equal(found[clip].numpy(), np.rint(scaled * np.float32(256)) / np.float32(256))


def test_each_clip_of_a_batch_is_moved_as_it_would_be_alone():
    picture = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    field = torch.randint(-30, 30, (3, 4, 4, 2), dtype=torch.int32)
    together = moved(picture, field)
    assert torch.equal(together, torch.cat([moved(picture[i : i + 1], field[i : i + 1]) for i in range(3)]))


def test_blocks_that_overlap_are_mixed_as_the_document_says():
    picture = torch.randint(0, 256, (2, 32, 24, 3), dtype=torch.uint8)
    field = torch.randint(-40, 41, (2, 4, 3, 2), dtype=torch.int32)
    found = moved(picture, field, overlap=True).numpy()
    for clip in range(2):
        expected = moved_picture(picture[clip].numpy(), field[clip].numpy(), overlap=True)
        np.testing.assert_array_equal(found[clip], expected)
    still = torch.zeros_like(field) + 6
    assert torch.equal(moved(picture, still, overlap=True), moved(picture, still))


def test_without_motion_the_picture_is_as_it_was():
    picture = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3).contiguous()
    still = torch.zeros(1, 2, 2, 2, dtype=torch.int32)
    assert torch.equal(moved(picture, still), seen(picture))
    assert torch.equal(shown(seen(picture)), picture)


def test_any_vector_takes_each_pixel_from_where_it_leads():
    """A block alone, by vectors of every phase that lead to all sides, within its border and far beyond."""
    picture = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8)
    reach = torch.arange(-121, 122, 3)
    field = torch.cartesian_prod(reach, reach)
    down, right = field.unbind(-1)
    around = torch.arange(8 + 7) - 3
    rows, columns = ((torch.div(v, 4, rounding_mode="floor")[:, None] + around).clamp(0, 7) for v in (down, right))
    surroundings = picture[rows[:, :, None], columns[:, None]].double().unfold(1, 8, 1).unfold(2, 8, 1)
    taps = torch.tensor(TAPS, dtype=torch.float64)
    sums = torch.einsum("nyxcab,na,nb->nyxc", surroundings, taps[down % 4], taps[right % 4]).clamp(0, 255 * 4096)
    found = moved(picture.expand(len(field), -1, -1, -1), field[:, None, None].int())
    assert torch.equal(found, snap(sums.float().mul(CONTRAST / (255 * 4096)).sub(CONTRAST / 2)))
