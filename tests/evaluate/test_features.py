"""Views, holdouts, patches and the cache of tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.motion import motion_set
from vidlbc.errors import InputError
from vidlbc.evaluate import FeatureBuilder, FeatureSet, ViewPlan, patchify, pixel_levels, split_by_group, view_indices
from vidlbc.heads import TokenGrid

LEVELS = [(4, 4), (12, 8), (18, 16), (24, 32)]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 400),
    frames=st.integers(1, 32),
    views=st.integers(1, 5),
    span=st.floats(0.05, 1.0),
    jitter=st.booleans(),
)
def test_views_stay_inside_and_go_forward(n: int, frames: int, views: int, span: float, jitter: bool) -> None:
    at = view_indices(n, ViewPlan(frames, views, span, jitter), "key")
    assert at.shape == (views, frames)
    assert at.min() >= 0 and at.max() < n and (np.diff(at, axis=1) >= 0).all()


def test_views_by_hand() -> None:
    assert view_indices(16, ViewPlan(frames=4, views=2)).tolist() == [[1, 5, 9, 13], [3, 7, 11, 15]]
    assert view_indices(20, ViewPlan(frames=2, views=2, span=0.5)).tolist() == [[1, 6], [13, 18]]
    assert view_indices(1, ViewPlan(frames=3, views=1)).tolist() == [[0, 0, 0]]


def test_jitter_is_a_function_of_seed_key_and_view() -> None:
    plan = ViewPlan(frames=8, views=3, jitter=True)
    a = view_indices(200, plan, "a")
    assert (a == view_indices(200, plan, "a")).all()
    assert (a != view_indices(200, plan, "b")).any()
    assert (a != view_indices(200, ViewPlan(frames=8, views=3, jitter=True, seed=1), "a")).any()
    assert len({tuple(v) for v in a.tolist()}) == 3


def test_view_errors() -> None:
    with pytest.raises(InputError, match="video 'x.mp4' has 0"):
        view_indices(0, ViewPlan(), "x.mp4")
    with pytest.raises(InputError, match=r"span of a view must be in \(0, 1\], got 1.5"):
        ViewPlan(span=1.5)


@settings(deadline=None, max_examples=60)
@given(
    items=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=60),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
def test_holdout_is_a_partition_by_group(items: list[tuple[int, int]], fraction: float, seed: int) -> None:
    groups, labels = [f"g{g}" for g, _ in items], [label for _, label in items]
    if len(set(groups)) < 2:
        with pytest.raises(InputError, match="at least 2 groups"):
            split_by_group(groups, labels, fraction, seed)
        return
    fit, held = split_by_group(groups, labels, fraction, seed)
    assert fit and held and sorted(fit + held) == list(range(len(items)))
    assert not {groups[i] for i in fit} & {groups[i] for i in held}
    assert (fit, held) == split_by_group(groups, labels, fraction, seed)


def test_holdout_keeps_every_class_in_the_fit_part() -> None:
    groups = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    labels = [0, 1, 2, 2] + [0, 1, 0, 1] + [0, 1, 1, 0]  # only "a" shows class 2
    for seed in range(20):
        fit, held = split_by_group(groups, labels, 0.34, seed)
        assert {labels[i] for i in fit} == {0, 1, 2} and len(held) == 4


def test_items_without_a_group_are_their_own() -> None:
    fit, held = split_by_group([""] * 10, [0, 1] * 5, 0.2, seed=1)
    assert len(held) == 2 and len(fit) == 8


def test_patches_have_the_latents_shapes() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 90, 150, 3), dtype=np.uint8)
    levels = patchify(frames, LEVELS)
    assert [tuple(y.shape) for y in levels] == [(3, 4, 23, 38), (3, 12, 12, 19), (3, 18, 6, 10), (3, 24, 3, 5)]
    assert pixel_levels([(500, 8), (60, 4), (1, 16)]) == [(192, 8), (48, 4), (1, 16)]
    raw = patchify(frames, [(12, 8)], transform="none")
    assert raw[0].shape == (3, 12, 12, 19) and pixel_levels([(12, 8)], "none") == [(12, 8)]


def test_all_patch_coefficients_hold_all_of_the_picture() -> None:
    """192 coefficients a patch are an orthonormal rotation of Y, Cb, Cr: the energy is the same, so nothing is lost."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    (y,) = patchify(frames, [(192, 8)])
    x = frames.astype(np.float64) / 127.5 - 1
    luma = x @ [0.299, 0.587, 0.114]
    cb, cr = (x[..., 2] - luma) * 0.5 / (1 - 0.114), (x[..., 0] - luma) * 0.5 / (1 - 0.299)
    assert y.double().square().sum().item() == pytest.approx((luma**2 + cb**2 + cr**2).sum(), rel=1e-4)


def test_flat_grey_has_only_its_mean() -> None:
    (y,) = patchify(np.full((1, 16, 16, 3), 255, np.uint8), [(24, 16)])
    assert y[0, 0].item() == pytest.approx(8.0)  # mean 1 times the DCT's gain of 8
    assert y[0, 1:].abs().max() < 1e-4


def test_patch_errors() -> None:
    with pytest.raises(InputError, match=r"frames must be uint8 \(T, H, W, 3\), got torch.float32"):
        patchify(torch.zeros(1, 8, 8, 3), [(3, 8)])
    with pytest.raises(InputError, match="power of two, got 12"):
        patchify(np.zeros((1, 8, 8, 3), np.uint8), [(3, 12)])


def test_builder_gives_the_stem_of_each_view() -> None:
    plan = ViewPlan(frames=4, views=2)
    rng = torch.Generator().manual_seed(0)
    clip = [torch.randn(11, 2, 6, 8, generator=rng), torch.randn(11, 3, 3, 4, generator=rng)]
    builder = FeatureBuilder([(2, 8), (3, 16)], plan, grid=2)
    builder.add("a", 1, clip, "p1")
    builder.fail("b", "unreadable: no frames")
    data = builder.build()
    for v, at in enumerate(view_indices(11, plan, "a")):
        expected = TokenGrid([(2, 8), (3, 16)], 2)([y[None, at] for y in clip])[0]
        torch.testing.assert_close(data.tokens[0, v].float(), expected, rtol=2e-3, atol=2e-3)
    assert data.failed == (("b", "unreadable: no frames"),) and data.groups == ("p1",) and data.labels.tolist() == [1]


def test_pixel_builder_reads_frames_in_the_same_token_shape() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), dtype=np.uint8)
    builder = FeatureBuilder(LEVELS, ViewPlan(frames=4, views=2), pixels=True)
    builder.add("a", 0, frames)
    assert builder.build().tokens.shape == (1, 2, 4, 3 * sum(c for c, _ in LEVELS), 4, 4)


def test_builder_errors() -> None:
    builder = FeatureBuilder([(2, 8)], ViewPlan())
    builder.fail("b", "unreadable")
    with pytest.raises(InputError, match=r"no clip could be read \(1 failed\)"):
        builder.build()
    for _ in range(2):
        builder.add("a", 0, [torch.zeros(4, 2, 2, 2)])
    with pytest.raises(InputError, match="a video twice"):
        builder.build()


def test_features_survive_the_disk(tmp_path: Path) -> None:
    data = motion_set(6, 0, views=2)
    data.save(tmp_path / "f.safetensors")
    back = FeatureSet.load(tmp_path / "f.safetensors")
    assert torch.equal(back.tokens, data.tokens) and torch.equal(back.labels, data.labels)
    assert (back.keys, back.groups, back.levels, back.failed) == (data.keys, data.groups, data.levels, data.failed)
    assert [p.name for p in tmp_path.iterdir()] == ["f.safetensors"]
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read features"):
        FeatureSet.load(tmp_path / "bad")
