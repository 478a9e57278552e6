"""The codec of Table 5 as a family: shapes, its start, real bitstreams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vidlbc
from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.errors import InputError

pytestmark = pytest.mark.compressai

TINY = {"N": 12, "prior_widths": [8, 8], "prior_blocks": 1}


@pytest.mark.parametrize("z_stride", [64, 128])
def test_latents_lie_at_the_strides_of_the_table(z_stride):
    stage = build_image_stage("codevilla", z_stride=z_stride, **TINY)
    frames = torch.rand(2, 3, 256, 128)
    y, z = stage.analysis(frames)
    assert y.shape == (2, 12, 16, 8)
    assert z.shape == (2, 12, 256 // z_stride, 128 // z_stride)
    assert stage.synthesis([y, z], torch.zeros(2, dtype=torch.long)).shape == frames.shape
    assert [level.stride for level in stage.levels] == [16, z_stride]


def test_the_paper_size_has_its_channels():
    stage = build_image_stage("codevilla")
    convs = [layer for layer in stage.g_a if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in convs] == [(256, (5, 5), (2, 2))] * 4
    hyper = [layer for layer in stage.h_a if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.kernel_size[0], c.stride[0]) for c in hyper] == [(3, 2), (5, 2), (5, 2)]


def test_another_stride_of_z_is_refused():
    with pytest.raises(InputError, match="z_stride=32, expected one of 64, 128"):
        build_image_stage("codevilla", z_stride=32, **TINY)


def test_the_start_is_a_transform_codec(make_frames):
    """Smooth pictures: a random network cannot show them, the wavelet packet of their principal axes can."""
    torch.manual_seed(0)
    stage = build_image_stage("codevilla", z_stride=64, **TINY)
    frames = torch.from_numpy(make_frames(8, (64, 64))).permute(0, 3, 1, 2).float() / 255

    def psnr() -> float:
        with torch.no_grad():
            decoded = stage.synthesis(stage.analysis(frames), torch.zeros(8, dtype=torch.long))
        return float(-10 * F.mse_loss(decoded, frames).log10())

    before = psnr()
    stage.start_from(frames)
    assert psnr() > before + 6 and psnr() > 20


def test_clips_go_through_real_bitstreams(tmp_path, make_frames):
    torch.manual_seed(0)
    stage = build_image_stage("codevilla", z_stride=64, **TINY)
    frames = make_frames(3, (64, 80))
    stage.start_from(torch.from_numpy(frames[:, :64, :64]).permute(0, 3, 1, 2).float() / 255)
    config = {"family": "codevilla", "options": {"z_stride": 64, **TINY}}
    models.save_image_stage(stage, tmp_path / "image_stage", config)
    (tmp_path / "config.json").write_text('{"format": 1, "temporal": "none"}')
    codec = vidlbc.load(tmp_path, device="cpu")
    small, large = (codec.compress(frames, qp=qp) for qp in (4, 60))
    assert len(small) < len(large)
    assert codec.decompress(large).shape == frames.shape
    y, z = codec.latents(large)
    assert y.shape == (3, 12, 4, 5) and z.shape == (3, 12, 1, 2)
    error = [np.abs(codec.decompress(data).astype(int) - frames).mean() for data in (small, large)]
    assert error[1] < error[0]
