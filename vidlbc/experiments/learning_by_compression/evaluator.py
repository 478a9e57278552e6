"""The evaluator of recovery quality, r(x, x') = w(x, x')^T |p(x) - p'(x')| (Xie et al., Eq. 2).

p is a list of proxies; each gives the mean of |p_i(x) - p_i(x')| over its own terms, one number a frame, so that a
weight means the same whatever the size of a proxy's output. p' is p. The weights are ramps over the run: the paper's
curriculum gives them to the patch statistics first and leans towards the semantic part (section 3.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.experiments.learning_by_compression.recogniser import Recogniser
from vidlbc.experiments.learning_by_compression.schedules import Ramp


@dataclass(frozen=True)
class Marks:
    """What is known of a batch: class or -1, how far to trust it (0 to 1), and whose classes they are; (B,) each."""

    label: Tensor
    weight: Tensor
    task: Tensor

    @classmethod
    def none(cls, batch: int, device: torch.device | str = "cpu") -> "Marks":
        unlabelled = torch.full((batch,), -1, device=device)
        return cls(unlabelled, torch.zeros(batch, device=device), torch.zeros_like(unlabelled))


class Proxy:
    """p_i of Eq. 2."""

    name = ""

    def __call__(self, x: Tensor, decoded: Tensor, marks: Marks) -> Tensor:
        """Mean |p_i(x) - p_i(x')| of each frame: (B, 3, H, W) twice, in [0, 1] -> (B,)."""
        raise NotImplementedError


class Pixels(Proxy):
    """p(x) = x: mean absolute error of RGB in [0, 1]."""

    name = "pixel"

    def __call__(self, x: Tensor, decoded: Tensor, marks: Marks) -> Tensor:
        return (x - decoded).abs().mean((1, 2, 3))


class PatchStatistics(Proxy):
    """Mean and standard deviation of every patch and colour, for square patches of each of `sizes` pixels.

    The paper names mean and variance. The deviation says the same and is in the units of the mean: differences of
    variances are some hundred times smaller and nearly all come from the few patches of highest contrast.
    """

    name = "patch"
    # Keeps the root's gradient finite in flat patches: a hundredth of a grey level of 8 bits.
    _FLOOR = (0.01 / 255) ** 2

    def __init__(self, sizes: tuple[int, ...] = (4, 8)):
        self.sizes = sizes

    def statistics(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> mean and deviation, (B, 3, H // size, W // size) each."""
        mean = F.avg_pool2d(x, size)
        # Around each patch's mean: the difference of large squares would lose digits in bright, flat patches.
        height, width = (n * size for n in mean.shape[-2:])
        centred = x[..., :height, :width] - F.interpolate(mean, scale_factor=size, mode="nearest")
        return mean, (F.avg_pool2d(centred.square(), size) + self._FLOOR).sqrt()

    def __call__(self, x: Tensor, decoded: Tensor, marks: Marks) -> Tensor:
        terms = []
        for size in self.sizes:
            pairs = zip(self.statistics(x, size), self.statistics(decoded, size), strict=True)
            terms += [(a - b).abs().mean((1, 2, 3)) for a, b in pairs]
        return torch.stack(terms).mean(0)


class Semantics(Proxy):
    """Features and class scores of a frozen recogniser; all-zero for a frame without label, scaled by its trust.

    Half is the mean absolute difference of the normalised feature maps over three strides, half that of the class
    probabilities (total variation distance, 0 to 1).
    """

    name = "semantic"

    def __init__(self, recogniser: Recogniser):
        self.recogniser = recogniser.eval().requires_grad_(False)

    def __call__(self, x: Tensor, decoded: Tensor, marks: Marks) -> Tensor:
        known = (marks.label >= 0).nonzero()[:, 0]
        out = x.new_zeros(len(x))
        if not len(known):
            return out
        with torch.no_grad():
            features, scores = self.recogniser(x[known], marks.task[known])
        seen, guessed = self.recogniser(decoded[known], marks.task[known])
        parts = [(a - b).abs().mean((1, 2, 3)) for a, b in zip(features, seen, strict=True)]
        distance = 0.5 * (scores.softmax(1) - guessed.softmax(1)).abs().sum(1)
        value = 0.5 * torch.stack(parts).mean(0) + 0.5 * distance
        return out.index_put((known,), value * marks.weight[known])


class Evaluator:
    """r(x, x'): a weighted sum of proxies, the weights being ramps over the run, one a proxy's name."""

    def __init__(self, proxies: tuple[Proxy, ...], weights: Mapping[str, Ramp]):
        """Proxies without a weight are left out; raises ValueError where a weight has no proxy."""
        strange = set(weights) - {proxy.name for proxy in proxies}
        if strange:
            raise ValueError(f"weights for {', '.join(sorted(strange))}, which no proxy is called")
        self.proxies = tuple(proxy for proxy in proxies if proxy.name in weights)
        self.weights = dict(weights)

    def __call__(self, x: Tensor, decoded: Tensor, marks: Marks, progress: float = 1.0) -> Tensor:
        """(B, 3, H, W) twice -> r, (B,). `progress` 1: the weights at the end of the run, which RQ is measured with."""
        return sum(self.parts(x, decoded, marks, progress).values(), start=x.new_zeros(len(x)))

    def parts(self, x: Tensor, decoded: Tensor, marks: Marks, progress: float = 1.0) -> dict[str, Tensor]:
        """The weighted share of each proxy, (B,) each; those whose weight is 0 at this time are not computed."""
        weights = {proxy.name: self.weights[proxy.name].at(progress) for proxy in self.proxies}
        return {p.name: weights[p.name] * p(x, decoded, marks) for p in self.proxies if weights[p.name] > 0}
