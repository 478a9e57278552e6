"""Clip sampling: exact where the video is long enough, evenly spread always."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlbc.errors import InputError
from vidlbc.video import clip_indices

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 16), st.integers(1, 12))


@given(sizes)
def test_properties(size: tuple[int, int, int, int]) -> None:
    n_frames, length, stride, clips = size
    indices = clip_indices(*size)
    assert indices.shape == (clips, length) and indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() < n_frames
    assert (np.diff(indices, axis=1) >= 0).all() and (np.diff(indices[:, 0]) >= 0).all()
    np.testing.assert_array_equal(indices, clip_indices(*size))
    span = (length - 1) * stride + 1
    if span <= n_frames:
        assert (np.diff(indices, axis=1) == stride).all()
        gaps = np.diff(indices[:, 0])
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1  # evenly spread
        if clips > 1:
            assert indices[0, 0] == 0 and indices[-1, -1] == n_frames - 1
        else:
            before, after = indices[0, 0], n_frames - 1 - indices[0, -1]
            assert 0 <= after - before <= 1
    else:
        steps = np.diff(indices, axis=1)
        assert steps.max() - steps.min() <= 1
        assert (indices[:, 0] == 0).all() and (indices[:, -1] == n_frames - 1).all()


def test_by_hand() -> None:
    assert clip_indices(10, 3, 2, 1).tolist() == [[2, 4, 6]]
    assert clip_indices(10, 3, 2, 3).tolist() == [[0, 2, 4], [2, 4, 6], [5, 7, 9]]
    assert clip_indices(5, 4, 4, 2).tolist() == [[0, 1, 2, 4], [0, 1, 2, 4]]
    assert clip_indices(1, 3, 1, 2).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("name", ["n_frames", "length", "stride", "clips"])
def test_bad_values(name: str) -> None:
    with pytest.raises(InputError) as caught:
        clip_indices(**{"n_frames": 9, "length": 2, "stride": 1, "clips": 1, name: 0})
    assert str(caught.value) == f"{name}=0: expected at least 1"
