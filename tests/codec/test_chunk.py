"""Kind `chunk`: units of several frames through the whole codec, with a small random model."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec import reference_priors
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.bitstream import Reader
from vidlbc.codec import Codec
from vidlbc.errors import BitstreamError, InputError

UNIT = 4  # of the small model


@pytest.fixture(scope="module")
def chunk_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "chunked", kinds=("transformer", "chunk"))


@pytest.fixture(scope="module")
def codec(chunk_model: Path) -> Codec:
    """It never codes a chunk without the past: with random weights that would always be shorter."""
    codec = vidlbc.load(chunk_model, device="cpu", temporal="chunk")
    codec._priors.intra_frames = False
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 7, 16, 18])
@pytest.mark.parametrize("size", [(32, 32), (40, 72)])
def test_any_length_and_size_comes_back(codec: Codec, count: int, size: tuple[int, int]) -> None:
    frames = noisy_frames(count, *size)
    data = codec.compress(frames, qp=27, fps=25)
    info = vidlbc.inspect(data)
    assert (info.version, info.kind, info.unit, info.frames) == (4, "chunk", UNIT, count)
    decoded = codec.decompress(data)
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    expected = codec.analyse(frames, 27)
    assert len(expected[0]) == -(-count // UNIT)
    assert all(torch.equal(a, b) for a, b in zip(codec.padded_symbols(data), expected, strict=True))
    latents = codec.latents(data)
    assert [len(y) for y in latents] == [count] * 4
    assert [y.shape[2:] for y in latents] == [
        (-(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32)
    ]
    padded = codec.dequantise(expected, 27, count)
    assert all(torch.equal(a, b) for a, b in zip(latents, codec.crop(padded, *size), strict=True))
    np.testing.assert_array_equal(codec.synthesize(padded, 27, *size), decoded)


@pytest.mark.slow
def test_a_stream_in_blocks_is_the_stream_of_the_whole(codec: Codec) -> None:
    frames = noisy_frames(21, 32, 48)
    sink = io.BytesIO()
    report = codec.compress_stream(np.array_split(frames, [5, 6, 17]), sink, 30)
    assert sink.getvalue() == codec.compress(frames, 30)
    assert report.frames == 21 and report.bytes == len(sink.getvalue()) and len(report.frame_bits) == 6
    blocks = list(codec.decompress_stream(io.BytesIO(sink.getvalue())))
    assert [len(block) for block in blocks] == [16, 5]


@pytest.mark.slow
@pytest.mark.parametrize("context", [True, False])
def test_the_specification_decodes_chunks(codec: Codec, chunk_model: Path, context: bool) -> None:
    data = codec.compress(noisy_frames(9, 32, 40), qp=33, context=context)
    expected = [q.numpy() for q in codec.padded_symbols(data)]
    chunks = reference_priors.decode(data, chunk_model)
    assert len(chunks) == 3
    for t, chunk in enumerate(chunks):
        for level, q in zip(chunk, expected, strict=True):
            np.testing.assert_array_equal(level, q[t])


@pytest.mark.slow
def test_chunks_without_a_past_are_coded_by_the_network_alone(chunk_model: Path) -> None:
    codec = vidlbc.load(chunk_model, device="cpu", temporal="chunk")
    data = codec.compress(noisy_frames(9, 32, 40), qp=33)
    assert any(any(packet.modes) for packet in Reader(data).packets())
    expected = codec.analyse(noisy_frames(9, 32, 40), 33)
    assert all(torch.equal(a, b) for a, b in zip(codec.padded_symbols(data), expected, strict=True))
    for t, chunk in enumerate(reference_priors.decode(data, chunk_model)):
        for level, q in zip(chunk, expected, strict=True):
            np.testing.assert_array_equal(level, q[t].numpy())


@pytest.mark.slow
def test_another_process_decodes_to_the_same_symbols(codec: Codec, chunk_model: Path, tmp_path: Path) -> None:
    data = codec.compress(noisy_frames(13, 40, 72), qp=21, context=True)
    (tmp_path / "a.vlbc").write_bytes(data)
    program = (
        "import sys, torch, vidlbc, numpy as np; torch.set_num_threads(1);"
        "codec = vidlbc.load(sys.argv[1], device='cpu', temporal='chunk');"
        "levels = codec.symbols(open(sys.argv[2], 'rb').read());"
        "np.savez(sys.argv[3], *[q.numpy() for q in levels])"
    )
    out = tmp_path / "out.npz"
    subprocess.run([sys.executable, "-c", program, chunk_model, tmp_path / "a.vlbc", out], check=True, timeout=120)
    with np.load(out) as found:
        for ours, theirs in zip(codec.symbols(data), found.values(), strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs)


def test_several_streams_decode_as_one_batch(codec: Codec) -> None:
    clips = [noisy_frames(9, 32, 40, seed) for seed in (1, 2)]
    streams = [codec.compress(clip, 30) for clip in clips]
    together = codec.symbols(streams)
    for row, stream in enumerate(streams):
        assert all(torch.equal(a[row], b) for a, b in zip(together, codec.symbols(stream), strict=True))


def test_chosen_symbols_of_chunks_decode(codec: Codec) -> None:
    frames = noisy_frames(9, 32, 40)
    plain, chosen = codec.compress(frames, 30), codec.compress(frames, 30, rdo=True)
    assert len(chosen) < len(plain)
    assert codec.decompress(chosen).shape == frames.shape


def test_chunks_cannot_be_coded_as_frames(codec: Codec, chunk_model: Path) -> None:
    frames = noisy_frames(5, 32, 40)
    data = codec.compress(frames)
    other = vidlbc.load(chunk_model, device="cpu", temporal="transformer")
    with pytest.raises(InputError, match="must code the latents of the same image stage"):
        codec.transcode(data, other)
    again, report = codec.transcode(data, codec, context=False)
    assert report.frames == 5
    assert all(torch.equal(*pair) for pair in zip(codec.symbols(data), codec.symbols(again), strict=True))


def test_a_stream_whose_unit_is_not_the_model_s_is_refused(codec: Codec) -> None:
    frames = noisy_frames(5, 32, 40)
    data = bytearray(codec.compress(frames))
    header = Reader(bytes(data)).header
    import dataclasses

    forged = dataclasses.replace(header, unit=8).to_bytes() + bytes(data[len(header.to_bytes()) :])
    with pytest.raises(BitstreamError):
        codec.decompress(forged)
