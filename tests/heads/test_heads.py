"""Heads by contract: latents to logits, cached tokens give the same, time matters, nothing else leaks in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidlbc.errors import InputError
from vidlbc.heads import HEAD_KINDS, build_head

LEVELS = [(3, 8), (5, 16), (4, 32)]


def latents(batch: int = 2, frames: int = 6, height: int = 90, width: int = 160) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(batch, frames, c, -(-height // s), -(-width // s), generator=g) for c, s in LEVELS]


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("size", [(90, 160), (160, 90), (16, 16), (17, 500)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_any_size_and_length(kind: str, size: tuple[int, int], frames: int) -> None:
    head = build_head(kind, LEVELS, 7).eval()
    logits = head(latents(2, frames, *size))
    assert logits.shape == (2, 7) and torch.isfinite(logits).all()


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_cached_tokens_give_the_same_logits(kind: str) -> None:
    torch.manual_seed(0)
    head = build_head(kind, LEVELS, 5).eval()
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        y = latents(3)
        torch.testing.assert_close(head(y), head.classify(head.stem(y)))
        together = head(y)
        alone = torch.cat([head([level[i : i + 1] for level in y]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_reversing_time_changes_the_logits(kind: str) -> None:
    torch.manual_seed(0)
    head = build_head(kind, LEVELS, 5).eval()
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        tokens = head.stem(latents(2))
        assert (head.classify(tokens) - head.classify(tokens.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_parameter_is_trained(kind: str) -> None:
    torch.manual_seed(0)
    head = build_head(kind, LEVELS, 5).train()
    with torch.no_grad():
        for p in head.parameters():  # a classifier that starts at zero stops all gradients on the first step
            p.add_(torch.randn_like(p) * 0.01)
    head(latents(4)).square().sum().backward()
    silent = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert head.parameter_count() == sum(p.numel() for p in head.parameters())


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_state_holds_all_that_a_head_needs(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = build_head(kind, LEVELS, 5).eval()
    head.set_normalisation(torch.randn(head.stem.channels), torch.rand(head.stem.channels))
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    torch.manual_seed(9)
    other = build_head(kind, LEVELS, 5).eval()
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(head(latents()), other(latents()))


def test_constant_channels_are_left_out() -> None:
    head = build_head("linear", [(1, 8)], 3)
    head.set_normalisation(torch.zeros(3), torch.tensor([2.0, 0.0, 0.5]))
    assert head.scale.tolist() == [0.5, 0.0, 2.0]


def test_linear_head_is_linear_in_the_tokens() -> None:
    torch.manual_seed(0)
    head = build_head("linear", LEVELS, 4).eval()
    torch.nn.init.normal_(head.classifier.map.weight)
    a, b = torch.randn(2, 1, 5, head.stem.channels, 4, 4)
    mixed = head.classify(0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * head.classify(a) + 0.7 * head.classify(b), rtol=1e-3, atol=1e-3)


def test_unknown_kind_and_option() -> None:
    with pytest.raises(InputError, match="unknown head 'mlp': expected one of linear, attentive, lstm"):
        build_head("mlp", LEVELS, 3)
    with pytest.raises(InputError, match="head 'linear': .*'depth'"):
        build_head("linear", LEVELS, 3, depth=2)
    with pytest.raises(InputError, match="at least 2 classes, got 1"):
        build_head("lstm", LEVELS, 1)
