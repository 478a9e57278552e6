"""What moved kinds compute is exact, as tests/codec/test_exactness.py asks of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.codec.small_models import large_symbols, noisy_frames
from tests.codec.test_exactness import on_grid
from vidlbc.codec.bitstream import Reader
from vidlbc.codec.coding.moved_encoding import MovedChooser
from vidlbc.codec.coding.moving import Past, no_motion
from vidlbc.codec.motion.field import LIMIT
from vidlbc.codec.motion.prior import passes_of
from vidlbc.codec.prior.grid import DepthwiseConv, Linear, RMSNorm
from vidlbc.codec.temporal_stage.moved import TimeReader
from vidlbc.errors import InputError

KINDS = ("lstm", "transformer")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("large", [False, True])
def test_whatever_enters_a_layer_is_on_the_grid(wandering, moved_codec, kind: str, large: bool) -> None:
    """Symbols as large as they get drive a frame's picture and the moved one further apart than the grid reaches."""
    codec, seen, off = moved_codec(kind), set(), set()
    layers = {
        name: layer
        for part, prefix in ((codec.temporal, ""), (codec._priors.intra, "intra."))
        for name, layer in part.named_modules(prefix=prefix)
        if isinstance(layer, Linear | DepthwiseConv | RMSNorm)
    }

    def look(name: str) -> Callable[[torch.nn.Module, tuple[Tensor]], None]:
        def hook(layer: torch.nn.Module, inputs: tuple[Tensor]) -> None:
            seen.add(name)
            if inputs[0].numel() and not on_grid(inputs[0]):
                off.add(name)

        return hook

    for name, layer in layers.items():
        layer.register_forward_pre_hook(look(name))
    symbols = large_symbols(codec, 3, 80, 80) if large else codec.analyse(noisy_frames(3, 80, 80), 61)
    codec.symbols(codec.compress_symbols(symbols, 61, 80, 80)[0])
    assert not off
    # What is never called: the finest level has nothing that takes in its symbols.
    assert {name for name in layers.keys() - seen if "embed.0" not in name} == set()


def test_vectors_as_far_apart_as_they_get_are_symbols(moved_codec, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = moved_codec("lstm")

    def search(self: MovedChooser, picture: Tensor, past: Past, displaced: Tensor | None) -> Tensor:
        before = past.field
        odd = torch.arange(before.shape[1])[:, None] + torch.arange(before.shape[2])
        return (odd % 2 * 4 - 2)[None, ..., None].int() * LIMIT * torch.ones_like(before)

    monkeypatch.setattr(MovedChooser, "search", search)
    symbols = codec.analyse(noisy_frames(3, 32, 32), 30)
    data = codec.compress_symbols(symbols, 30, 32, 32)[0]
    assert all(torch.equal(a, b) for a, b in zip(codec.padded_symbols(data), symbols, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about what it leaves alone
def test_compilers_leave_vectors_alone(moved_codec) -> None:
    priors, graphs = moved_codec("lstm")._priors, []

    def compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    still = no_motion(priors, Reader(moved_codec("lstm").compress(noisy_frames(1, 32, 32))).header)

    def step(qp: Tensor) -> Tensor:
        means = []

        def code(asked, kind, truth, mask):
            means.append(asked.mean[..., kind].sum())
            return truth

        priors.vectors(qp, still, code, still)
        return torch.stack(means) * 3

    qp = torch.tensor([35])
    with torch.inference_mode():
        assert torch.equal(torch.compile(step, backend=compiler)(qp), step(qp))
    assert sum(any(word in name for word in ("mul", "linear")) for name in graphs) == 1, graphs  # the test's own


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 3), (6, 10), (9, 5)])
def test_every_block_has_one_pass_and_neighbours_of_earlier_ones(size: tuple[int, int]) -> None:
    known: set[int] = set()
    for here, around, valid in passes_of(*size):
        assert {int(i) for i in around[valid]} <= known
        assert not known & set(here.tolist()) and len(set(here.tolist())) == len(here)
        known |= set(here.tolist())
    assert known == set(range(size[0] * size[1]))


def test_attention_along_time_needs_equal_heads() -> None:
    TimeReader(40, 3)
    for width in (8, 33):
        with pytest.raises(InputError, match=f"prior width {width}: attention needs 16 or more, in equal heads"):
            TimeReader(width, 3)
