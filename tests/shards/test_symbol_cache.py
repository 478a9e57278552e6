"""Decoded symbols in a folder: the same samples as without, no decoding the second time, damage decoded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vidlbc
from tests.codec.retired import CHUNK_HEADER, RETIRED
from tests.codec.small_models import save_small_model
from vidlbc.codec.codec import Codec
from vidlbc.errors import BitstreamError, InputError
from vidlbc.shards import EncodingSettings, LatentShards, encode_corpus, make_plan, read_annotations
from vidlbc.shards.symbol_cache import SymbolCache

# A folder for all examples of a property is what the cache is for.
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.one_of(st.integers(-130, 130), st.integers(-33000, 33000), st.integers(-(2**31), 2**31 - 1))


@SHARED
@given(st.lists(st.lists(VALUES, max_size=20), min_size=1, max_size=4), st.integers(0, 2**64))
def test_what_was_put_is_found(tmp_path: Path, levels: list[list[int]], name: int) -> None:
    tensors = [torch.tensor(values, dtype=torch.int32).reshape(1, -1, 1) for values in levels]
    cache = SymbolCache(tmp_path)
    cache.put(f"{name:064x}", tensors)
    found = cache.get(f"{name:064x}")
    assert found is not None and all(torch.equal(a, b) for a, b in zip(found, tensors, strict=True))
    assert all(q.dtype == torch.int32 for q in found)


@SHARED
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_damage_is_never_read(tmp_path: Path, place: int, flip: int, cut: bool) -> None:
    cache = SymbolCache(tmp_path)
    cache.put("ab" * 32, [torch.arange(300, dtype=torch.int32).reshape(3, 100), torch.zeros(2, 2, dtype=torch.int32)])
    (entry,) = tmp_path.rglob("*.symbols")
    data = bytearray(entry.read_bytes())
    place %= len(data)
    data[place] ^= flip
    entry.write_bytes(data[:place] if cut else data)
    assert cache.get("ab" * 32) is None
    assert cache.get("cd" * 32) is None


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> tuple[LatentShards, Codec]:
    """Shards of two clips, which end within a cell of 32 pixels."""
    root = tmp_path_factory.mktemp("cache")
    for number in range(2):
        make_clip(root / "videos" / f"{number}.mp4", frames=5, size=(48, 80), seed=number)
    model = save_small_model(root / "model", kinds=("lstm",))
    codec = vidlbc.load(model, "cpu", temporal="lstm")
    options = EncodingSettings(model=str(model), temporal="lstm")
    encode_corpus(make_plan(read_annotations(root / "videos"), root / "shards", codec, options), codec=codec, bar=False)
    return LatentShards(root / "shards"), codec


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symbols", "latents"])
def test_samples_are_the_same_and_nothing_is_decoded_twice(
    encoded: tuple[LatentShards, Codec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    shards, codec = encoded
    plain = LatentShards(shards.folder, mode=mode, codec=codec)  # type: ignore[arg-type]
    cached = LatentShards(shards.folder, mode=mode, codec=codec, cache=tmp_path / "cache")  # type: ignore[arg-type]
    wanted = [plain[index][mode] for index in range(2)]
    first = [cached[index][mode] for index in range(2)]
    entry = next((tmp_path / "cache").rglob("*.symbols"))
    entry.write_bytes(entry.read_bytes()[:-1])
    second = [cached[index][mode] for index in range(2)]
    monkeypatch.setattr(codec, "padded_symbols", lambda *args, **options: pytest.fail("decoded again"))
    third = [cached[index][mode] for index in range(2)]
    for found in (first, second, third):
        for a, b in zip(found, wanted, strict=True):
            assert [tuple(q.shape) for q in a] == [tuple(q.shape) for q in b]
            assert all(q.dtype == r.dtype and torch.equal(q, r) for q, r in zip(a, b, strict=True))


@pytest.mark.slow
def test_a_damaged_bitstream_leaves_no_entry(encoded: tuple[LatentShards, Codec], tmp_path: Path) -> None:
    shards, codec = encoded
    cached = LatentShards(shards.folder, mode="latents", codec=codec, verify=False, cache=tmp_path / "cache")
    data = bytearray(shards.bitstream(0))
    data[-20] ^= 1
    cached._read = lambda meta: bytes(data)  # type: ignore[method-assign]
    with pytest.raises(BitstreamError):
        cached[0]
    assert not list((tmp_path / "cache").rglob("*.symbols"))


@pytest.mark.parametrize("mode", ["symbols", "latents"])
def test_a_cached_clip_of_temporal_chunk_is_refused(
    encoded: tuple[LatentShards, Codec], tmp_path: Path, mode: str
) -> None:
    shards, codec = encoded
    cached = LatentShards(shards.folder, mode=mode, codec=codec, cache=tmp_path / "cache")  # type: ignore[arg-type]
    cached[0]
    cached._read = lambda meta: CHUNK_HEADER  # type: ignore[method-assign]
    with pytest.raises(BitstreamError, match=f"^bitstream was written with {RETIRED}$"):
        cached[0]


def test_bad_values_are_one_line(encoded: tuple[LatentShards, Codec], tmp_path: Path) -> None:
    shards, _ = encoded
    with pytest.raises(InputError, match="mode=frames: a cache keeps symbols, expected mode=symbols or mode=latents"):
        LatentShards(shards.folder, mode="frames", cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache=.*file: cannot write a cache there"):
        LatentShards(shards.folder, mode="latents", cache=tmp_path / "file")
