"""Golden bitstreams of moved kinds: as tests/codec/test_golden.py, but for RDO only what is decoded is fixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
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
    "moved_lstm_copies": (
        "ab2421a1c8bcae6bb51e0de880885c87dfe7e42faecbacf70bffb87144eac1a0",
        "eccd1f48dbf25e81a16d1781aca5ecc9996dac32af69cb88d3be6544ccf68768",
    ),
    "moved_transformer_copies": (
        "27b157329df81faa5dcfee5896260c78d22aa0ef4febd59cd918b874fb08edf5",
        "21007d7347b96505c091c3cf14b551b47f891f3a346af7ed3c776b38ccfa319b",
    ),
    "moved_lstm_bright": (
        "6e47d611bf2d0e5adea2f3033cf7736b6c275446bca57ce5aa943724cacd1c55",
        "72b543d11ce584f44d1a66cccff98132955e0bf0dd24ea84f667686cf85a8784",
    ),
    "moved_transformer_overlap": (
        "fa26b79831ea1df90d6046f213a96b9706c2247f3734a53ce3a1f629128cf820",
        "9f340c062d85559c36effe1c39a48fb1cb9edf314958708d62cce5281277e868",
    ),
}
# Of the pictures that frames are predicted from, uint8, cropped.
PICTURES = {
    "moved_lstm_copies": "fdb883494de60963fbca531c468582eef6171b643dd29a88393d4732b9bbc8bf",
    "moved_transformer_copies": "2ef9f468d5fd9c1f9ae354778d12ca13a6a705443c491bde3ca6ee93fe334a73",
    "moved_lstm_bright": "46215e9892808eba5d3e984d367ad7cf62749a0af53a7fa60f829553fec7bdfa",
    "moved_transformer_overlap": "d15b5ed59946001b6aad888d32baa18b06fad34d5e7493d1a3c9fbdb18e640f8",
}
FIXED = [name for name in golden_moved.NAMES if not (golden_moved.copies(name) or name.endswith("rdo"))]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model of a stream's name."""
    root, kinds = tmp_path_factory.mktemp("golden"), golden_streams.MODEL_KINDS
    folders = {
        options: save_small_model(root / "-".join(map(str, options)), golden_streams.SEED, kinds, True, *options)
        for options in {(golden_moved.copies(name), golden_moved.overlap(name)) for name in golden_moved.NAMES}
    }
    return lambda name: folders[golden_moved.copies(name), golden_moved.overlap(name)]


def golden(name: str) -> bytes:
    return (golden_streams.FOLDER / f"{name}.vlbc").read_bytes()


def digest(levels: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(level.astype("<i4").tobytes() for level in levels)).hexdigest()


def test_weights_have_their_golden_fingerprints(model_of: Callable[[str], Path]) -> None:
    expected = json.loads((golden_streams.FOLDER / "fingerprints.json").read_text())
    for name, kind in golden_moved.NAMES.items():
        loaded = vidlbc.load(model_of(name), "cpu", kind).fingerprint
        assert loaded == vidlbc.inspect(golden(name)).fingerprint == expected[name]


@pytest.mark.parametrize("name", golden_moved.NAMES)
def test_files_are_those_that_were_written(name: str) -> None:
    data = golden(name)
    assert hashlib.sha256(data).hexdigest() == SHA256[name][0]
    info = vidlbc.inspect(data)
    version, kinds = (6, golden_moved.KINDS_OF_COPIES) if golden_moved.copies(name) else (5, golden_moved.KINDS)
    assert (info.version, info.frames, info.height, info.width, info.fps) == (version, 9, 70, 83, golden_streams.FPS)
    assert "".join(kind.name[0] for kind in kinds_of(data)) == kinds
    lifts = [2 if version == 6 and t in (0, 5, 6) else 0 for t in range(9)]
    assert info.qps == tuple(golden_streams.QP + lift for lift in lifts)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_symbols_and_fields_become_the_golden_bytes(model_of: Callable[[str], Path], name: str) -> None:
    assert golden_moved.encode(model_of(name), name) == golden(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_moved.NAMES)
def test_golden_bytes_become_the_symbols(model_of: Callable[[str], Path], name: str) -> None:
    codec = vidlbc.load(model_of(name), "cpu", golden_moved.NAMES[name])
    (decoded, _), pictures = codec.decode_shown(golden(name))
    if name in PICTURES:
        assert hashlib.sha256(pictures.tobytes()).hexdigest() == PICTURES[name]
    assert digest([q.numpy() for q in decoded]) == SHA256[name][1]
    if name in FIXED:
        assert all(torch.equal(a, b) for a, b in zip(decoded, golden_moved.symbols(), strict=True))
    assert int(max(q.abs().max() for q in decoded)) == 32767


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_moved.NAMES)
def test_the_specification_decodes_them(model_of: Callable[[str], Path], name: str) -> None:
    frames = reference_moved.decode_shown(golden(name), model_of(name))
    symbols = zip(*[symbols for symbols, _ in frames], strict=True)
    assert digest([np.stack(level) for level in symbols]) == SHA256[name][1]
    if name in PICTURES:
        pictures = np.stack([picture[:70, :83] for _, picture in frames if picture is not None])
        assert hashlib.sha256(pictures.tobytes()).hexdigest() == PICTURES[name]
