"""What downstream networks inherit, what is trained of it, and what a task's pictures are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidlbc.errors import InputError
from vidlbc.experiments.transfer.dense import DenseSettings, balanced_cross_entropy, gradient_magnitude
from vidlbc.experiments.transfer.pictures import crops_of, degrade, read_all, read_with_boundaries
from vidlbc.experiments.transfer.start import Contestant, EncoderDecoder, load_pretrained, starting_stage
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.loop import fit
from vidlbc.video.distortion import psnr

ENCODER = ("stage.down.", "stage.encode.", "stage.project.")


def pictures(count: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def network(text: str, model: Path, **options) -> EncoderDecoder:
    contestant = Contestant.of(text)
    torch.manual_seed(3)
    return EncoderDecoder(starting_stage(contestant, str(model), pictures, 0), contestant, **options)


@pytest.mark.parametrize("text", ["pretrained", "random/thawed", "best/frozen", "klt/tuned+skip", "klt/tuned+"])
def test_a_contestant_that_is_none_is_told(text):
    with pytest.raises(InputError, match="expected START/PART or START/PART\\+identity with START one of pretrained"):
        Contestant.of(text)


def test_contestants_start_from_what_they_say(small_model):
    inherited = load_pretrained(str(small_model)).state_dict()
    weights = {}
    for start in ("pretrained", "klt", "random"):
        weights[start] = starting_stage(Contestant.of(f"{start}/tuned"), str(small_model), pictures, 0).state_dict()
    assert all(torch.equal(weights["pretrained"][name], inherited[name]) for name in inherited)
    name = "down.0.weight"
    assert not torch.equal(weights["random"][name], inherited[name])
    assert not torch.equal(weights["klt"][name], weights["random"][name])
    # Rows of the transform are orthonormal, those of random weights are not.
    products = {k: w[name][:8, :, 0, 0] @ w[name][:8, :, 0, 0].T - torch.eye(8) for k, w in weights.items()}
    assert products["klt"].abs().max() < 1e-4 < 0.1 < products["random"].abs().max()
    again = starting_stage(Contestant.of("random/tuned"), str(small_model), pictures, 0).state_dict()
    assert all(torch.equal(weights["random"][name], again[name]) for name in again)


@pytest.mark.slow
def test_another_family_is_told(tmp_path):
    from vidlbc.codec import models
    from vidlbc.codec.image_stage import build_image_stage

    options = {"N": 8, "M": 12, "prior_widths": [32, 32], "prior_blocks": 1}
    stage = build_image_stage("hyperprior", **options)
    models.save_image_stage(stage, tmp_path / "m" / "image_stage", {"family": "hyperprior", "options": options})
    with pytest.raises(InputError, match="is of family hyperprior, expected lbc"):
        load_pretrained(str(tmp_path / "m"))


@pytest.mark.parametrize("part", ["frozen", "tuned"])
def test_a_frozen_encoder_stays_and_the_decoder_learns(part, small_model, tmp_path):
    built = network(f"pretrained/{part}", small_model, outputs=1)
    before = {name: p.detach().clone() for name, p in built.named_parameters()}

    def objective(module, batch, step):
        return module(batch).square().mean(), {}

    fit(built, objective, lambda step: pictures(), DenseSettings(batch=4, size=32, steps=3).loop(), tmp_path)
    moved = {name for name, p in built.named_parameters() if not torch.equal(p, before[name])}
    assert {name.split(".")[1] for name in moved} >= {"lift", "decode", "up"}
    assert any(name.startswith(ENCODER) for name in moved) == (part == "tuned")
    assert not any(name.startswith(("stage.prior.", "stage.gains.")) for name in moved)


def test_identity_connections_start_as_nothing_and_carry_fine_detail(small_model):
    plain = network("pretrained/frozen", small_model).eval()
    connected = network("pretrained/frozen+identity", small_model).eval()
    x = pictures(1, 50, 70)
    with torch.no_grad():
        assert torch.allclose(plain(x), connected(x), atol=1e-6)
        scales = [lift.scale for lift in connected.stage.lift]
        for scale in scales:
            scale.fill_(0.5)
        assert not torch.allclose(plain(x), connected(x), atol=1e-3)
    connected(x).square().sum().backward()
    assert [scale.requires_grad and scale.grad.abs().sum() > 0 for scale in scales] == [True] * 4


def test_any_size_and_any_number_of_outputs(small_model):
    built = network("random/frozen", small_model, outputs=2)
    assert built(pictures(2, 33, 70)).shape == (2, 2, 33, 70)


def test_quantised_latents_are_coarser_at_a_low_qp_and_still_train_the_encoder(small_model):
    x = pictures(1)
    with torch.no_grad():
        whole, fine, coarse = (network("pretrained/tuned", small_model, qp=qp)(x) for qp in (None, 63, 0))
    assert 0 < (fine - whole).abs().mean() < (coarse - whole).abs().mean()
    built = network("pretrained/tuned", small_model, qp=0)
    built(x).square().sum().backward()
    assert built.stage.project[0].weight.grad.abs().sum() > 0


# ---- pictures


def test_boundaries_are_those_of_the_picture(data):
    read = read_with_boundaries([PictureSource(str(data / "train"))], data / "segmentation")
    assert [p.shape for p in read] == [(70, 84 + i, 4) for i in range(4)]
    for seed, picture in enumerate(read):
        truth = np.array(Image.open(data / "segmentation" / f"train_{seed}_boundaries.png"))
        assert np.array_equal(picture[..., 3], truth) and 0 < (truth > 0).mean() < 0.5
    # A crop keeps them together: every step in colour is drawn.
    crop = crops_of(read, 48, 3, 0)(5)[0]
    steps = (crop[:, :3, :, 1:] != crop[:, :3, :, :-1]).any(1)
    drawn = crop[:, 3, :, 1:].bool() | crop[:, 3, :, :-1].bool()
    assert steps.any() and drawn[steps].all()


def test_missing_boundaries_are_told(data, tmp_path):
    with pytest.raises(InputError, match="holds no train_0_boundaries.png, expected one for every picture"):
        read_with_boundaries([PictureSource(str(data / "train"))], tmp_path)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "train_0_boundaries.png")
    with pytest.raises(InputError, match=r"\(9, 9\) pixels, expected \(84, 70\)"):
        read_with_boundaries([PictureSource(str(data / "train"))], tmp_path)


def test_pictures_too_small_are_told(data):
    assert len(read_all([PictureSource(str(data / "val"))], 70, 1)) == 1
    with pytest.raises(InputError, match="no picture of at least 71 pixels a side"):
        read_all([PictureSource(str(data / "val"))], 71)
    with pytest.raises(InputError, match="size=71: no training picture"):
        crops_of([np.zeros((70, 90, 3), np.uint8)], 71, 1, 0)


def test_degrading_takes_away_what_is_finer_than_the_scale():
    columns = torch.arange(96.0)
    smooth, fine = (0.5 + 0.4 * torch.sin(columns * f).expand(1, 3, 96, 96) for f in (0.1, 2.8))
    inner = (..., slice(8, -8), slice(8, -8))
    for x, kept in ((smooth, True), (fine, False)):
        error = (degrade(x, 2) - x)[inner].square().mean().sqrt()
        assert bool(error < 0.01) == kept
    levels = [float((degrade(pictures(1, 96, 96), s) - pictures(1, 96, 96)).square().mean()) for s in (2, 3, 4)]
    assert levels == sorted(levels) and levels[0] > 0
    assert degrade(torch.rand(1, 3, 97, 61), 4).shape == (1, 3, 97, 61)
    noisy = degrade((pictures() > 0.5).float(), 2)
    assert 0 <= noisy.min() and noisy.max() <= 1
    assert psnr(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8))[0] == 100


def test_both_classes_weigh_the_same_however_rare_boundaries_are():
    truth = torch.zeros(1, 4, 32, 32)
    truth[:, 3, 5] = 1.0
    truth[:, 3, 9, :4] = 0.5  # some drew it, some did not

    def loss(logit_drawn, logit_empty):
        logits = torch.where(truth[:, 3:] > 0, logit_drawn, logit_empty)
        return float(balanced_cross_entropy(lambda x: logits, truth, 0)[0])

    wrong = float(torch.nn.functional.softplus(torch.tensor(4.0)))
    right = float(torch.nn.functional.softplus(torch.tensor(-4.0)))
    assert loss(4.0, -4.0) == pytest.approx(right, abs=1e-5)
    # Missing 34 pixels costs as much as marking the other 988.
    assert loss(-4.0, -4.0) == pytest.approx((wrong + right) / 2, abs=1e-4)
    assert loss(4.0, 4.0) == pytest.approx((wrong + right) / 2, abs=1e-4)


def test_the_baseline_finds_steps_in_brightness():
    x = torch.zeros(1, 3, 40, 40)
    x[..., 20:] = 1
    edges = gradient_magnitude(x)
    assert edges.shape == (1, 1, 40, 40) and edges[0, 0, :, 19:21].min() > 0.99
    assert edges[0, 0, :, :15].max() == 0 and edges[0, 0, :, 25:].max() == 0
