"""Rate-distortion optimised quantisation: an ordinary bitstream of symbols that cost less."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import KINDS, noisy_frames, save_small_model
from tests.conftest import motion_frames

VARIANTS = {"short": [0, 2, 2, 3]}


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    folder = save_small_model(tmp_path_factory.mktemp("models") / "small")
    return {kind: vidlbc.load(folder, "cpu", temporal=kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_stay_within_one_of_rounding_and_cost_fewer_bits(codecs, kind):
    codec, frames = codecs[kind], noisy_frames(5, 40, 56)
    plain, chosen = codec.compress(frames, qp=30), codec.compress(frames, qp=30, rdo=True)
    assert len(chosen) < len(plain)
    assert chosen == codec.compress(frames, qp=30, rdo=True)
    rounded, decoded = codec.analyse(frames, 30), codec.padded_symbols(chosen)
    changed = [(a - b).abs() for a, b in zip(rounded, decoded, strict=True)]
    assert max(int(level.max()) for level in changed) == 1
    # Where a symbol moved, it was on the far side of what was rounded: never by more than a whole step.
    errors = [(q - y).abs().max() for q, y in zip(decoded, codec.scaled(codec.unquantised(frames), 30), strict=True)]
    assert max(map(float, errors)) <= 1.0


def test_a_clip_longer_than_a_packet_goes_on_from_the_same_past(codecs):
    codec, frames = codecs["transformer"], motion_frames(20, (32, 48), motion=(1.0, 1.0))
    whole = codec.compress(frames, qp=40, rdo=True)
    sink = io.BytesIO()
    codec.compress_stream([frames[:3], frames[3:18], frames[18:]], sink, qp=40, rdo=True)
    assert sink.getvalue() == whole and len(codec.decompress(whole)) == 20


def test_without_context_every_frame_is_chosen_alone(codecs):
    codec, frame = codecs["lstm"], noisy_frames(1, 32, 32)
    data = codec.compress(np.repeat(frame, 3, axis=0), qp=20, context=False, rdo=True)
    for level in codec.padded_symbols(data):
        assert torch.equal(level[0], level[1]) and torch.equal(level[0], level[2])


def test_channels_that_a_variant_leaves_out_stay_zero(tmp_path):
    codec = vidlbc.load(save_small_model(tmp_path / "varied", variants=VARIANTS), "cpu", temporal="transformer")
    data = codec.compress(noisy_frames(3, 32, 32), qp=50, variant="short", rdo=True)
    for level, kept in zip(codec.padded_symbols(data), VARIANTS["short"], strict=True):
        assert not level[..., kept:].any()
