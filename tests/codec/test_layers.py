"""A base layer stands alone in the bitstream; a variant codes fewer channels. Format version 3."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.codec.bitstream import Packet, Reader
from vidlbc.codec.codec import Codec
from vidlbc.errors import BitstreamError, InputError

VARIANTS = {"V2": [1, 2, 2, 3], "V3": [0, 0, 2, 3]}
KINDS = ("none", "lstm", "transformer")


class CountingFile(io.BytesIO):
    """Counts the bytes that are read from it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Codec]:
    """`layered(kind)`: a small codec with variants, whose two coarsest levels are the base."""
    folder = save_small_model(tmp_path_factory.mktemp("models") / "layered", variants=VARIANTS, base_levels=2)
    codecs = {kind: vidlbc.load(folder, device="cpu", temporal=kind) for kind in KINDS}
    for codec in codecs.values():
        codec._priors.intra_frames = False  # under random weights the intra prior would always be shorter
    return codecs.__getitem__


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_decodes_from_its_own_bytes_alone(layered, kind):
    codec, frames = layered(kind), noisy_frames(19, 48, 64)
    sink = io.BytesIO()
    report = codec.compress_stream([frames], sink)
    data = sink.getvalue()
    info = vidlbc.inspect(data)
    assert (info.version, info.base_levels, info.base_bytes, info.bytes) == (3, 2, report.base_bytes, len(data))
    assert 0 < report.base_bytes < len(data)

    whole = codec.symbols(data)
    file = CountingFile(data)
    base = codec.symbols(file, base=True)
    assert file.taken == report.base_bytes
    assert all(torch.equal(a, b) for a, b in zip(base, whole[2:], strict=True)) and len(base) == 2
    alone = codec.latents(data[: report.base_bytes], base=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, codec.latents(data)[2:], strict=True))

    # Whatever stands in place of the enhancement, the base is the same; the whole is then an error.
    damaged = data[: report.base_bytes] + bytes(len(data) - report.base_bytes)
    assert all(torch.equal(a, b) for a, b in zip(codec.symbols(damaged, base=True), base, strict=True))
    with pytest.raises(BitstreamError):
        codec.symbols(damaged)
    with pytest.raises(BitstreamError, match="truncated bitstream"):
        codec.decompress(data[: report.base_bytes])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_layers_change_bytes_not_symbols_or_pictures(layered, codec_of, kind):
    """The same weights without layers give the same symbols; a few bytes a packet more with them."""
    frames = noisy_frames(18, 32, 48)
    plain, codec = codec_of(kind), layered(kind)
    data, expected = codec.compress(frames), plain.compress(frames)
    assert all(torch.equal(a, b) for a, b in zip(codec.symbols(data), plain.symbols(expected), strict=True))
    assert np.array_equal(codec.decompress(data), plain.decompress(expected))
    assert len(expected) < len(data) < len(expected) + 120
    assert [len(block) for block in codec.decompress_stream(io.BytesIO(data))] == [16, 2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_codes_the_first_channels_and_is_told_by_the_header(layered, kind, variant):
    codec, frames = layered(kind), noisy_frames(5, 48, 32)
    data, whole = codec.compress(frames, variant=variant), codec.compress(frames)
    info = vidlbc.inspect(data)
    assert list(info.kept) == VARIANTS[variant] and len(data) < len(whole)
    symbols, full = codec.symbols(data), codec.symbols(whole)
    for q, reference, kept in zip(symbols, full, VARIANTS[variant], strict=True):
        assert torch.equal(q[:, :kept], reference[:, :kept]) and not q[:, kept:].any()
    assert full[1][:, VARIANTS[variant][1] :].any()  # there was something to leave out
    latents = codec.dequantise(codec.padded_symbols(data), 32)
    assert np.array_equal(codec.decompress(data), codec.synthesize(latents, 32, 48, 32))
    base = codec.symbols(CountingFile(data), base=True)
    assert all(torch.equal(a, b) for a, b in zip(base, symbols[2:], strict=True))


@pytest.mark.slow
def test_clips_with_layers_decode_as_a_batch(layered):
    codec = layered("transformer")
    clips = [codec.compress(noisy_frames(3, 32, 32, seed), variant=v) for seed, v in enumerate((None, "V2", "V3"))]
    for base in (False, True):
        together = codec.symbols(clips, base=base)
        for row, clip in enumerate(clips):
            assert all(torch.equal(a[row], b) for a, b in zip(together, codec.symbols(clip, base=base), strict=True))


@pytest.mark.slow
def test_transcoding_keeps_variant_and_layers(layered):
    data = layered("none").compress(noisy_frames(4, 32, 32), variant="V2")
    other, _ = layered("none").transcode(data, layered("lstm"))
    info = vidlbc.inspect(other)
    assert list(info.kept) == VARIANTS["V2"] and info.base_levels == 2 and info.kind == "lstm"
    again, _ = layered("lstm").transcode(other, layered("none"))
    assert again == data


def test_bad_requests_are_one_line(layered, codec_of):
    frames = noisy_frames(1, 32, 32)
    with pytest.raises(InputError, match="^unknown variant 'V9': this model has V2, V3$"):
        layered("none").compress(frames, variant="V9")
    with pytest.raises(InputError, match="^unknown variant 'V2': this model has none$"):
        codec_of("none").compress(frames, variant="V2")
    with pytest.raises(InputError, match="no base layer"):
        codec_of("none").symbols(codec_of("none").compress(frames), base=True)


def test_levels_that_share_a_working_stride_cannot_be_parted_under_a_past(tmp_path: Path):
    """Stride 4 is worked on at stride 8: what a temporal stage remembers there mixes both levels."""
    folder = save_small_model(tmp_path / "model", kinds=("lstm",), base_levels=3)
    frames = noisy_frames(2, 32, 32)
    assert vidlbc.load(folder, device="cpu", temporal="none").compress(frames)
    with pytest.raises(InputError, match="a base of 3 levels cannot stand alone: level 0 is worked on at its stride"):
        vidlbc.load(folder, device="cpu", temporal="lstm").compress(frames)


@pytest.mark.parametrize(
    "options", [{"variants": {"V": [1, 2, 3]}}, {"variants": {"V": [9, 0, 0, 0]}}, {"base_levels": 4}]
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, options):
    folder = save_small_model(tmp_path / "model", kinds=())
    config = json.loads((folder / "image_stage" / "config.json").read_text())
    config["options"] |= options
    (folder / "image_stage" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no network can be built from it"):
        vidlbc.load(folder, device="cpu")


def test_sections_that_do_not_go_together_are_damage(layered):
    """The enhancement of a shorter clip behind a base."""
    codec = layered("none")
    long, short = (codec.compress(noisy_frames(n, 32, 32)) for n in (18, 2))
    cut_long, cut_short = vidlbc.inspect(long).base_bytes, vidlbc.inspect(short).base_bytes
    mixed = long[:cut_long] + short[cut_short:]
    with pytest.raises(BitstreamError, match="damaged bitstream: "):
        codec.decompress(mixed)
    with pytest.raises(BitstreamError, match="18 frames in the base, 2 in the enhancement"):
        vidlbc.inspect(mixed)


def test_what_an_older_reader_can_read_stays_as_it_was(codec_of):
    """No variant, no layers: version 2, whose bytes the goldens hold."""
    data = codec_of("none").compress(noisy_frames(1, 32, 32))
    assert data[4] == 2 and Reader(data).header.version == 2


@pytest.mark.slow
def test_a_base_does_not_wait_in_memory(layered):
    """However long the clip, its decoder holds a few packets."""
    codec = layered("none")
    data = codec.compress(noisy_frames(160, 16, 16))
    held = []
    for _ in codec.decompress_stream(data):
        held.append(sum(isinstance(thing, Packet) for thing in gc.get_objects()))
    assert len(held) == 10 and max(held) < 8
