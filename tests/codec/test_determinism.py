"""The same bytes and the same symbols, however many threads, however the frames arrive, in any process."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vidlbc
from tests.codec.small_models import KINDS, noisy_frames, save_small_model
from vidlbc.codec.codec import Codec
from vidlbc.codec.frame_pool import FramePool
from vidlbc.codec.traced import Traced
from vidlbc.qa.soak.conditions import INSTRUCTIONS

CodecOf = Callable[..., Codec]
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def encoded(codec: Codec, frames: np.ndarray) -> tuple[bytes, tuple[float, ...]]:
    sink = io.BytesIO()
    report = codec.compress_stream([frames], sink)
    return sink.getvalue(), report.frame_bits


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_nothing(codec_of: CodecOf, threads: Callable[[int], None], kind: str) -> None:
    codec, frames = codec_of(kind), noisy_frames(35, 40, 56)
    results = []
    for count in (1, 2, 4, 7):
        threads(count)
        data, bits = encoded(codec, frames)
        symbols = [q.numpy().tobytes() for q in codec.symbols(data)]
        results.append((data, bits, symbols, codec.decompress(data).tobytes()))
        assert torch.get_num_threads() == count  # the caller's own setting is left alone
    assert all(result == results[0] for result in results)


@pytest.mark.slow
def test_the_number_of_threads_may_change_within_a_clip(codec_of: CodecOf, threads: Callable[[int], None]) -> None:
    """The next packets are being decoded when workers of another number are asked for."""
    codec = codec_of("transformer")
    data = codec.compress(noisy_frames(70, 96, 96))
    expected = codec.decompress(data)
    for count in (3, 1, 2):
        blocks = codec.decompress_stream(data)
        parts = [next(blocks)]
        threads(count)
        assert np.array_equal(codec.decompress(data), expected)
        assert np.array_equal(np.concatenate([*parts, *blocks]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_change_nothing(model_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Every step as a graph from its second call on (vidlbc.codec.traced), or never; odd sizes, batches, remainders."""
    results = []
    for frames_before in (10**9, 1):
        monkeypatch.setattr("vidlbc.codec.traced._FRAMES_BEFORE", frames_before)
        codec = vidlbc.load(model_folder, device="cpu", temporal=kind)
        for height, width, count in [(40, 56, 35), (17, 33, 19), (64, 64, 21), (40, 56, 2)]:
            clips = [noisy_frames(count, height, width, seed=seed) for seed in range(2)]
            data = [encoded(codec, clip) for clip in clips]
            symbols = [q.numpy().tobytes() for q in codec.symbols([d for d, _ in data])]
            results.append((data, symbols, [codec.decompress(d).tobytes() for d, _ in data]))
        values = [codec._analysis, codec._pictures, *vars(codec._priors).values()]
        steps = [s for v in values for s in (v.values() if isinstance(v, dict) else [v]) if isinstance(s, Traced)]
        assert any(step._graphs for step in steps) == (frames_before == 1)
        # None that could not be traced, or not with its own results.
        assert not [step for step in steps if step.function in step._graphs.values()]
    plain, graphs = results[: len(results) // 2], results[len(results) // 2 :]
    assert plain == graphs


@pytest.mark.slow
def test_equal_frames_give_equal_symbols(codec_of: CodecOf, threads: Callable[[int], None]) -> None:
    """Frame 0 is analysed before the workers of the temporal stage exist, frame 47 beside them."""
    threads(4)
    frames = np.repeat(noisy_frames(1, 96, 96), 48, axis=0)
    codec = codec_of("none")
    for level in codec.padded_symbols(codec.compress(frames, qp=63)):
        assert torch.equal(level, level[:1].expand_as(level))


def test_every_frame_is_computed_alone_on_one_thread(threads: Callable[[int], None]) -> None:
    """What the two tests above rest on: a small network may round alike on two threads by luck."""
    threads(4)
    pool = FramePool(torch.device("cpu"), "fp32")
    for _ in range(2):
        seen = pool.map(
            lambda x: (len(x), torch.get_num_threads(), torch.is_inference_mode_enabled()), torch.zeros(9, 2)
        )
        assert seen == [(1, 1, True)] * 9
        pool.ahead(torch.get_num_threads).result()  # what runs beside the frames must not widen them
    assert [int(x) for x in pool.map(lambda x: x.sum(), torch.arange(20)[:, None])] == list(range(20))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), cuts=st.lists(st.integers(0, 21), max_size=6))
def test_any_partition_into_blocks_gives_the_same_bytes(codec_of: CodecOf, kind: str, cuts: list[int]) -> None:
    codec, frames = codec_of(kind), noisy_frames(21, 24, 40)
    edges = [0, *sorted(cuts), 21]
    sink = io.BytesIO()
    report = codec.compress_stream((frames[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)), sink, qp=32)
    assert sink.getvalue() == codec.compress(frames)
    assert (report.frames, report.bytes) == (21, len(sink.getvalue()))


def test_the_same_weights_have_the_same_fingerprint(model_folder: Path, tmp_path: Path, codec_of: CodecOf) -> None:
    again = save_small_model(tmp_path / "again")
    for kind in KINDS:
        assert vidlbc.load(again, device="cpu", temporal=kind).fingerprint == codec_of(kind).fingerprint
    assert vidlbc.load(again, device="cpu").kind == "transformer"  # as its config says


SCRIPT = """
import hashlib, json, sys
import torch, vidlbc
folder, stream_folder, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
out = {}
for kind in ("none", "lstm", "transformer"):
    codec = vidlbc.load(folder, device="cpu", temporal=kind)
    data = open(f"{stream_folder}/{kind}.vlbc", "rb").read()
    symbols = codec.symbols(data)
    batch = codec.symbols([data, data])
    assert all(torch.equal(b[1], q) for b, q in zip(batch, symbols))
    out[kind] = hashlib.sha256(b"".join(q.contiguous().numpy().tobytes() for q in symbols)).hexdigest()
print(json.dumps(out))
"""


@pytest.mark.slow
def test_a_fresh_process_with_other_threads_and_instructions_decodes_the_same(
    codec_of: CodecOf, model_folder: Path, tmp_path: Path
) -> None:
    expected = {}
    for kind in KINDS:
        codec = codec_of(kind)
        data = codec.compress(noisy_frames(20, 72, 88, seed=9))
        (tmp_path / f"{kind}.vlbc").write_bytes(data)
        symbols = b"".join(q.contiguous().numpy().tobytes() for q in codec.symbols(data))
        expected[kind] = hashlib.sha256(symbols).hexdigest()
    for threads, name in (("1", "all"), ("3", "avx2"), ("2", "sse")):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(model_folder), str(tmp_path), threads],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=REPO,
            env={**os.environ, **INSTRUCTIONS[name], "OMP_NUM_THREADS": threads},
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == expected, name
