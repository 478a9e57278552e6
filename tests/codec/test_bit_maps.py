"""Bits of symbols as a file holds them: they add up to it, and lie where and when they were spent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.codec.bitstream import Reader, unpack_modes
from vidlbc.codec.codec import Codec
from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.entropy.tables import tables
from vidlbc.errors import WeightsMismatch
from vidlbc.evaluate.rate_distortion.bit_maps import CELL, bit_maps

FRAMES = 17  # two packets


def payload_bits(data: bytes) -> list[int]:
    return [8 * size for _, size in vidlbc.inspect(data).packets]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "context"), [("none", True), ("lstm", True), ("transformer", True), ("transformer", False)]
)
def test_they_add_up_to_the_file(codec_of: Callable[..., Codec], kind: str, context: bool) -> None:
    codec, frames = codec_of(kind), noisy_frames(FRAMES, 40, 40)
    data = codec.compress(frames, qp=40, context=context)
    maps = bit_maps(codec, data)
    assert maps.levels.shape == (FRAMES, 4) and maps.strides == (4, 8, 16, 32)
    assert maps.cells.shape == (FRAMES, 8, 8) and maps.shown.shape == (FRAMES, 5, 5)
    assert maps.levels.sum() == pytest.approx(maps.cells.sum(), rel=1e-9)
    np.testing.assert_allclose(maps.levels.sum(1), maps.cells.sum((1, 2)))
    packets = payload_bits(data)
    assert len(packets) == 2 and abs(sum(packets) - maps.frames.sum()) < 64 * len(packets)
    assert maps.frames.sum() + maps.other == pytest.approx(8 * len(data))


def test_each_level_has_the_prior_that_the_file_names(model_folder: Path) -> None:
    """Levels of one frame under either prior: the sums hold only if the file's modes are followed."""
    codec = vidlbc.load(model_folder, device="cpu", temporal="transformer")
    frames = noisy_frames(6, 64, 64)
    data = codec.compress(frames, qp=40)
    modes = [m for p in Reader(data).packets() for m in unpack_modes(p.modes, p.frames, 4)]
    assert any(modes), "no level of this clip is coded by the intra prior"
    maps = bit_maps(codec, data)
    (payload,) = payload_bits(data)
    assert abs(payload - maps.frames.sum()) < 64
    codec._priors.intra_frames = False
    other = codec.compress(frames, qp=40)
    assert abs(8 * len(other) - 8 * len(data)) > 640, "the modes make no difference here"


@pytest.mark.slow
def test_a_base_layer_and_channels_that_are_left_out(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path / "m", kinds=("lstm",), variants={"V3": [0, 0, 2, 3]}, base_levels=2)
    codec = vidlbc.load(folder, device="cpu", temporal="lstm")
    data = codec.compress(noisy_frames(3, 32, 64), qp=40, variant="V3")
    maps = bit_maps(codec, data)
    assert (maps.levels[:, :2] == 0).all() and (maps.levels[:, 2:] > 0).all()
    packets = payload_bits(data)
    assert len(packets) == 2 and abs(sum(packets) - maps.frames.sum()) < 64 * 2


def test_bits_lie_where_they_are_spent(codec_of: Callable[..., Codec]) -> None:
    """One surprising symbol of each level, at a place of its own."""
    codec = codec_of("none")
    plain = [torch.zeros(2, 64 // s, 96 // s, c, dtype=torch.int32) for s, c in ((4, 1), (8, 3), (16, 4), (32, 5))]
    before = bit_maps(codec, codec.compress_symbols(plain, 32, 64, 96)[0])
    for index, (row, column) in enumerate([(5, 9), (2, 4), (3, 1), (0, 2)]):
        symbols = [q.clone() for q in plain]
        symbols[index][1, row, column, 0] = 200
        more = bit_maps(codec, codec.compress_symbols(symbols, 32, 64, 96)[0])
        assert np.array_equal(more.levels[0], before.levels[0]) and np.array_equal(more.cells[0], before.cells[0])
        grown = more.cells[1] - before.cells[1]
        stride = before.strides[index]
        top, left = row * stride // CELL, column * stride // CELL
        side = max(1, stride // CELL)
        place = grown[top : top + side, left : left + side]
        assert place.min() > 10 / side**2 and place.sum() > 0.5 * np.abs(grown).sum()
        risen = more.levels[1] - before.levels[1]  # finer levels may be foreseen otherwise, coarser ones not
        assert risen[index] > 10 and not risen[index + 1 :].any()


def test_code_lengths_are_those_of_the_tables() -> None:
    mean, log2_scale = torch.tensor([0.0, 3.25, -7.6, 0.0]), torch.tensor([-2.0, 1.0, 3.0, -5.0])
    parameters = coder.quantise(Distribution(mean, log2_scale))
    symbols = np.array([0, 5, -9, 3000], np.int32)
    bits = coder.code_lengths(symbols, parameters)
    expected = []
    for q, index, centre, flip in zip(symbols, parameters.table, parameters.centre, parameters.flip, strict=True):
        table = tables()[index]
        entry = (q - centre) * flip + table.radius
        plain = 0 <= entry <= 2 * table.radius
        expected.append(-np.log2(table.counts[entry if plain else -1] / 2**24) + (0 if plain else 16))
    np.testing.assert_allclose(bits, expected, rtol=1e-6)
    assert bits[3] > 30 > bits[1] > bits[0]


def test_other_weights_are_refused(codec_of: Callable[..., Codec]) -> None:
    data = codec_of("none").compress(noisy_frames(1, 32, 32), qp=40)
    with pytest.raises(WeightsMismatch):
        bit_maps(codec_of("lstm"), data)
