"""A target quality: the fewest bytes that reach it, over variants and QPs."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import noisy_frames
from vidlbc.codec import models
from vidlbc.codec.bitstream.rates import bits_per_pixel
from vidlbc.codec.codec import Codec
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.klt import initialise
from vidlbc.codec.rate_control import Target, compress_to_target
from vidlbc.errors import InputError
from vidlbc.train.data.image_data import CropSampler
from vidlbc.video.distortion import psnr

VARIANTS = {"long": [1, 12, 16, 16], "short": [0, 0, 4, 16]}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """A transform codec that works without training: its linear layers are a KLT of pictures like those it codes."""
    options = {
        "channels": [1, 12, 16, 16],
        "widths": [16, 24, 32, 32],
        "encoder_blocks": [1, 1, 1, 1],
        "decoder_blocks": [1, 1, 1, 1],
        "prior_widths": [16, 16, 16],
        "variants": VARIANTS,
    }
    torch.manual_seed(0)
    stage = build_image_stage("lbc", **options)
    pictures = [frame for seed in range(4) for frame in smooth(6, seed)]
    initialise(stage, CropSampler(pictures, 32, 64, 0, range(64))(0)[0], carry=(12, 12, 12))
    folder = tmp_path_factory.mktemp("model")
    models.save_image_stage(stage, folder / "image_stage", {"family": "lbc", "options": options})
    (folder / "config.json").write_text('{"format": 1, "temporal": "none"}')
    return vidlbc.load(folder, device="cpu")


def smooth(count: int, seed: int) -> np.ndarray:
    """Pictures with large shapes; a higher seed has more detail."""
    frames = noisy_frames(count, 64, 64, seed).astype(float)
    for _ in range(6 - 2 * min(seed, 3)):
        for axis in (1, 2):
            frames = (frames + np.roll(frames, 1, axis) + np.roll(frames, -1, axis)) / 3
    return frames.round().astype(np.uint8)


def code(codec: Codec, frames: np.ndarray, target: float, **options) -> tuple[bytes, float]:
    sink = io.BytesIO()
    report = compress_to_target(codec, frames, sink, Target("psnr", target), **options)
    data = sink.getvalue()
    info = vidlbc.inspect(data)
    assert (report.bytes, report.qp) == (len(data), info.qp) and report.variant in codec.variants
    assert info.kept == codec.kept(report.variant)
    return data, float(np.mean(psnr(codec.decompress(data), frames)))


@pytest.mark.slow
@pytest.mark.parametrize("target", [24, 30])
def test_it_reaches_the_target_with_no_byte_more_than_any_other_choice(codec, target):
    frames = smooth(3, 1)
    data, quality = code(codec, frames, target)
    assert quality >= target
    for variant in codec.variants:
        for qp in range(0, 64, 3):
            other = codec.compress(frames, qp, variant=variant)
            if np.mean(psnr(codec.decompress(other), frames)) >= target:
                assert len(data) <= len(other) * 1.02  # PSNR is not monotone in QP to the last hundredth
                break


def test_where_pictures_are_copied_a_lower_qp_may_do():
    """A key frame has a higher QP than what is copied from it: far below what frames alone would need."""
    codec, frames = vidlbc.load("default", "cpu"), np.repeat(smooth(1, 1), 5, 0)
    frames[2:, :32, :32] = smooth(1, 2)[:, :32, :32]
    data = codec.compress(frames, psnr=33.0)
    qp = vidlbc.inspect(data).qp
    assert np.mean(psnr(codec.decompress(data), frames)) >= 33
    assert np.mean(psnr(codec.decompress(codec.compress(frames, qp - 1)), frames)) < 33
    alone = vidlbc.load("default", "cpu", temporal="none")
    assert np.mean(psnr(alone.decompress(alone.compress(frames, qp)), frames)) < 33


def test_simple_clips_get_shorter_codes_than_rich_ones(codec):
    simple, rich = (code(codec, smooth(2, seed), 28)[0] for seed in (0, 3))
    assert len(simple) < 0.8 * len(rich)


def test_an_unreachable_target_gives_the_best_there_is(codec):
    frames = smooth(2, 3)
    data, quality = code(codec, frames, 80)
    assert vidlbc.inspect(data).qp == 63 and list(vidlbc.inspect(data).kept) == VARIANTS["long"] and quality < 80


def test_the_choice_can_be_narrowed(codec):
    data, _ = code(codec, smooth(2, 1), 24, variants=("short",))
    assert list(vidlbc.inspect(data).kept) == VARIANTS["short"]


@pytest.mark.slow
def test_at_a_price_no_other_choice_costs_less(codec):
    frames, price = smooth(3, 2), 0.08
    sink = io.BytesIO()
    report = compress_to_target(codec, frames, sink, Target("bpp_per_db", price))
    assert vidlbc.inspect(sink.getvalue()).qp == report.qp

    def cost(variant, qp):
        data = codec.compress(frames, qp, variant=variant)
        return bits_per_pixel(len(data), *frames.shape[:3]) - price * np.mean(psnr(codec.decompress(data), frames))

    best = min(cost(variant, qp) for variant in codec.variants for qp in range(0, 64, 3))
    assert cost(report.variant, report.qp) <= best + 0.02  # curves are not smooth to the last hundredth
    dear = compress_to_target(codec, frames, io.BytesIO(), Target("bpp_per_db", 10 * price))
    assert dear.bytes > report.bytes


@pytest.mark.parametrize("price", [0, -1, float("nan"), "much", True])
def test_bad_prices(codec, price):
    with pytest.raises(InputError, match="^bpp_per_db=.*: expected bits per pixel above 0, or null$"):
        compress_to_target(codec, smooth(1, 0), io.BytesIO(), Target("bpp_per_db", price))


@pytest.mark.parametrize("target", [0, -3, float("nan"), float("inf"), "good", True])
def test_bad_targets(codec, target):
    with pytest.raises(InputError, match="^psnr=.*: expected a number of dB above 0, or null$"):
        code(codec, smooth(1, 0), target)


# ---- bitrate


def at_bitrate(codec: Codec, frames: np.ndarray, target: float, **options) -> tuple[bytes, float]:
    sink = io.BytesIO()
    report = compress_to_target(codec, frames, sink, Target("bitrate", target), fps=25, **options)
    assert report.bytes == len(sink.getvalue())
    assert report.reached == 8 * len(sink.getvalue()) * 25 / len(frames) / 1000
    return sink.getvalue(), report.reached


@pytest.mark.slow
@pytest.mark.parametrize("rdo", [False, True])
@pytest.mark.parametrize(("target", "seed"), [(30, 1), (55, 1), (120, 3)])
def test_a_bitrate_gives_the_highest_qp_whose_file_is_no_larger(codec, target, seed, rdo):
    frames = smooth(3, seed)
    data, reached = at_bitrate(codec, frames, target, variants=("long",), rdo=rdo)
    qp = vidlbc.inspect(data).qp
    assert reached <= target and 0 < qp < 63
    assert data == codec.compress(frames, qp, fps=25, variant="long", rdo=rdo)
    assert 8 * len(codec.compress(frames, qp + 1, fps=25, variant="long", rdo=rdo)) * 25 / 3 / 1000 > target


def test_of_variants_that_fit_the_best_is_taken(codec):
    frames = smooth(3, 3)
    data, _ = at_bitrate(codec, frames, 80)
    alone = [at_bitrate(codec, frames, 80, variants=(variant,))[0] for variant in codec.variants]
    assert data == max(alone, key=lambda stream: np.mean(psnr(codec.decompress(stream), frames)))


@pytest.mark.parametrize(("target", "qp"), [(0.1, 0), (1e6, 63)])
def test_a_bitrate_out_of_reach_gives_the_nearest_there_is(codec, target, qp):
    data, _ = at_bitrate(codec, smooth(2, 1), target, variants=("short",))
    assert vidlbc.inspect(data).qp == qp


def test_targets_of_compress(codec):
    frames = smooth(2, 1)
    quality = codec.compress(frames, psnr=26, rdo=True)
    assert np.mean(psnr(codec.decompress(quality), frames)) >= 26
    small = codec.compress(frames, bitrate=40, fps=25, variant="long")
    assert small == at_bitrate(codec, frames, 40, variants=("long",))[0]
    with pytest.raises(
        InputError, match="^bitrate=40: the frame rate is not known, and kbit/s need it; give fps, or qp$"
    ):
        codec.compress(frames, bitrate=40)
    with pytest.raises(InputError, match="^psnr and bitrate given: expected one of psnr, bitrate$"):
        codec.compress(frames, bitrate=40, psnr=30, fps=25)
    with pytest.raises(InputError, match="^bitrate=0: expected kbit/s above 0, or null$"):
        codec.compress(frames, bitrate=0, fps=25)


def test_a_clip_is_analysed_once(codec, monkeypatch):
    calls = []
    analyse = codec.unquantised
    monkeypatch.setattr(codec, "unquantised", lambda frames: calls.append(len(frames)) or analyse(frames))
    at_bitrate(codec, smooth(3, 1), 50)
    assert calls == [3]
    monkeypatch.setattr("vidlbc.codec.rate_control._KEPT_BYTES", 0)
    at_bitrate(codec, smooth(3, 1), 50)
    assert len(calls) > 3
