"""What goes in comes out: symbols of every kind, of any length and size, alone, in batches and under another prior."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vidlbc
from tests.codec.small_models import KINDS, noisy_frames
from vidlbc.codec.bitstream import Reader, unpack_modes
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError

CodecOf = Callable[..., Codec]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_decoded_symbols_are_those_of_the_analysis(codec_of: CodecOf, kind: str) -> None:
    codec, frames = codec_of(kind), noisy_frames(19, 45, 70)
    data = codec.compress(frames, qp=40)
    padded = codec.analyse(frames, 40)
    assert same(codec.padded_symbols(data), padded)
    symbols = codec.symbols(data)
    assert [tuple(q.shape) for q in symbols] == [(19, 1, 12, 18), (19, 3, 6, 9), (19, 4, 3, 5), (19, 5, 2, 3)]
    assert all(q.dtype == torch.int32 and q.unique().numel() > 2 for q in symbols)
    latents = codec.latents(data)
    assert all(y.dtype == torch.float32 and y.shape == q.shape for y, q in zip(latents, symbols, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_frames_are_the_synthesis_of_the_symbols(codec_of: CodecOf, kind: str) -> None:
    codec, frames = codec_of(kind), noisy_frames(5, 33, 49)
    decoded = codec.decompress(codec.compress(frames, qp=24))
    assert decoded.dtype == np.uint8 and decoded.shape == frames.shape
    expected = codec.synthesize(codec.dequantise(codec.analyse(frames, 24), 24), 24, 33, 49)
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 4),
    height=st.integers(16, 75),
    width=st.integers(16, 75),
    qp=st.integers(0, 63),
    context=st.booleans(),
)
def test_any_size_and_length(
    codec_of: CodecOf, kind: str, count: int, height: int, width: int, qp: int, context: bool
) -> None:
    codec, frames = codec_of(kind), noisy_frames(count, height, width, seed=height)
    data = codec.compress(frames, qp=qp, context=context)
    assert same(codec.padded_symbols(data), codec.analyse(frames, qp))
    assert codec.decompress(data).shape == frames.shape
    info = vidlbc.inspect(data)
    assert (info.frames, info.height, info.width, info.qp, info.kind) == (count, height, width, qp, kind)


@pytest.mark.slow
def test_packets_and_tensors_and_odd_lengths(codec_of: CodecOf) -> None:
    codec = codec_of("lstm")
    for count in (1, 15, 16, 17, 33):
        frames = noisy_frames(count, 16, 16, seed=count)
        data = codec.compress(torch.from_numpy(frames))
        assert [n for n, _ in vidlbc.inspect(data).packets] == [16] * (count // 16) + [count % 16] * (count % 16 > 0)
        assert same(codec.padded_symbols(data), codec.analyse(frames, 32))
        assert [len(block) for block in codec.decompress_stream(io.BytesIO(data))] == [
            n for n, _ in vidlbc.inspect(data).packets
        ]


def test_views_and_read_only_arrays_are_frames_like_any_other(codec_of: CodecOf) -> None:
    codec, frames = codec_of("none"), noisy_frames(3, 20, 24)
    read_only = frames.copy()
    read_only.setflags(write=False)
    assert codec.compress(read_only) == codec.compress(frames)
    assert codec.compress(frames[::-1, :, ::-1]) == codec.compress(np.ascontiguousarray(frames[::-1, :, ::-1]))
    number: Any = np.int64(32)
    assert codec.compress(frames, qp=number) == codec.compress(frames, qp=32)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_the_past_counts(codec_of: CodecOf, kind: str) -> None:
    """Else the tests of this folder would prove nothing about context."""
    codec, frames = codec_of(kind), noisy_frames(4, 32, 32)
    changed = np.concatenate([255 - frames[:2], frames[2:]])
    reports = [codec.compress_stream([x], io.BytesIO()) for x in (frames, changed)]
    assert reports[0].frame_bits[3] != reports[1].frame_bits[3]
    alone = codec.compress_stream([frames], io.BytesIO(), context=False)
    assert alone.frame_bits[0] == reports[0].frame_bits[0]  # a first frame has no past either way
    assert alone.frame_bits[1:] != reports[0].frame_bits[1:]


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_without_context_every_frame_stands_alone(codec_of: CodecOf, kind: str) -> None:
    codec, frames = codec_of(kind), noisy_frames(3, 32, 48)
    data = codec.compress(frames, context=False)
    assert not vidlbc.inspect(data).context and vidlbc.inspect(codec.compress(frames)).context
    assert same(codec.symbols(data), codec.symbols(codec.compress(frames)))
    bits = codec.compress_stream([frames], io.BytesIO(), context=False).frame_bits
    reverse = codec.compress_stream([frames[::-1].copy()], io.BytesIO(), context=False).frame_bits
    assert bits == reverse[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_transcoding_changes_bytes_never_symbols(codec_of: CodecOf, source: str, target: str) -> None:
    frames = noisy_frames(18, 40, 24)
    data = codec_of(source).compress(frames, qp=20, fps=25)
    other, report = codec_of(source).transcode(data, codec_of(target))
    assert other == codec_of(target).compress(frames, qp=20, fps=25)
    assert report.bytes == len(other) and report.frames == 18
    assert same(codec_of(target).symbols(other), codec_of(source).symbols(data))
    np.testing.assert_array_equal(codec_of(target).decompress(other), codec_of(source).decompress(data))


def test_transcoding_needs_the_same_image_stage(codec_of: CodecOf, other_model: Codec) -> None:
    data = codec_of("none").compress(noisy_frames(1, 16, 16))
    with pytest.raises(InputError) as error:
        codec_of("none").transcode(data, other_model)
    assert (
        str(error.value) == "transcoding keeps the symbols: both codecs must code the latents of the same image stage"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_clips_decode_as_one_batch_as_they_do_alone(codec_of: CodecOf, kind: str) -> None:
    codec = codec_of(kind)
    clips = [codec.compress(noisy_frames(18, 40, 56, seed=s), qp=qp) for s, qp in enumerate((5, 32, 63, 32, 17))]
    batch = codec.symbols(clips)
    for index, clip in enumerate(clips):
        assert same([level[index] for level in batch], codec.symbols(clip))


@pytest.mark.slow
def test_clips_that_do_not_go_together_are_refused(codec_of: CodecOf) -> None:
    codec = codec_of("lstm")
    clip = codec.compress(noisy_frames(2, 32, 32))
    length = "clips decoded as one batch must have the same number of frames"
    size = "clips decoded as one batch must have the same size, layers and context flag"
    for other, message in (
        (codec.compress(noisy_frames(3, 32, 32)), length),
        (codec.compress(noisy_frames(18, 32, 32)), length),
        (codec.compress(noisy_frames(2, 32, 48)), size),
        (codec.compress(noisy_frames(2, 32, 32), context=False), size),
    ):
        with pytest.raises(InputError) as error:
            codec.symbols([clip, other])
        assert str(error.value) == message
    whole = [codec.compress(noisy_frames(n, 32, 32)) for n in (16, 32)]
    with pytest.raises(InputError) as error:
        codec.symbols(whole)  # the shorter one ends where a packet ends
    assert str(error.value) == length
    with pytest.raises(InputError) as error:
        codec.symbols([])
    assert str(error.value) == "nothing to decode: expected at least one bitstream"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_encoder_writes_what_an_fp32_decoder_reads(codec_of: CodecOf, kind: str) -> None:
    half, full, frames = codec_of(kind, "bf16"), codec_of(kind), noisy_frames(4, 40, 40)
    data = half.compress(frames)
    assert half.fingerprint == full.fingerprint
    assert same(full.padded_symbols(data), half.analyse(frames, 32))
    assert not same(half.analyse(frames, 32), full.analyse(frames, 32))  # bf16 really was at work
    apart = np.abs(half.decompress(data).astype(int) - full.decompress(data).astype(int))
    assert apart.mean() < 4


def test_higher_qp_keeps_finer_symbols(codec_of: CodecOf) -> None:
    codec, frames = codec_of("none"), noisy_frames(1, 64, 64)
    spread = [sum(float(q.float().abs().mean()) for q in codec.analyse(frames, qp)) for qp in (0, 21, 42, 63)]
    assert spread == sorted(spread) and spread[3] > 2 * spread[0]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_and_a_cpu_decode_the_same_symbols(codec_of: CodecOf, model_folder: Path, kind: str) -> None:
    gpu, cpu = vidlbc.load(model_folder, device="cuda", temporal=kind), codec_of(kind)
    frames = noisy_frames(18, 72, 104)
    for writer, reader in ((gpu, cpu), (cpu, gpu)):
        data = writer.compress(frames)
        assert same(reader.symbols(data), writer.symbols(data))
        other, _ = writer.transcode(data, reader)
        assert other == data


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_levels_take_the_intra_prior_where_shorter(codec_of: CodecOf, model_folder: Path, kind: str) -> None:
    """With random weights that is in every frame; the symbols stay the same, also beside a clip without any."""
    temporal, free = codec_of(kind), vidlbc.load(model_folder, device="cpu", temporal=kind)
    frames = noisy_frames(5, 40, 48)
    data, shorter = temporal.compress(frames), free.compress(frames)
    assert len(shorter) < len(data)
    levels = len(temporal.levels)
    masks, other = (
        [mask for p in Reader(d).packets() for mask in unpack_modes(p.modes, p.frames, levels)] for d in (data, shorter)
    )
    assert masks == [0] * 5 and len(other) == 5 and all(other)
    assert same(temporal.symbols(data), temporal.symbols(shorter))
    both = temporal.symbols([data, shorter])
    assert same([level[0] for level in both], [level[1] for level in both])
    assert same([level[0] for level in both], temporal.symbols(data))
