"""Golden bitstreams of moved kinds: as tests/codec/test_golden.py, but for RDO only what is decoded is fixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec import golden_moved, golden_streams, reference_moved
from tests.codec.small_models import kinds_of, save_small_model

# SHA-256 of the file, and of its symbols: int32, level after level.
SHA256 = {
    "moved_lstm": (
        "4bd6eab80a80a4d99f3c4c0e5f791a7ff0402387408d8c5a7092e2ff87ab01dc",
        "cad47a31f567e2d2e3def970be523ff6951112b228289449f59e573419dc47fa",
    ),
    "moved_transformer": (
        "d3dcc38a14d252ccf877fe383eb02b837f7be13d856c1707f075f962192c807b",
        "cad47a31f567e2d2e3def970be523ff6951112b228289449f59e573419dc47fa",
    ),
    "moved_lstm_rdo": (
        "a6d6b77cc9132c4cead97ce760d2ac90639796fce8b8de161f57f9390054e18f",
        "780f82aee2104dfae0c95617b6d5040cc566fa924a6666283e5b0fa3db0cf0d3",
    ),
    "moved_transformer_rdo": (
        "706471760a97f52043d0281aeeda74c588a0533c2228715a87461b6c3c1b26a8",
        "a00dcc132a3b2cd5c924fe975361b1ae288303f1e7b7d6d2df307621695b3402",
    ),
}
FIXED = [name for name in golden_moved.NAMES if not name.endswith("rdo")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, kinds = tmp_path_factory.mktemp("golden") / "moved", golden_streams.MODEL_KINDS
    return save_small_model(folder, golden_streams.SEED, kinds, moved=True)


def golden(name: str) -> bytes:
    return (golden_streams.FOLDER / f"{name}.vlbc").read_bytes()


def digest(levels: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(level.astype("<i4").tobytes() for level in levels)).hexdigest()


def test_weights_have_their_golden_fingerprints(model: Path) -> None:
    expected = json.loads((golden_streams.FOLDER / "fingerprints.json").read_text())
    for name, kind in golden_moved.NAMES.items():
        assert vidlbc.load(model, "cpu", kind).fingerprint == vidlbc.inspect(golden(name)).fingerprint == expected[name]


@pytest.mark.parametrize("name", golden_moved.NAMES)
def test_files_are_those_that_were_written(name: str) -> None:
    data = golden(name)
    assert hashlib.sha256(data).hexdigest() == SHA256[name][0]
    info = vidlbc.inspect(data)
    assert (info.version, info.frames, info.height, info.width, info.fps) == (5, 9, 70, 83, golden_streams.FPS)
    kinds = [kind.name[0] for kind in kinds_of(data)]
    assert "".join(kinds) == golden_moved.KINDS


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_symbols_and_fields_become_the_golden_bytes(model: Path, name: str) -> None:
    assert golden_moved.encode(model, name) == golden(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_moved.NAMES)
def test_golden_bytes_become_the_symbols(model: Path, name: str) -> None:
    codec = vidlbc.load(model, "cpu", golden_moved.NAMES[name])
    decoded = codec.padded_symbols(golden(name))
    assert digest([q.numpy() for q in decoded]) == SHA256[name][1]
    if name in FIXED:
        assert all(torch.equal(a, b) for a, b in zip(decoded, golden_moved.symbols(), strict=True))
    assert int(max(q.abs().max() for q in decoded)) == 32767


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_moved.NAMES)
def test_the_specification_decodes_them(model: Path, name: str) -> None:
    frames = reference_moved.decode(golden(name), model)
    assert digest([np.stack(level) for level in zip(*frames, strict=True)]) == SHA256[name][1]
