"""The stem: values against a plain computation, any size, any subset of levels, clear errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlbc.errors import InputError
from vidlbc.heads import TokenGrid


def test_three_statistics_by_hand() -> None:
    y = torch.tensor([[4.0, -4.0], [0.0, 0.0]]).expand(1, 2, 1, 2, 2).clone()
    y[0, 1] += 9.0
    tokens = TokenGrid([(1, 8)], grid=1)([y])
    first, second = tokens[0, :, :, 0, 0]
    assert first.tolist() == pytest.approx([0.0, 2.0**0.5, 0.0])  # 4 and -4 cancel in the mean, not in the magnitude
    assert second[1].item() == pytest.approx(((13 + 5 + 9 + 9) / 4) ** 0.5)
    assert second[2].item() == pytest.approx(3.0)  # every value moved by 9


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3),
    frames=st.integers(1, 5),
    grid=st.integers(1, 5),
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
)
def test_any_levels_and_sizes(batch: int, frames: int, grid: int, sizes: list[tuple[int, int, int]]) -> None:
    stem = TokenGrid([(c, 8) for c, _, _ in sizes], grid)
    tokens = stem([torch.randn(batch, frames, c, h, w) for c, h, w in sizes])
    assert tokens.shape == (batch, frames, stem.channels, grid, grid)
    assert stem.channels == 3 * sum(c for c, _, _ in sizes)
    assert torch.isfinite(tokens).all()


@settings(deadline=None, max_examples=15)
@given(scale=st.floats(0.1, 100.0))
def test_homogeneous_in_the_latents(scale: float) -> None:
    y = torch.randn(1, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    stem = TokenGrid([(2, 8)], 2)
    torch.testing.assert_close(stem([y * scale]), stem([y]) * scale**0.5, rtol=1e-4, atol=1e-5)


def test_wrong_levels_are_named() -> None:
    stem = TokenGrid([(2, 8), (4, 16)])
    with pytest.raises(InputError, match="the head reads 2 levels, got 1"):
        stem([torch.zeros(1, 1, 2, 4, 4)])
    with pytest.raises(InputError, match=r"level 1 \(stride 16\) must be \(B, T, 4, H, W\), got \(1, 1, 3, 4, 4\)"):
        stem([torch.zeros(1, 1, 2, 4, 4), torch.zeros(1, 1, 3, 4, 4)])
    with pytest.raises(InputError, match=r"level 1 \(stride 16\) has shape .* expected B, T = \(1, 2\)"):
        stem([torch.zeros(1, 2, 2, 4, 4), torch.zeros(1, 1, 4, 2, 2)])
    with pytest.raises(InputError, match="at least one level"):
        TokenGrid([])
