"""Vectors that an encoder finds."""

import pytest
import torch
from torch.nn import functional as F

from vidlbc.codec.motion.search import FAST, displacements, search
from vidlbc.codec.motion.warp import moved, shown

QP = torch.tensor([32])


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth noise, uint8 (height, width, 3)."""
    noise = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=torch.Generator().manual_seed(seed))
    large = F.interpolate(noise, size=(height + 8, width + 8), mode="bicubic", align_corners=False)
    return (large[0, :, 4:-4, 4:-4].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).square().mean())


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-17, 26), (31, 2)])
def test_a_pan_is_found(shift):
    whole = texture(192, 192)
    down, across = shift
    reference, frame = whole[48:144, 48:144], whole[48 + down : 144 + down, 48 + across : 144 + across]
    field = search(frame[None].contiguous(), reference[None].contiguous(), QP)
    assert field.shape == (1, 12, 12, 2) and field.dtype == torch.int32
    found = (field == torch.tensor([4 * down, 4 * across], dtype=torch.int32)).all(-1)
    # Blocks that come from outside of the reference may take others.
    inside = torch.zeros(12, 12, dtype=torch.bool)
    rows, columns = (slice(max(0, -(s // 8)), 12 - max(0, -(-s // 8))) for s in (down, across))
    inside[rows, columns] = True
    assert float(found[0][inside].float().mean()) > 0.95


def test_a_quarter_of_a_pixel_is_found():
    reference = texture(64, 64)[None]
    wanted = torch.zeros(1, 8, 8, 2, dtype=torch.int32) + torch.tensor([1, -6], dtype=torch.int32)
    frame = shown(moved(reference, wanted))
    field = search(frame, reference, QP)
    assert float((field == wanted).all(-1).float().mean()) > 0.9
    assert error(frame, shown(moved(reference, field))) < 4


def test_a_clip_is_searched_as_it_would_be_alone():
    frames = torch.stack([texture(64, 96, seed) for seed in range(3)])
    references = torch.stack([texture(64, 96, seed).roll(seed, 0) for seed in range(3)])
    qp = torch.tensor([8, 32, 56])
    together = search(frames, references, qp)
    for i in range(3):
        assert torch.equal(together[i : i + 1], search(frames[i : i + 1], references[i : i + 1], qp[i : i + 1]))


def test_less_effort_finds_no_small_blocks_and_a_field_before_is_gone_on_from():
    reference = texture(64, 64)[None]
    frame = reference.roll((2, 3), (1, 2))
    quick = search(frame, reference, QP, effort=FAST)
    assert torch.equal(quick, quick[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2))
    before = torch.zeros(1, 8, 8, 2, dtype=torch.int32) + torch.tensor([-8, -12], dtype=torch.int32)
    assert error(frame, shown(moved(reference, search(frame, reference, QP, before)))) <= error(frame, reference)


def test_displacements_may_be_found_before_and_in_another_picture():
    reference = texture(64, 64)[None]
    frame = reference.roll((4, -8), (1, 2))
    coarse = displacements(frame, reference, QP)
    assert coarse.shape == (1, 4, 4, 2) and coarse.dtype == torch.int32
    assert torch.equal(search(frame, reference, QP, coarse=coarse), search(frame, reference, QP))
    noisy = (reference.int() + torch.randint(-6, 7, reference.shape)).clamp(0, 255).to(torch.uint8)
    near = search(frame, reference, QP, coarse=displacements(frame, noisy, QP))
    assert error(frame, shown(moved(reference, near))) < 0.2 * error(frame, reference)


def test_graphs_find_the_same():
    """Graphs are made after some frames (vidlbc.codec.traced), in inference mode."""
    reference = texture(64, 96)[None]
    frame = reference.roll((2, 3), (1, 2))
    first = search(frame, reference, QP)
    with torch.inference_mode():
        assert all(torch.equal(search(frame, reference, QP), first) for _ in range(30))
