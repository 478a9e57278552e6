"""Checkpoints and weights: tensors and JSON, nothing that runs; whole or not there; damage is one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.codec.small_models import save_small_model
from tests.train.small_runs import image_run, settings, temporal_run, train
from vidlbc.codec import models
from vidlbc.errors import InputError
from vidlbc.run.tensor_files import load_tensors, save_tensors


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    train(image_run(tmp_path), tmp_path, settings(2))
    return tmp_path / "checkpoint.safetensors"


def test_a_checkpoint_is_json_and_plain_numbers(checkpoint: Path) -> None:
    """Every byte accounted for: a length, a JSON header, and arrays of numbers without a gap."""
    data = checkpoint.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    meta = json.loads(header.pop("__metadata__")["vidlbc"])
    assert meta["step"] == 2 and meta["skipped"] == 0
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert spans[0][0] == 0 and spans[-1][1] == len(data) - 8 - size
    assert all(a[1] == b[0] for a, b in zip(spans[:-1], spans[1:], strict=True))
    assert {entry["dtype"] for entry in header.values()} <= {"F32", "F16", "I64"}


def test_no_pickle_is_loaded(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_small_model(tmp_path / "model")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was loaded")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_tensors(checkpoint)
    image = models.load_image_stage(folder / "image_stage")
    models.load_temporal(folder / "temporal" / "lstm", image)


def test_a_pickle_in_its_place_is_refused(tmp_path: Path) -> None:
    ran: list[int] = []

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (ran.append, (1,))

    path = tmp_path / "checkpoint.safetensors"
    for save in (lambda: path.write_bytes(pickle.dumps(b"tensors")), lambda: torch.save({"a": torch.ones(2)}, path)):
        save()
        with pytest.raises(InputError, match="is damaged or not safetensors: "):
            load_tensors(path)
    assert not ran


def test_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)}
    tensors["view"] = tensors["a"].T
    save_tensors(tmp_path / "deep" / "t.safetensors", tensors, {"step": 3, "words": ["x"]})
    loaded, meta = load_tensors(tmp_path / "deep" / "t.safetensors")
    assert meta == {"step": 3, "words": ["x"]} and loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[n], t) and loaded[n].dtype == t.dtype for n, t in tensors.items())


def test_damage_is_one_line(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    for bad in (b"", data[:7], data[:100], data[: 8 + size], data[:-1], b"\xff" * 8 + data[8:], data + b"\x00"):
        checkpoint.write_bytes(bad)
        with pytest.raises(InputError) as error:
            load_tensors(checkpoint)
        assert str(error.value).startswith(f"weights file {checkpoint} is damaged or not safetensors: ")
        assert "\n" not in str(error.value)
    with pytest.raises(InputError) as error:
        load_tensors(checkpoint.parent / "none.safetensors")
    assert str(error.value) == f"weights file {checkpoint.parent / 'none.safetensors'} does not exist"


def test_a_damaged_checkpoint_stops_the_run(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match="is damaged or not safetensors"):
        train(image_run(checkpoint.parent), checkpoint.parent, settings(4))


def test_a_checkpoint_of_another_network_stops_the_run(checkpoint: Path) -> None:
    """Resuming with a network the checkpoint does not hold must not start from half of it."""
    with pytest.raises(InputError) as error:
        train(temporal_run(checkpoint.parent, "lstm"), checkpoint.parent, settings(4))
    assert str(error.value).startswith(f"{checkpoint} is of another network: parameter ")


@pytest.mark.slow
def test_a_save_that_fails_leaves_the_old_file(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(checkpoint, {"a": torch.zeros(3)}, {})
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir() if p.name.endswith(".tmp")] == []
