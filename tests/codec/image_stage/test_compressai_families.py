"""CompressAI's models as image stages: the same transforms to the bit, local checkpoints, a codec on top."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.codec.image_stage.compressai_families import ELIC, Hyperprior, import_compressai, quality_to_lambda
from vidlbc.errors import InputError

pytestmark = pytest.mark.compressai

SMALL = {"prior_widths": (32, 32), "prior_blocks": 1}


def original(name):
    """A CompressAI model of its own making, small where its class allows it."""
    torch.manual_seed(0)
    library = import_compressai().models
    makers = {
        "mean": lambda: library.MeanScaleHyperprior(8, 12),
        "scale": lambda: library.ScaleHyperprior(8, 12),
        "elic": lambda: library.sensetime.Elic2022Official(8, 136),
    }
    return makers[name]().eval()


def adapted(name, path):
    if name == "elic":
        return ELIC.from_checkpoint(path, **SMALL)
    return Hyperprior.from_checkpoint(path, mean=name == "mean", **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "scale", "elic"])
@pytest.mark.parametrize("form", ["safetensors", "pth.tar", "wrapped"])
def test_a_local_checkpoint_gives_the_same_transforms(name, form, tmp_path):
    model = original(name)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pth.tar")
    if form == "safetensors":
        save_file(state, path)
    elif form == "pth.tar":
        torch.save(state, path)
    else:  # a training script's checkpoint, trained with DataParallel
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": t for key, t in state.items()}}, path)
    stage, options = adapted(name, path)
    stage.eval()
    x = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        y, z = stage.analysis(x)
        expected = model.g_a(x)
        h_a = model.latent_codec["hyper"].h_a if name == "elic" else model.h_a
        assert torch.equal(y, expected)
        assert torch.equal(z, h_a(expected.abs() if name == "scale" else expected))
        assert torch.equal(stage.synthesis([y, z], torch.tensor([32])), model.g_s(expected))
    assert [(level.stride, level.channels) for level in stage.levels] == [(16, y.shape[1]), (64, z.shape[1])]
    assert (options["N"], options["M"]) == (8, y.shape[1])


@pytest.mark.parametrize("family, channels", [("hyperprior", (192, 128)), ("elic", (320, 192))])
def test_the_defaults_are_the_papers(family, channels):
    stage = models.build_image_stage(family)
    assert stage.family == family and tuple(level.channels for level in stage.levels) == channels


@pytest.mark.parametrize("quality", [1, 4, 6])
def test_the_step_is_one_where_the_checkpoint_was_trained(quality):
    trained = quality_to_lambda(quality)
    stage = Hyperprior(8, 12, trained_lambda=trained, **SMALL)
    qp = int((qp_lambda(torch.arange(64)) - trained).abs().argmin())
    y, z = stage.requires_grad_(False).gains_at(torch.tensor([qp]))
    assert y.gain.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(z.gain, torch.ones_like(z.gain))
    low, high = (stage.gains_at(torch.tensor([q]))[0].gain.mean() for q in (0, 63))
    assert high / low == pytest.approx(10, rel=0.01)  # lambda spans a factor of 100, the step its root


def test_quality_outside_the_zoo():
    with pytest.raises(InputError, match="quality=9: expected 1 to 8"):
        quality_to_lambda(9)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hyperprior", "elic"])
@pytest.mark.parametrize("kind", ["none", "transformer", "lstm"])
def test_every_temporal_stage_codes_it(family, kind, tmp_path):
    options = {"N": 8, "M": 12 if family == "hyperprior" else 136, **SMALL}
    torch.manual_seed(0)
    stage = models.build_image_stage(family, **options)
    models.save_image_stage(stage, tmp_path, {"family": family, "options": options})
    image = models.load_image_stage(tmp_path)
    temporal = models.build_temporal(kind, image.stage).eval()
    codec = Codec(image, temporal, b"", device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    data = codec.compress(frames, qp=40)
    assert codec.decompress(data).shape == frames.shape
    written = codec.analyse(frames, 40)
    for level, q, expected in zip(codec.levels, codec.symbols(data), written, strict=True):
        assert q.shape[1] == level.channels
        assert torch.equal(q, expected.permute(0, 3, 1, 2)[..., : q.shape[2], : q.shape[3]])


class Trap:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, capsys):
    def refused(path, family=Hyperprior):
        with pytest.raises(InputError) as caught:
            family.from_checkpoint(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert refused(tmp_path / "no.pth") == f"{tmp_path}/no.pth: no such file (expected a CompressAI checkpoint)"
    (tmp_path / "text.pth").write_text("hello")
    assert refused(tmp_path / "text.pth").startswith(f"{tmp_path}/text.pth: cannot be read as a checkpoint (")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"state_dict": Trap()}))
    assert refused(tmp_path / "trap.pth").startswith(f"{tmp_path}/trap.pth: cannot be read as a checkpoint (")
    assert "ran" not in capsys.readouterr().out
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert refused(tmp_path / "empty.pth").endswith("holds no tensors by name (expected a CompressAI checkpoint)")
    state = {key: tensor.contiguous() for key, tensor in original("mean").state_dict().items()}
    save_file(state, tmp_path / "mean.safetensors")
    assert refused(tmp_path / "mean.safetensors", ELIC).endswith("no elic checkpoint: it has no tensor 'g_a.13.weight'")
    save_file({k: t for k, t in state.items() if k != "g_s.0.bias"}, tmp_path / "part.safetensors")
    assert refused(tmp_path / "part.safetensors").endswith("no hyperprior checkpoint: it has no tensor 'g_s.0.bias'")
    save_file({**state, "g_a.0.bias": torch.zeros(3)}, tmp_path / "shape.safetensors")
    assert refused(tmp_path / "shape.safetensors").endswith("tensor 'g_a.0.bias' is (3,), expected (8,)")
