"""The codec against a second decoder, in integers and without torch, written from docs/bitstream.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vidlbc
from tests.codec import reference_priors, reference_stream
from tests.codec.small_models import KINDS, noisy_frames
from vidlbc.codec.bitstream import Reader, pack_modes, unpack_modes
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding import CodedFrame
from vidlbc.codec.entropy.tables import tables


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [True, False])
def test_the_specification_decodes(
    codec_of: Callable[..., Codec], model_folder: Path, kind: str, context: bool
) -> None:
    codec = codec_of(kind)
    data = codec.compress(noisy_frames(3, 40, 72), qp=27, context=context)
    expected = [q.numpy() for q in codec.padded_symbols(data)]
    frames = reference_priors.decode(data, model_folder)
    assert len(frames) == 3
    for t, frame in enumerate(frames):
        for level, q in zip(frame, expected, strict=True):
            np.testing.assert_array_equal(level, q[t])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_any_mixture_of_priors_decodes(
    codec_of: Callable[..., Codec], model_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every combination of levels coded by the intra prior, whatever is shorter."""
    codec, mask, choose = vidlbc.load(model_folder, device="cpu", temporal=kind), count(), CodedFrame.or_intra

    def mixed(self: CodedFrame, other: CodedFrame) -> CodedFrame:
        wanted = next(mask) % 16
        bits = [-1.0 if wanted >> level & 1 else float("inf") for level in range(4)]
        return choose(self, dataclasses.replace(other, level_bits=bits))

    monkeypatch.setattr(CodedFrame, "or_intra", mixed)
    monkeypatch.setattr("vidlbc.codec.coding.encoding.NEAR_INTRA", 0)
    for name in ("_WORTH_BOTH", "_WORTH_BOTH_AT_CUTS"):
        monkeypatch.setattr(f"vidlbc.codec.coding.encoding.{name}", -1)
    data = codec.compress(noisy_frames(18, 40, 48), qp=30)
    found = [m for p in Reader(data).packets() for m in unpack_modes(p.modes, p.frames, 4)]
    assert set(found) == set(range(16))
    expected = codec.analyse(noisy_frames(18, 40, 48), 30)
    assert all(torch.equal(a, b) for a, b in zip(codec.padded_symbols(data), expected, strict=True))
    plain = codec_of(kind).compress(noisy_frames(18, 40, 48), qp=30)
    assert all(torch.equal(*pair) for pair in codec.symbols([data, plain]))
    for t, frame in enumerate(reference_priors.decode(data, model_folder)):
        for level, q in zip(frame, expected, strict=True):
            np.testing.assert_array_equal(level, q[t].numpy())


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 16).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, 2**n - 1), max_size=40))))
def test_modes_are_what_was_packed(drawn: tuple[int, list[int]]) -> None:
    levels, masks = drawn
    assert unpack_modes(pack_modes(masks, levels), len(masks), levels) == masks


def test_the_specification_gives_the_same_tables() -> None:
    for index in (0, 5, 29, 40, 61, 88):
        for fraction in (0, 3, 8):
            radius, counts = reference_stream.table(index, fraction)
            table = tables()[index * 9 + fraction]
            assert radius == table.radius and counts == table.counts.tolist()
