"""The loss of moved kinds: bits in a closed loop, and which parts learn from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.codec.small_models import MOVED_OPTIONS, noisy_frames, save_small_model
from vidlbc.codec import models
from vidlbc.codec.coding.moved_encoding import LIFT, PRICE, MovedChooser
from vidlbc.codec.coding.rdo import ERROR_PRICE
from vidlbc.codec.motion.stage import gives_all, motion_options
from vidlbc.codec.moved_codec import MovedCodec
from vidlbc.errors import InputError
from vidlbc.pipeline.train import PARTS, train_parts
from vidlbc.train.objectives.motion import MotionRate


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return models.load_image_stage(save_small_model(tmp_path_factory.mktemp("m") / "small", kinds=()) / "image_stage")


@pytest.fixture(params=["transformer", "lstm"])
def stage(request, image):
    torch.manual_seed(0)
    return models.build_temporal(request.param, image.stage, **MOVED_OPTIONS[request.param])


@pytest.fixture
def copying(image):
    """A stage whose blocks may be copied."""
    torch.manual_seed(0)
    options = MOVED_OPTIONS["transformer"]
    return models.build_temporal(
        "transformer", image.stage, **options | {"motion": options["motion"] | {"copies": True}}
    )


def clips(count: int = 2, frames: int = 4, size: int = 64) -> torch.Tensor:
    drawn = np.stack([noisy_frames(frames, size, size, seed) for seed in range(count)])
    return torch.from_numpy(drawn).permute(0, 1, 4, 2, 3)


QP = torch.tensor([20, 40])


def gradients(stage) -> set[str]:
    return {name for name, p in stage.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_learns_by_itself(image, stage, part):
    train_parts(stage, [part])
    with torch.no_grad():
        for gate in stage.gates:  # fresh ones let nothing through
            gate.bias.fill_(0.5)
    loss, figures = MotionRate(image)(stage, (clips(), QP), 0)
    loss.backward()
    learned = gradients(stage)
    assert learned and torch.isfinite(loss) and set(figures) >= {"bpp", "bpp_vectors", "psnr", "psnr_first"}
    places = {
        "prior": "",
        "vectors": "motion.vectors.",
        "analysis": "motion.analysis.",
        "fusion": "motion.synthesis.leave.",
        "synthesis": "motion.synthesis.lift.",
    }
    assert any(name.startswith(places[part]) for name in learned)
    assert all(p.grad is None for p in stage.parameters() if not p.requires_grad)
    if part == "prior":
        assert not any(name.startswith("motion.") for name in learned)


def test_unknown_parts_are_one_line(stage):
    for parts in (["everything"], []):
        with pytest.raises(InputError, match="expected some of prior, vectors, fusion, synthesis, analysis"):
            train_parts(stage, parts)


@pytest.mark.parametrize("name", ["default", "large"])
def test_layers_that_the_image_stage_lacks_are_trained(name):
    image = models.load_image_stage(models.SHIPPED / name / "image_stage").stage
    stage = models.build_temporal("lstm", image, motion=motion_options(image))
    train_parts(stage, None, known=gives_all(image))
    own = (stage.motion.analysis, *stage.motion.synthesis.own)
    assert {p.requires_grad for module in own for p in module.parameters()} == {name == "large"}
    assert all(p.requires_grad for module in stage.motion.synthesis.fusion for p in module.parameters())


def test_a_few_steps_lower_the_bits_of_what_they_see(image, stage):
    train_parts(stage, None)
    rate, batch = MotionRate(image), (clips(), QP)
    optimiser = torch.optim.Adam([p for p in stage.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(20):
        loss, _ = rate(stage, batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.97 * losses[0]


def test_chosen_symbols_take_fewer_bits_and_more_error(image, stage):
    stage.requires_grad_(False)
    rate = MotionRate(image)
    plain, chosen = (rate.measure(stage, clips(), QP, price) for price in (None, ERROR_PRICE))
    assert bool((chosen.symbols.sum(1) < plain.symbols.sum(1)).all())
    walk = rate.walk(stage, clips(), QP, ERROR_PRICE)
    assert len(walk.symbols) == len(walk.references) == 4 and len(walk.fields) == len(walk.predictions) == 3


def test_what_training_measures_is_what_coding_takes(image, stage):
    """Estimated bits of the loss beside those of the codec's own report, on symbols that were rounded."""
    stage.requires_grad_(False)
    frames = noisy_frames(4, 64, 64)
    codec = MovedCodec(image, stage.eval(), b"", device="cpu")
    codec._priors.intra_frames = False
    _, report = codec.compress_symbols(codec.analyse(frames, 30), 30, 64, 64)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    measured = MotionRate(image).bpp(codec.temporal, clip, torch.tensor([30]))
    assert float(measured.sum()) * 64 * 64 == pytest.approx(sum(report.frame_bits[1:]), rel=0.03)


def test_copied_blocks_are_measured_as_they_are_coded(image, copying, monkeypatch):
    """Bits, and what references show, beside an encoder. Untrained weights would have everything copied."""
    copying.requires_grad_(False)
    copied = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]).bool()[None]
    for module in ("vidlbc.codec.coding.moved_encoding", "vidlbc.train.objectives.motion"):
        monkeypatch.setattr(f"{module}.worth_copying", lambda *given: copied)
        monkeypatch.setattr(f"{module}.search", lambda *given: torch.full((1, 8, 8, 2), 6, dtype=torch.int32))
        monkeypatch.setattr(f"{module}.Cheapest", lambda qp, found, blocks: found)
    monkeypatch.setattr(MovedChooser, "lift", lambda *given: LIFT)
    frames = noisy_frames(4, 64, 64)
    codec = MovedCodec(image, copying.eval(), b"", device="cpu")
    codec._priors.intra_frames = False
    data, _, report = codec.encode(frames, 30)
    clip, qps = torch.from_numpy(frames).permute(0, 3, 1, 2)[None], torch.tensor([[30 + LIFT, 30, 30, 30]])
    rate = MotionRate(image)
    measured = rate.measure(codec.temporal, clip, qps, PRICE)
    assert float(measured.copied.mean()) == 7 / 16 and report.copied == 7 / 16 * 3 / 4
    assert float(measured.bits.sum()) * 64 * 64 == pytest.approx(sum(report.frame_bits[1:]), rel=0.05)
    shown = torch.from_numpy(codec.decompress(data)).float()
    errors = (shown - torch.from_numpy(frames)).square().mean((1, 2, 3)) / 255**2
    assert torch.allclose(measured.errors[0], errors, rtol=0.05)
    assert bool((rate.measure(codec.temporal, clip, qps).copied == 0).all())


def test_a_stage_is_given_copies_and_says_the_same_of_what_is_coded(image, stage, tmp_path):
    options = MOVED_OPTIONS[stage.kind]
    models.save_temporal(stage, tmp_path, {"kind": stage.kind, "options": options}, image.digest)
    plain, same = models.begin_temporal(tmp_path, stage.kind, image, copies=False)
    grown, described = models.begin_temporal(tmp_path, stage.kind, image, copies=True)
    assert described["motion"]["copies"] and not same["motion"]["copies"] and plain.motion.copies is None
    rate = MotionRate(image)
    before, after = (rate.bpp(one, clips(), QP) for one in (plain, grown))
    assert torch.allclose(after, before, rtol=1e-5)
    assert bool((rate.measure(grown, clips(), QP, ERROR_PRICE).flags > 0).all())


def test_a_stage_begins_with_what_one_of_another_kind_has_of_it(image, copying, tmp_path):
    options = MOVED_OPTIONS["transformer"]["motion"] | {"copies": True}
    described = {"kind": "transformer", "options": MOVED_OPTIONS["transformer"] | {"motion": options}}
    models.save_temporal(copying, tmp_path, described, image.digest)
    other, described = models.begin_temporal(tmp_path, "lstm", image, copies=True)
    # What has learned to be copied overlaps from then on.
    assert (other.kind, described) == ("lstm", {"motion": options | {"overlap": True}})
    theirs = models.load_temporal(tmp_path, image)[0].state_dict()
    shared = ("vectors", "synthesis.enter", "analysis", "copies")
    for name in (*(f"motion.{part}" for part in shared), "trunk", "enter", "gates"):
        taken = {key: x for key, x in other.state_dict().items() if key.startswith(name)}
        assert taken and all(torch.equal(x, theirs[key]) for key, x in taken.items())


def test_a_stage_of_another_image_stage_keeps_that_ones_transforms(image, copying, tmp_path):
    options = {"motion": MOVED_OPTIONS["transformer"]["motion"] | {"copies": True}}
    models.save_temporal(copying, tmp_path / "t", {"kind": "transformer", "options": options}, image.digest)
    other = models.load_image_stage(save_small_model(tmp_path / "other", 9, kinds=()) / "image_stage")
    begun, _ = models.begin_temporal(tmp_path / "t", "transformer", other, copies=False)
    own = models.build_temporal("transformer", other.stage, **options).motion.state_dict()
    theirs, found = models.load_temporal(tmp_path / "t", image)[0].motion.state_dict(), begun.motion.state_dict()
    assert all(torch.equal(found[name], own[name]) for name in own if name.startswith(("analysis", "synthesis.lift")))
    taken = ("vectors", "synthesis.fuse")
    assert all(torch.equal(x, theirs[name]) for name, x in found.items() if name.startswith(taken))


def test_nothing_begins_with_another_kind_without_motion(image, tmp_path):
    plain = models.build_temporal("lstm", image.stage)
    models.save_temporal(plain, tmp_path, {"kind": "lstm", "options": {}}, image.digest)
    with pytest.raises(InputError, match="of kind lstm, on lbc: no transformer can begin with it"):
        models.begin_temporal(tmp_path, "transformer", image, copies=True)


def test_a_stage_to_begin_with_that_lacks_a_tensor_is_refused(image, copying, tmp_path):
    options = {"motion": MOVED_OPTIONS["transformer"]["motion"] | {"copies": True}}
    models.save_temporal(copying, tmp_path, {"kind": "transformer", "options": options}, image.digest)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {key: x for key, x in tensors.items() if not key.startswith("motion.analysis.down.0.weight")}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors")
    for kind in ("transformer", "lstm"):
        with pytest.raises(InputError, match="do not fit the config .*'motion.analysis.down.0.weight'"):
            models.begin_temporal(tmp_path, kind, image, copies=True)


def test_flags_learn_with_the_vectors(image, copying):
    train_parts(copying, ["vectors"])
    loss, figures = MotionRate(image, price=ERROR_PRICE)(copying, (clips(), QP), 1)
    loss.backward()
    assert any(name.startswith("motion.copies.") for name in gradients(copying)) and "copied" in figures


def test_frames_of_any_size_are_measured_and_clips_alone_as_in_a_batch(image, stage):
    stage.requires_grad_(False)
    rate, frames = MotionRate(image), clips(size=40)
    together = rate.bpp(stage, frames, QP)
    assert together.shape == (2, 3)
    alone = [rate.bpp(stage, frames[i : i + 1], QP[i : i + 1]) for i in range(2)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4)
