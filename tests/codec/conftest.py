"""Small untrained codecs, every temporal kind, with weights that make the context count."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

import vidlbc
from tests.codec.small_models import save_small_model, wild_field
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding.moved_encoding import MovedChooser
from vidlbc.codec.moved_codec import MovedCodec


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def codec_of(model_folder: Path) -> Callable[..., Codec]:
    """`codec_of(kind, precision="fp32")` -> the same object each time; it never chooses intra frames.

    Under random weights the intra prior would always be the shorter, and the temporal stages would go untested.
    """

    @functools.cache
    def build(kind: str, precision: str = "fp32") -> Codec:
        codec = vidlbc.load(model_folder, device="cpu", temporal=kind, precision=precision)
        codec._priors.intra_frames = False
        return codec

    return build


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """The same architecture with other weights, kind `none`."""
    folder = save_small_model(tmp_path_factory.mktemp("models") / "other", seed=100, kinds=())
    return vidlbc.load(folder, device="cpu")


@pytest.fixture(scope="session")
def moved_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kinds that predict from moved pictures."""
    folder = tmp_path_factory.mktemp("models") / "moved"
    return save_small_model(folder, moved=True, variants={"short": [0, 2, 2, 3]})


@pytest.fixture
def moved_codec(moved_folder: Path) -> Callable[[str], MovedCodec]:
    """`moved_codec(kind)`: a new one, which codes no frame by the intra prior but those that it has to."""

    def load(kind: str) -> MovedCodec:
        codec = vidlbc.load(moved_folder, "cpu", temporal=kind)
        assert isinstance(codec, MovedCodec)
        codec._priors.intra_frames = False
        return codec

    return load


@pytest.fixture
def wandering(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wild_field` in place of the search for vectors."""

    def search(self, picture, past, displaced):
        return wild_field(int(picture.sum()) + int(past.field.abs().sum()), past.field)

    monkeypatch.setattr(MovedChooser, "search", search)
