"""Layered bitstreams of the family: the base's bytes are enough for the task, and are all that is read."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import vidlbc
from vidlbc.codec import models
from vidlbc.errors import BitstreamError
from vidlbc.experiments.scalable.measure import CountedFile, measure_clip
from vidlbc.experiments.scalable.task import ClipHead

pytestmark = pytest.mark.compressai


@pytest.fixture
def codec(small_model):
    return vidlbc.load(small_model, device="cpu")


@pytest.fixture
def head():
    torch.manual_seed(3)
    return ClipHead(8, 5, width=16).eval()


def test_a_reader_of_the_base_touches_only_its_bytes_and_sees_the_same(codec, head, make_frames):
    clip = make_frames(3, (80, 72))
    data = codec.compress(clip, qp=40)
    info = vidlbc.inspect(data)
    assert info.base_bytes is not None and 0 < info.base_bytes < len(data)
    file = CountedFile(data)
    base, everything = codec.latents(file, base=True), codec.latents(data)
    assert file.count == info.base_bytes
    assert len(base) == 2 and all(torch.equal(a, b) for a, b in zip(base, everything[2:], strict=True))
    with torch.inference_mode():
        assert torch.equal(head(base[0][None]), head(everything[-2][None]))
        assert torch.equal(codec.stage.preview(base), codec.stage.preview(everything))


def test_the_base_decodes_where_the_enhancement_was_never_fetched(codec, make_frames):
    data = codec.compress(make_frames(2, (64, 64)), qp=40)
    part = data[: vidlbc.inspect(data).base_bytes]
    base = codec.latents(io.BytesIO(part), base=True)
    assert all(torch.equal(a, b) for a, b in zip(base, codec.latents(data)[2:], strict=True))
    with pytest.raises(BitstreamError):
        codec.decompress(part)


def test_a_measured_clip_has_true_sizes(codec, head, make_frames):
    clip = make_frames(2, (64, 64))
    point = measure_clip(codec, head, "clip", clip, 2, qp=32)
    data = codec.compress(clip, qp=32)
    assert (point.bytes, point.pixels) == (len(data), 2 * 64 * 64)
    assert point.base_bytes == point.base_read == vidlbc.inspect(data).base_bytes
    decoded = codec.decompress(data).astype(float)
    mse = ((decoded - clip) ** 2).mean((1, 2, 3))
    assert point.psnr == pytest.approx(float(np.mean(10 * np.log10(255**2 / mse))), rel=1e-6)
    assert point.nats is not None and point.nats > 0 and point.preview_psnr is not None
    plain = measure_clip(codec, None, "clip", clip, 2, qp=32)
    assert plain.base_bytes is None and plain.bytes == point.bytes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_the_base_stands_alone_under_a_temporal_stage_too(kind, small_model, make_frames):
    image = models.load_image_stage(small_model / "image_stage")
    torch.manual_seed(4)
    temporal = models.build_temporal(kind, image.stage)
    models.save_temporal(temporal, small_model / "temporal" / kind, {"kind": kind, "options": {}}, image.digest)
    codec = vidlbc.load(small_model, device="cpu", temporal=kind)
    data = codec.compress(make_frames(3, (64, 64)), qp=40)
    file = CountedFile(data)
    base, everything = codec.latents(file, base=True), codec.latents(data)
    assert file.count == vidlbc.inspect(data).base_bytes < len(data)
    assert all(torch.equal(a, b) for a, b in zip(base, everything[2:], strict=True))
