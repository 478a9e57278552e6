"""Rate-distortion optimised quantisation: symbols that cost less; those that are all but certain are left out."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec import reference_priors
from tests.codec.small_models import KINDS, noisy_frames, save_small_model
from tests.conftest import motion_frames
from vidlbc.codec.coding import SKIP

VARIANTS = {"short": [0, 2, 2, 3]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "small", kinds=("lstm", "transformer"))


@pytest.fixture(scope="module")
def codecs(folder):
    return {kind: vidlbc.load(folder, "cpu", temporal=kind) for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_symbols_stay_within_one_of_rounding_and_cost_fewer_bits(codecs, kind):
    codec, frames = codecs[kind], noisy_frames(5, 64, 96)  # of which all is shown
    plain, chosen = codec.compress(frames, qp=30), codec.compress(frames, qp=30, rdo=True)
    assert len(chosen) < len(plain)
    assert chosen == codec.compress(frames, qp=30, rdo=True)
    rounded, decoded = codec.analyse(frames, 30), codec.padded_symbols(chosen)
    changed = [(a - b).abs() for a, b in zip(rounded, decoded, strict=True)]
    assert max(int(level.max()) for level in changed) == 1
    # Where a symbol moved, it was on the far side of what was rounded: never by more than a whole step.
    errors = [(q - y).abs().max() for q, y in zip(decoded, codec.scaled(codec.unquantised(frames), 30), strict=True)]
    assert max(map(float, errors)) <= 1.0


@pytest.mark.slow
def test_a_clip_longer_than_a_packet_goes_on_from_the_same_past(codecs):
    codec, frames = codecs["transformer"], motion_frames(20, (32, 48), motion=(1.0, 1.0))
    whole = codec.compress(frames, qp=40, rdo=True)
    sink = io.BytesIO()
    codec.compress_stream([frames[:3], frames[3:18], frames[18:]], sink, qp=40, rdo=True)
    assert sink.getvalue() == whole and len(codec.decompress(whole)) == 20


@pytest.mark.slow
def test_without_context_every_frame_is_chosen_alone(codecs):
    codec, frame = codecs["lstm"], noisy_frames(1, 32, 32)
    data = codec.compress(np.repeat(frame, 3, axis=0), qp=20, context=False, rdo=True)
    for level in codec.padded_symbols(data):
        assert torch.equal(level[0], level[1]) and torch.equal(level[0], level[2])


def test_channels_that_a_variant_leaves_out_stay_zero(tmp_path):
    codec = vidlbc.load(save_small_model(tmp_path / "varied", variants=VARIANTS), "cpu", temporal="transformer")
    data = codec.compress(noisy_frames(3, 32, 32), qp=50, variant="short", rdo=True)
    for level, kept in zip(codec.padded_symbols(data), VARIANTS["short"], strict=True):
        assert not level[..., kept:].any()


def skipping(codec, frames, skip, qp=30, **options):
    sink = io.BytesIO()
    codec.compress_stream([frames], sink, qp, rdo=True, skip=skip, **options)
    return sink.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "context"),
    [("none", True), ("lstm", True), ("transformer", True), ("transformer", False)],
)
def test_skipped_symbols_come_back_in_another_process_and_by_the_specification(codecs, folder, kind, context, tmp_path):
    """Under these weights few scales are small, so that a large bound is needed for many to be skipped."""
    codec, frames = codecs[kind], noisy_frames(5, 32, 40)
    data = skipping(codec, frames, 40, context=context)
    info = vidlbc.inspect(data)
    assert (info.version, info.skip, vidlbc.inspect(codec.compress(frames, 30)).skip) == (4, 40, 0)
    chosen = codec.analyse(frames, 30, rdo=True, context=context, skip=40)
    unskipped = codec.analyse(frames, 30, rdo=True, context=context, skip=0)
    changed = sum(int((a != b).sum()) for a, b in zip(chosen, unskipped, strict=True))
    assert changed > 0.05 * sum(q.numel() for q in chosen)
    (tmp_path / "clip.vlbc").write_bytes(data)
    code = (
        "import sys, numpy, torch, vidlbc; torch.set_num_threads(3); model, kind, path, out = sys.argv[1:];"
        "symbols = vidlbc.load(model, 'cpu', temporal=kind).padded_symbols(open(path, 'rb').read());"
        "numpy.savez(out, *[q.numpy() for q in symbols])"
    )
    files = [str(tmp_path / name) for name in ("clip.vlbc", "out.npz")]
    subprocess.run([sys.executable, "-c", code, str(folder), kind, *files], check=True, timeout=120)
    decoded = list(np.load(files[1]).values())
    assert all(np.array_equal(a, b) for a, b in zip(decoded, chosen, strict=True))
    for t, frame in enumerate(reference_priors.decode(data, folder)):
        assert all(np.array_equal(a, b[t]) for a, b in zip(frame, chosen, strict=True))


@pytest.mark.slow
def test_clips_with_and_without_skipping_decode_as_one_batch(codecs):
    codec, frames = codecs["lstm"], noisy_frames(4, 40, 48)
    streams = [skipping(codec, frames, 40), codec.compress(frames, 30), skipping(codec, frames, 36)]
    for level, *alone in zip(codec.symbols(streams), *map(codec.symbols, streams), strict=True):
        assert torch.equal(level, torch.stack(alone))


@pytest.mark.slow
def test_a_scene_cut_is_coded_by_the_prior_that_its_symbols_were_chosen_under(codecs):
    """The intra prior is the shorter under these weights: with skipping, other symbols would not fit it."""
    codec = codecs["transformer"]
    frames = np.concatenate([noisy_frames(9, 40, 48, seed=seed) for seed in (1, 2)])
    data = skipping(codec, frames, 40)
    chosen = codec.analyse(frames, 30, rdo=True, skip=40)
    assert all(torch.equal(*pair) for pair in zip(codec.padded_symbols(data), chosen, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_coding_with_what_the_choice_knows_gives_the_bytes_of_coding_anew(codecs, kind, context):
    codec = codecs[kind]
    frames = np.concatenate([noisy_frames(9, 40, 48, seed=1), motion_frames(12, (40, 48), motion=(1.0, 0.0))])
    known = codec.compress(frames, 30, rdo=True, context=context)
    chosen = codec.analyse(frames, 30, rdo=True, context=context)
    anew, _ = codec.compress_symbols(chosen, 30, 40, 48, context=context, skip=SKIP)
    assert known == anew


def test_symbols_that_were_not_chosen_for_it_cannot_be_skipped(codecs):
    codec, frames = codecs["none"], noisy_frames(2, 32, 32)
    with pytest.raises(ValueError, match="scale is not coded differs from the centre"):
        codec.compress_symbols(codec.analyse(frames, 30), 30, 32, 32, skip=60)


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_threads(codecs):
    codec, frames, before = codecs["transformer"], noisy_frames(20, 40, 48), torch.get_num_threads()
    try:
        found = set()
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.add(codec.compress(frames, qp=40, rdo=True))
        assert len(found) == 1
    finally:
        torch.set_num_threads(before)
