"""Training of probes on cached tokens: all members of the hyper-parameter grid see the same batches.

Learning rate is constant and the weights that count are a running mean (EMA) of the trained ones, which does what a
decay to zero does and can be read at any epoch: so the number of epochs is chosen for free, from one run.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidlbc.errors import InputError
from vidlbc.evaluate.probe.features import FeatureSet
from vidlbc.heads.base import Head


@dataclass(frozen=True)
class ProbeBudget:
    """What a probe may spend; the same for every input that is compared. In epochs, not seconds: results repeat."""

    epochs: int = 16
    batch: int = 32
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    decays: tuple[float, ...] = (0.05, 1.0)
    checkpoints: int = 4  # epochs at which the holdout is read: epochs / checkpoints, 2 epochs / checkpoints, ...
    ema: float = 0.97
    label_smoothing: float = 0.1
    mixup: float = 0.2
    frame_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not 1 <= self.checkpoints <= self.epochs:
            raise InputError(
                f"a probe's budget needs epochs, batch and checkpoints of at least 1 and no more checkpoints than "
                f"epochs, got {self.epochs}, {self.batch} and {self.checkpoints}"
            )
        if not self.rates or not self.decays:
            raise InputError("a probe's budget needs at least one learning rate and one weight decay")

    @property
    def checkpoint_epochs(self) -> tuple[int, ...]:
        return tuple(round(self.epochs * (i + 1) / self.checkpoints) for i in range(self.checkpoints))

    @property
    def members(self) -> tuple[tuple[float, float], ...]:
        """(learning rate, weight decay) of each member of the grid."""
        return tuple((r, d) for r in self.rates for d in self.decays)


@contextmanager
def one_thread() -> Iterator[None]:
    """Steps are small, so threads gain little, wait for each other on a busy machine, and would make the result
    depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normalise(head: Head, data: FeatureSet) -> None:
    """Give the head the mean and deviation of every token channel over the training views."""
    channels = data.tokens.shape[3]
    total, square, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for clip in data.tokens:  # clip by clip: the whole set in double precision would be four times the cache
        x = clip.float().movedim(2, 0).flatten(1)
        total += x.sum(1).double()
        square += x.square().sum(1).double()
        count += x.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    head.set_normalisation(mean.float(), std.float())


def fit_members(
    heads: Sequence[Head],
    members: Sequence[tuple[float, float]],
    data: FeatureSet,
    budget: ProbeBudget,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int, list[Head]], None] | None = None,
) -> list[Head]:
    """Train every head with its (rate, decay) on the same batches; returns the averaged heads.

    `on_epoch(epoch, averaged heads)` is called after each epoch, counted from 1.
    """
    averaged = [copy.deepcopy(h).eval().requires_grad_(False) for h in heads]
    optimisers = [
        torch.optim.AdamW(h.parameters(), lr=rate, weight_decay=decay)
        for h, (rate, decay) in zip(heads, members, strict=True)
    ]
    rng = torch.Generator().manual_seed(seed)
    step = 0
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator: seed it, and leave it as it was
        torch.manual_seed(seed)
        for epoch in range(1, epochs + 1):
            for tokens, target in batches(data, heads[0].num_classes, budget, rng):
                tokens, target = tokens.to(device), target.to(device)
                step += 1
                decay = min(budget.ema, step / (step + 9.0))
                for head, mean, optimiser in zip(heads, averaged, optimisers, strict=True):
                    head.train()
                    optimiser.zero_grad(set_to_none=True)
                    F.cross_entropy(head.classify(tokens), target, label_smoothing=budget.label_smoothing).backward()
                    optimiser.step()
                    for a, b in zip(mean.parameters(), head.parameters(), strict=True):
                        a.lerp_(b.detach(), 1.0 - decay)
            if on_epoch is not None:
                on_epoch(epoch, averaged)
    return averaged


def batches(
    data: FeatureSet, num_classes: int, budget: ProbeBudget, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch: every video once, one of its views at random, mixed in pairs. (tokens, class probabilities).

    Augmentations act on tokens, so they are the same for latents and pixels: a random view (temporal jitter), frames
    replaced by their predecessor, mixup. There is no flip: latents of a learned codec have none.
    """
    order = torch.randperm(len(data), generator=rng)
    for at in order.split(budget.batch):
        view = torch.randint(data.views, (len(at),), generator=rng)
        tokens = data.tokens[at, view].float()
        target = F.one_hot(data.labels[at], num_classes).float()
        if budget.frame_dropout > 0 and tokens.shape[1] > 1:
            tokens = hold_frames(tokens, budget.frame_dropout, rng)
        if budget.mixup > 0:
            other = torch.randperm(len(at), generator=rng)
            # Beta(a, a) as a ratio of two gammas, drawn from the run's own generator.
            pair = torch._standard_gamma(torch.full((2, len(at)), budget.mixup), generator=rng)
            share = pair[0] / pair.sum(0).clamp_min(1e-12)
            tokens = torch.lerp(tokens[other], tokens, share[:, None, None, None, None])
            target = torch.lerp(target[other], target, share[:, None])
        yield tokens, target


def hold_frames(tokens_BTCGG: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Replace frames, each with `probability`, by the last one kept before them; the order of time stays."""
    b, t = tokens_BTCGG.shape[:2]
    kept = torch.rand(b, t, generator=rng) >= probability
    kept[:, 0] = True
    source = torch.where(kept, torch.arange(t), torch.zeros((), dtype=torch.long)).cummax(dim=1).values
    return tokens_BTCGG[torch.arange(b)[:, None], source]


@torch.no_grad()
def view_logits(head: Head, data: FeatureSet, device: torch.device | str = "cpu", batch: int = 64) -> Tensor:
    """Logits of every view of every video, each computed exactly once: (N, V, classes), on the CPU."""
    head.eval()
    flat = data.tokens.flatten(0, 1)
    logits = torch.cat([head.classify(part.to(device)).float().cpu() for part in flat.split(batch)])
    return logits.unflatten(0, (len(data), data.views))
