"""Decoding with a video decoder: what it leaves alone, what it carries from frame to frame, what it refuses."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.refinement.conftest import OPTIONS, add_video_decoder
from tests.codec.small_models import noisy_frames, save_small_model
from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding import PACKET_FRAMES
from vidlbc.codec.refinement.network import MotionSearch, warp
from vidlbc.errors import InputError


def load(folder: Path, kind: str = "transformer", refine: bool = True) -> Codec:
    return vidlbc.load(folder, device="cpu", temporal=kind, refine=refine)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(2 * PACKET_FRAMES, (32, 32)), (3, (37, 50))])
def test_an_untrained_one_gives_the_frames_of_the_image_stage(untrained, count, size):
    # Enough frames for graphs to take over from plain calls, and sizes that need padding.
    frames = noisy_frames(count, *size)
    plain, refining = load(untrained, "none", refine=False), load(untrained, "none")
    data = plain.compress(frames, qp=30)
    assert refining.compress(frames, qp=30) == data  # it is no part of the fingerprint
    np.testing.assert_array_equal(refining.decompress(data), plain.decompress(data))


def test_every_temporal_prior_has_the_same_refined_pictures(speaking):
    frames = noisy_frames(3, 32, 32)
    refined, expected = load(speaking, "lstm"), load(speaking, "none")
    shown = expected.decompress(expected.compress(frames))
    np.testing.assert_array_equal(refined.decompress(refined.compress(frames)), shown)


@pytest.mark.slow
def test_the_past_is_carried_over_packets_and_the_whole_is_what_a_frame_by_frame_loop_gives(speaking):
    frames = noisy_frames(PACKET_FRAMES + 2, 30, 32)
    codec = load(speaking, "none")
    data = codec.compress(frames, qp=50)
    blocks = list(codec.decompress_stream(io.BytesIO(data)))
    assert [len(block) for block in blocks] == [PACKET_FRAMES, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), codec.decompress(data))

    image = models.load_image_stage(speaking / "image_stage")
    decoder, _ = models.load_video_decoder(speaking, image)
    qp, state, alone = torch.tensor([50]), (), []
    latents = codec.dequantise(codec.padded_symbols(data), 50)
    with torch.inference_mode():
        for t, block in enumerate(np.concatenate(blocks)):
            picture, features = image.stage.synthesis_with_features([y[t : t + 1] for y in latents], qp)
            out = decoder(features, picture, qp, state)
            state = out.state
            alone.append(pixels(decoder(features, picture, qp, ()).picture)[:30])
            # The last bit of a float may depend on the layout and so on the thread; a grey level hardly.
            assert np.abs(pixels(out.picture)[:30].astype(int) - block).max() <= 1, t
    plain = load(speaking, "none", refine=False).decompress(data)
    first, rest = np.concatenate(blocks)[:1], np.concatenate(blocks)[1:]
    # The random weights speak, in the first frame without and in the others with a past.
    assert (first != plain[:1]).mean() > 0.2 and (rest != np.stack(alone)[1:]).mean() > 0.2


def pixels(picture: torch.Tensor) -> np.ndarray:
    return (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_a_clip_that_follows_another_starts_anew_and_threads_do_not_matter(speaking):
    codec = load(speaking, "none")
    data = codec.compress(noisy_frames(4, 32, 32))
    expected = codec.decompress(data)
    codec.decompress(codec.compress(noisy_frames(2, 32, 32, seed=1)))
    np.testing.assert_array_equal(codec.decompress(data), expected)
    two_at_once = [codec.decompress_stream(data) for _ in range(2)]
    for a, b in zip(*two_at_once, strict=True):
        np.testing.assert_array_equal(a, b)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        np.testing.assert_array_equal(codec.decompress(data), expected)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(load(speaking, "none"))).decompress(data), expected)


def test_the_past_is_moved_where_the_motion_points():
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    motion = torch.zeros(1, 2, 16, 24)
    motion[:, 0], motion[:, 1] = 5 / 8, -3 / 8  # cells of stride 8: seen 5 pixels to the right and 3 up
    seen = warp(picture, motion)[..., 3:, :-5]
    torch.testing.assert_close(seen, picture[..., :-3, 5:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (4, 0), (-2, 6)])
def test_motion_is_found_without_training(right, down):
    noise = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(2))
    past = torch.nn.functional.avg_pool2d(noise, 7, 1, 3)
    present = past.roll((down, right), (2, 3))
    found = MotionSearch()(present, past, torch.tensor([32]))[0, 3:-3, 3:-3]
    torch.testing.assert_close(found, torch.tensor([-right / 8, -down / 8]).expand_as(found), atol=0.05, rtol=0)


def test_after_a_cut_the_past_is_not_trusted(speaking):
    """Whatever the weights: where moved past and present have nothing in common, its share is next to nothing."""
    image = models.load_image_stage(speaking / "image_stage")
    decoder = models.build_video_decoder(image.stage, **OPTIONS)
    with torch.no_grad():
        decoder.trust.anchors[:, 0] = 0.1  # all that a trained one has
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(1, decoder.reduce.in_features, 8, 8, generator=generator)
        one, other = (torch.rand(1, 3, 64, 64, generator=generator) for _ in range(2))
        qp = torch.tensor([32])
        state = decoder(features, one, qp, ()).state
        after_cut = decoder(features, other, qp, state).picture
        after_noise = decoder(features, one + 0.01 * (other - 0.5), qp, state).picture
    assert (after_cut - other).abs().max() < 0.05
    still = (after_noise - one).square().mean() / (0.01 * (other - 0.5)).square().mean()
    assert still < 0.5


@pytest.mark.compressai
def test_a_picture_and_a_family_without_features_of_its_own(tmp_path):
    from vidlbc.codec.image_stage import build_image_stage

    options = {"N": 8, "M": 12, "mean": True, "prior_widths": [32, 32], "prior_blocks": 1, "trained_lambda": 0.013}
    folder = tmp_path / "hyperprior"
    torch.manual_seed(0)
    stage = build_image_stage("hyperprior", **options)
    models.save_image_stage(stage, folder / "image_stage", {"family": "hyperprior", "options": options})
    (folder / "config.json").write_text(json.dumps({"format": 1}))
    codec = load(add_video_decoder(folder, 3), "none")
    for count in (1, 3):
        frames = noisy_frames(count, 70, 90)
        assert codec.decompress(codec.compress(frames)).shape == frames.shape


@pytest.mark.slow
def test_what_cannot_refine_says_so(untrained, tmp_path):
    plain = save_small_model(tmp_path / "plain", kinds=())
    with pytest.raises(InputError, match="has no video decoder: use refine=false, or train one with"):
        load(plain, "none")
    other = save_small_model(tmp_path / "other", seed=9, kinds=())
    shutil.copytree(untrained / "video_decoder", other / "video_decoder")
    with pytest.raises(InputError, match=r"video_decoder was trained for image stage \w{12}, not \w{12}"):
        load(other, "none")
    assert load(other, "none", refine=False).refiner is None

    broken = tmp_path / "broken"
    for harm, message in (
        (lambda f: f.joinpath("model.safetensors").write_bytes(b"nothing"), "damaged or not safetensors"),
        (lambda f: f.joinpath("model.safetensors").unlink(), "does not exist"),
        (lambda f: f.joinpath("config.json").write_text("{"), "is not JSON"),
        (lambda f: edit(f, {"width": 32}), "the weights do not fit the config"),
        (lambda f: edit(f, {"colour": 1}), "no network can be built from it"),
        (lambda f: edit(f, {"width": "wide"}), "no network can be built from it"),
    ):
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(untrained, broken)
        harm(broken / "video_decoder")
        with pytest.raises(InputError, match=message):
            load(broken, "none")


def edit(folder: Path, options: dict[str, int]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"options": config["options"] | options}))
