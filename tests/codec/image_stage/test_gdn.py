"""Our GDN is CompressAI's to the bit: values, gradients, names and values of its tensors."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from tests.codec.small_models import uniform
from vidlbc.codec.image_stage.gdn import GDN

pytestmark = pytest.mark.slow  # importing CompressAI takes seconds


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    return pytest.importorskip("compressai.layers", reason="CompressAI is not installed")


def pair(layers: ModuleType, inverse: bool, channels: int = 7) -> tuple[GDN, torch.nn.Module]:
    """Both with the same parameters, of which some lie under their bound."""
    ours, theirs = GDN(channels, inverse), layers.GDN(channels, inverse)
    for key, name in enumerate(("beta", "gamma")):
        values = uniform(tuple(getattr(ours, name).shape), key, 0.8)
        for layer in (ours, theirs):
            getattr(layer, name).data.copy_(values)
    return ours, theirs


@pytest.mark.parametrize("inverse", [False, True])
def test_a_fresh_layer_is_the_same(layers: ModuleType, inverse: bool) -> None:
    ours, theirs = GDN(9, inverse).state_dict(), layers.GDN(9, inverse).state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("inverse", [False, True])
def test_values_and_gradients_are_the_same(layers: ModuleType, inverse: bool) -> None:
    ours, theirs = pair(layers, inverse)
    results = []
    for layer in (ours, theirs):
        x = uniform((2, 7, 6, 5), 5, 3.0).requires_grad_(True)
        y = layer(x)
        (y * uniform(tuple(y.shape), 6, 1.0)).sum().backward()
        gradients = [p.grad for _, p in layer.named_parameters()]
        results.append([y.detach(), x.grad, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    # Under the bound some gradients pass and some do not.
    below = ours.gamma < ours.gamma_reparam.lower_bound.bound
    assert 0 < int((ours.gamma.grad[below] != 0).sum()) < int(below.sum())
