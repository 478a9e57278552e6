"""The codec against a second decoder, in integers and without torch, written from docs/bitstream.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.codec import reference_priors, reference_stream
from tests.codec.small_models import KINDS, noisy_frames
from vidlbc.codec import Codec
from vidlbc.entropy.tables import tables


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


def test_the_specification_gives_the_same_tables() -> None:
    for index in (0, 5, 29, 40, 61, 88):
        for fraction in (0, 3, 8):
            radius, counts = reference_stream.table(index, fraction)
            table = tables()[index * 9 + fraction]
            assert radius == table.radius and counts == table.counts.tolist()
