"""Functions as graphs: always the function's own results, whatever it is."""

import threading

import pytest
import torch
from torch import Tensor

from vidlbc.codec import traced
from vidlbc.codec.traced import Traced


@pytest.fixture(autouse=True)
def after_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "_FRAMES_BEFORE", 1)


@pytest.fixture
def python_calls() -> list[tuple[int, ...]]:
    """Shapes of the calls that ran `double` in Python."""
    return []


def doubling(calls: list[tuple[int, ...]]) -> Traced:
    def double(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(tuple(x.shape))
        return x.reshape(-1, x.shape[-1] // 2) * 2, x + y

    return Traced(double)


@torch.inference_mode()
def test_later_calls_are_one_graph_with_the_same_results(python_calls: list[tuple[int, ...]]) -> None:
    double = doubling(python_calls)
    for shape in [(2, 4), (3, 6), (2, 4), (3, 6)]:
        for _ in range(4):
            x, y = torch.randn(shape), torch.randn(shape)
            first, second = double(x, y)
            assert torch.equal(first, (2 * x).reshape(-1, shape[1] // 2))
            assert torch.equal(second, x + y)
    # Two plain calls, and two more to make and to check the graph; the other twelve ran no Python.
    assert python_calls == [(2, 4)] * 4 + [(3, 6)] * 4


def test_outside_inference_mode_nothing_is_traced(python_calls: list[tuple[int, ...]]) -> None:
    double = doubling(python_calls)
    x = torch.ones(2, 4, requires_grad=True)
    for _ in range(5):
        double(x, x)[1].sum().backward()
    assert len(python_calls) == 5
    assert torch.equal(x.grad, torch.full((2, 4), 10.0))


@torch.inference_mode()
def test_what_cannot_be_traced_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **options: object) -> None:
        raise RuntimeError("torch.jit.trace was removed")

    monkeypatch.setattr(torch.jit, "trace", absent)
    double = Traced(lambda x: x * 2)
    for _ in range(4):
        assert torch.equal(double(torch.ones(3)), torch.full((3,), 2.0))


@torch.inference_mode()
def test_a_graph_with_other_results_is_not_used() -> None:
    """A graph would fix what Python made of the first values."""
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x + calls

    count = Traced(counted)
    results = [float(count(torch.zeros(1))) for _ in range(6)]
    assert results == sorted(set(results)), "some call was answered by a graph"


@torch.inference_mode()
def test_ever_new_shapes_do_not_pile_up() -> None:
    double = Traced(lambda x: x * 2)
    for size in range(1, 60):
        for _ in range(3):
            assert torch.equal(double(torch.ones(size)), torch.full((size,), 2.0))
    assert len(double._graphs) <= traced._MOST_SHAPES


def test_threads_share_a_graph(python_calls: list[tuple[int, ...]]) -> None:
    double, wrong = doubling(python_calls), []

    @torch.inference_mode()
    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(50):
            x = torch.randn((4, 8), generator=generator)
            if not torch.equal(double(x, x)[1], x + x):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # While one made the graph the others went on without; now all use it.
    before = len(python_calls)
    work(4)
    assert not wrong and len(python_calls) == before
