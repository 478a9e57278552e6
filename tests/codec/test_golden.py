"""Golden bitstreams: the format cannot change unnoticed, and what was written once decodes for ever.

The files in tests/goldens are never written again for the same format version. If one of these tests fails, the change
under test breaks every bitstream in existence: undo it, or give the format a new version.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec import golden_streams, reference_priors
from tests.codec.small_models import save_small_model

SHA256 = {
    "transformer_skip": "c4b2b13f4ca1248b15d5d47eb9657d20ec08196488ad32ed497cec596532a4b1",
    "none": "0a12d7933a458467a9411a086f4b7b1d81d812f8f299590526e21beade0ba76f",
    "lstm": "6149b08076acfbbc3f71189a3763dbf30488cee2ece75c56011d92b664f56b41",
    "transformer": "602a6b2065bafdc519121b1335d0de85ef566dcbaeb5019d6f89a45a66957c9c",
    "transformer_layers": "63ed77df5354fae73648d5a9fb35b9835e72bbad0aabc11d3da7730258af1480",
    "lstm_variant": "f839cb8844e977e211fc2e360ee9e2862ac8f319e41b79d644ceee4139dd2008",
    "none_layers_variant": "f64723fcbf8de64694168135c554f470bc7e58649bd2631f90958952d6b79377",
    "transformer_intra": "da1ce1286fc8cd896d99def9c61aa75122c78e4ed71cd454c6ceae70c1266950",
    "transformer_no_context": "dbdea1b7f835141f6087349829e075f0d7fd2231e1ff0d296e202d755d6af571",
}
# Of the coding tables (gain, step, log2 gain of 64 QPs), float32, level after level.
CODING_SHA256 = "9921fcc26fd7ae0c0d51912b18fdce29a35b6aae41bf9c2301e9b3d6e53671ab"


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model folder of a golden stream."""

    @functools.cache
    def build(name: str) -> Path:
        folder, kinds = tmp_path_factory.mktemp(name), golden_streams.MODEL_KINDS
        return save_small_model(folder, golden_streams.SEED, kinds, **golden_streams.options_of(name))

    return build


@pytest.fixture(scope="module")
def golden_model(model_of: Callable[[str], Path]) -> Path:
    return model_of("none")


def golden(name: str) -> bytes:
    return (golden_streams.FOLDER / f"{name}.vlbc").read_bytes()


def test_weights_have_their_golden_fingerprints(model_of: Callable[[str], Path]) -> None:
    """If these alone fail: how weights are stored or named has changed, and old streams lose their weights."""
    expected = json.loads((golden_streams.FOLDER / "fingerprints.json").read_text())
    for name, (kind, _) in golden_streams.NAMES.items():
        assert vidlbc.load(model_of(name), device="cpu", temporal=kind).fingerprint == expected[name]
        assert vidlbc.inspect(golden(name)).fingerprint == expected[name]


def test_coding_tables_are_golden(golden_model: Path) -> None:
    codec = vidlbc.load(golden_model, device="cpu", temporal="none")
    tables = b"".join(table.float().numpy().tobytes() for table in codec.image.coding)
    assert hashlib.sha256(tables).hexdigest() == CODING_SHA256


@pytest.mark.parametrize("name", golden_streams.NAMES)
def test_files_are_those_that_were_written(name: str) -> None:
    assert hashlib.sha256(golden(name)).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", golden_streams.NAMES)
def test_symbols_become_the_golden_bytes(model_of: Callable[[str], Path], name: str) -> None:
    assert golden_streams.encode(model_of(name), name) == golden(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_streams.NAMES)
def test_golden_bytes_become_the_symbols(model_of: Callable[[str], Path], name: str) -> None:
    codec = vidlbc.load(model_of(name), device="cpu", temporal=golden_streams.NAMES[name][0])
    decoded, given = codec.padded_symbols(golden(name)), golden_streams.symbols(name)
    assert all(torch.equal(a, b) for a, b in zip(decoded, golden_streams.fitted(codec, name), strict=True))
    changed = sum(int((a != b).sum()) for a, b in zip(decoded, given, strict=True))
    assert (changed > 0.1 * sum(q.numel() for q in given)) == name.endswith("skip")
    assert int(max(q.abs().max() for q in decoded)) == 32767
    info = vidlbc.inspect(golden(name))
    assert info.version == (4 if info.skip else 3 if golden_streams.options_of(name) else 2)
    assert (info.frames, info.height, info.width) == (19, 20, 37)
    assert (info.qp, info.fps, info.packets[0][0]) == (37, golden_streams.FPS, 16)
    assert codec.decompress(golden(name)).shape == (19, 20, 37, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_streams.NAMES)
def test_the_specification_decodes_them(model_of: Callable[[str], Path], name: str) -> None:
    frames = reference_priors.decode(golden(name), model_of(name))
    expected = golden_streams.fitted(vidlbc.load(model_of(name), "cpu", golden_streams.NAMES[name][0]), name)
    for t, frame in enumerate(frames):
        for level, q in zip(frame, expected, strict=True):
            np.testing.assert_array_equal(level, q[t].numpy())
