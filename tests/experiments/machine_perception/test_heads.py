"""ResNets on pictures and latents: the sizes of Table 6, the variants of Table 2, clips."""

from __future__ import annotations

import pytest
import torch

from vidlbc.errors import InputError
from vidlbc.heads.clip_resnet import ClipResNet
from vidlbc.heads.resnet import LevelStack, ResNet, ResNetSettings, subpixel_stem

TINY = {"width": 4, "depths": (1, 1, 1, 1), "norm": "group"}


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.slow
def test_the_rgb_network_is_resnet_101():
    from torchvision.models import resnet101

    with torch.device("meta"):
        ours, known = ResNet(3, ResNetSettings(stem="rgb", activation="relu")), resnet101()
    assert parameters(ours) == parameters(known) - parameters(known.fc)
    assert ours.features == known.fc.in_features


@pytest.mark.slow
def test_the_subpixel_stem_is_that_of_table_6():
    with torch.device("meta"):
        stem = subpixel_stem(256, ResNetSettings())
        assert stem(torch.empty(1, 256, 14, 14)).shape == (1, 64, 56, 56)
        convs = [m for m in stem.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    # Three blocks of three 3x3 convolutions; the last of each gives four times its planes.
    assert [m.out_channels for m in convs] == [64, 64, 256, 16, 16, 64, 16, 16, 64]


def test_the_truncated_network_drops_stem_and_layer_2():
    with torch.device("meta"):
        cut, whole = ResNet(256, ResNetSettings(stem="truncated")), ResNet(256, ResNetSettings())
    assert len(whole.layers) == 3 + 4 + 23 + 3 and len(cut.layers) == 2 + 23 + 3
    assert cut.stem.weight.shape == (512, 256, 1, 1)
    assert cut.features == whole.features


@pytest.mark.parametrize(
    "row",
    [
        {"shuffles": 1, "residual": False, "activation": "relu"},
        {"shuffles": 1, "activation": "relu"},
        {"shuffles": 2, "activation": "relu"},
        {"shuffles": 2, "activation": "mish"},
        {"shuffles": 2, "activation": "silu"},
    ],
)
def test_every_row_of_table_2_builds_and_takes_a_gradient(row):
    torch.manual_seed(0)
    net = ResNet(6, ResNetSettings(**TINY, **row))
    x = torch.randn(1, 6, 2, 2, requires_grad=True)
    assert net.stem(x).shape == (1, 4, 8, 8)
    net(x).square().sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_the_residual_stem_adds_projections():
    plain, residual = (ResNet(6, ResNetSettings(**TINY, residual=flag)) for flag in (False, True))
    assert parameters(residual) > parameters(plain)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stem": "deconv"}, "head.stem=deconv: expected one of rgb, subpixel, truncated"),
        ({"activation": "gelu"}, "head.activation=gelu: expected one of relu, mish, silu"),
        ({"shuffles": 3}, "head.shuffles=3: expected one of 1, 2"),
        ({"width": 6}, "head.width=6: expected a multiple of 4"),
        ({"depths": (1, 1)}, r"head.depths=\[1, 1\]: expected four numbers"),
    ],
)
def test_wrong_settings_are_told(change, message):
    with pytest.raises(InputError, match=message):
        ResNetSettings(**{**TINY, **change})


def test_levels_are_brought_to_one_grid():
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse = torch.tensor([[[[100.0]]]])
    stack = LevelStack(((1, 8), (1, 16), (1, 32)), 16)
    out = stack([fine, torch.zeros(1, 1, 2, 2), coarse])
    assert stack.channels == 6 and out.shape == (1, 6, 2, 2)
    assert out[0, :4, 0, 0].tolist() == [0, 1, 4, 5]
    assert out[0, 5].tolist() == [[100, 100], [100, 100]]
    # Sizes that do not divide: the fine level is padded, the result cut to what all levels cover.
    assert LevelStack(((1, 8), (1, 16)), 16)([torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3)]).shape == (1, 5, 3, 3)
    with pytest.raises(InputError, match=r"strides \[12\] do not fit a grid of 8"):
        LevelStack(((1, 12),), 8)


def head(**options) -> ClipResNet:
    torch.manual_seed(0)
    return ClipResNet([(6, 16)], 3, ResNetSettings(**TINY), state=4, **options).eval()


def test_a_mean_forgets_the_order_of_frames_and_an_lstm_or_the_change_does_not():
    clip = torch.randn(2, 5, 6, 2, 2)
    backwards = clip.flip(1)
    with torch.no_grad():
        plain = head(temporal="mean")
        torch.testing.assert_close(plain([clip]), plain([backwards]))
        for other in (head(temporal="lstm"), head(temporal="mean", change=True)):
            assert float((other([clip]) - other([backwards])).abs().max()) > 1e-3


def test_the_normalisation_undoes_a_scale():
    clip = torch.randn(4, 3, 6, 2, 2)
    logits = []
    for factor in (1.0, 50.0):
        model = head()
        x = factor * clip
        model.set_normalisation(x.mean((0, 1, 3, 4)), x.std((0, 1, 3, 4)))
        with torch.no_grad():
            logits.append(model([x]))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-4)


def test_the_normalisation_keeps_which_channels_are_large():
    sizes = torch.tensor([8.0, 1.0, 0.1])
    clip = torch.randn(4, 3, 3, 2, 2) * sizes[:, None, None] + 5
    model = ClipResNet([(3, 16)], 4, ResNetSettings(**TINY))
    model.set_normalisation(clip.mean((0, 1, 3, 4)), clip.std((0, 1, 3, 4)))
    seen = []
    model.frame.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model([clip])
    found = seen[0].std((0, 2, 3))
    torch.testing.assert_close(found / found[0], clip.std((0, 1, 3, 4)) / clip.std((0, 1, 3, 4))[0], rtol=0.02, atol=0)
    assert 0.9 < float(found.square().mean().sqrt()) < 1.1 and float(seen[0].mean().abs()) < 1e-3


def test_an_unknown_temporal_module_is_told():
    with pytest.raises(InputError, match="head.temporal=attention: expected one of mean, lstm"):
        head(temporal="attention")
