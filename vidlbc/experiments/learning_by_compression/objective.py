"""L = L_rec + lambda_enc L_enc + lambda_corr L_corr (Xie et al., Eq. 3) + rho(qp) bpp.

L_rec is r(x, x') of Eq. 2. The paper counts elements and needs no rate; here symbols are entropy-coded, so a rate term
decides how finely they are quantised. Its weight rho makes the optimum of r + rho bpp that of the codec's own loss,
bpp + lambda 255^2 D with D the mean squared error, at high rate: there an element costs bpp = -(n/2) log2 D + const
with n elements a pixel, which gives D = n / (2 ln 2 lambda 255^2); and r = c sqrt(D) (c = sqrt(2/pi) for Gaussian
errors), whose slope dr/dD = c / (2 sqrt(D)) is to be rho lambda 255^2. Hence

    rho = rate_weight / (255 sqrt(lambda(qp))),   rate_weight = c / sqrt(2 n / ln 2) ~ 0.97 for V1 (n = 0.234).
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.codec.image_stage.lbc import LBC
from vidlbc.experiments.learning_by_compression.degradation import Degradation
from vidlbc.experiments.learning_by_compression.evaluator import Evaluator, Marks
from vidlbc.experiments.learning_by_compression.losses import contrastive_loss, correlation_loss
from vidlbc.experiments.learning_by_compression.recogniser import classification_loss, task_scores
from vidlbc.experiments.learning_by_compression.schedules import Ramp
from vidlbc.train.data.mixed_data import MixedBatch
from vidlbc.train.objectives.image import code


class Learner(nn.Module):
    """What is trained: the image stage, and the heads of L_enc on f's coarsest features, which are thrown away."""

    def __init__(self, stage: LBC, classes: tuple[int, ...] = (), embedding: int = 64):
        """`classes`: of each task; `embedding`: vector length of the contrastive projection."""
        super().__init__()
        self.stage = stage
        width = stage.project[-1].in_channels
        assert isinstance(width, int)
        self.heads = nn.ModuleList([nn.Linear(width, count) for count in classes])
        self.view = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, embedding))


@dataclass(frozen=True)
class LossWeights:
    """lambda_enc and lambda_corr of Eq. 3 over the run, and rate_weight of the module's formula.

    `distance[d - 1]`: weight of the correlation between levels d apart; it joins once the share `join[d - 1]` of the
    run is over, neighbouring levels first.
    """

    enc: Ramp = Ramp(0.05, 0.0)
    corr: Ramp = Ramp(0.1, 0.0)
    rate: float = 1.0
    distance: tuple[float, ...] = (1.0, 0.5, 0.25)
    join: tuple[float, ...] = (0.0, 0.15, 0.3)
    temperature: float = 0.2

    def of_distances(self, progress: float) -> list[float]:
        return [w if progress >= join else 0.0 for w, join in zip(self.distance, self.join, strict=True)]


def rate_price(qp: Tensor, rate_weight: float) -> Tensor:
    """rho(qp) of the module: (B,) -> (B,), in units of r for each bit a pixel."""
    return rate_weight / (255 * qp_lambda(qp).sqrt())


@dataclass(frozen=True)
class CompressionLoss:
    """Eq. 3 on one batch. `progress`: share of the whole run that is over, from which all ramps are read."""

    evaluator: Evaluator
    weights: LossWeights = field(default_factory=LossWeights)
    degradation: Degradation = field(default_factory=Degradation)
    seed: int = 0

    def __call__(
        self, learner: Learner, batch: MixedBatch, kept: tuple[int, ...], step: int, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """`kept`: channels kept of each level, encoder and decoder alike; `step` seeds the degradations."""
        stage = learner.stage
        degraded = self.degradation(batch.frames, seed=2 * (self.seed * 1_000_003 + step))
        target = batch.frames if self.degradation.recover else degraded
        features = stage.features(stage.pad(degraded))
        latents = stage.projected(features)
        coded = code(stage, latents, batch.qp, kept)
        height, width = target.shape[-2:]
        decoded = stage.synthesis(coded.latents, batch.qp)[..., :height, :width].float()
        marks = Marks(batch.label, batch.weight, batch.task)
        parts = self.evaluator.parts(target, decoded, marks, progress)
        recovery = sum(parts.values(), start=decoded.new_zeros(len(decoded)))
        bpp = coded.bits / (height * width)
        loss = (recovery + rate_price(batch.qp, self.weights.rate) * bpp).mean()
        mse = (decoded.detach().clamp(0, 1) - target).square().mean((1, 2, 3)).clamp_min(1e-10)
        figures = {name: float(part.detach().mean()) for name, part in parts.items()}
        figures |= {
            "rq": float(-recovery.detach().clamp_min(1e-6).log().mean()),
            "bpp": float(bpp.detach().mean()),
            "psnr": float(-10 * mse.log10().mean()),
        }
        if (share := self.weights.enc.at(progress)) > 0:
            encoding = self._encoding(learner, batch, features[-1], step)
            loss = loss + share * encoding
            figures["enc"] = float(encoding.detach())
        if (share := self.weights.corr.at(progress)) > 0:
            alive = [y[:, :k] for y, k in zip(latents, kept, strict=True)]
            correlation = correlation_loss(alive, self.weights.of_distances(progress))
            loss = loss + share * correlation
            figures["corr"] = float(correlation.detach())
        return loss, figures

    def _encoding(self, learner: Learner, batch: MixedBatch, features: Tensor, step: int) -> Tensor:
        """L_enc: cross-entropy where a label is, contrast of two degraded views where none is, by their shares."""
        pooled = features.float().mean((2, 3))
        free = batch.label < 0
        unlabelled = float(free.float().mean())
        total = pooled.new_zeros(())
        if len(learner.heads):
            scores = task_scores(learner.heads, pooled, batch.task)
            total = total + (1 - unlabelled) * classification_loss(scores, batch.label, batch.weight)
        if int(free.sum()) > 1:
            second = self.degradation(batch.frames[free], 2 * (self.seed * 1_000_003 + step) + 1, share=1.0)
            other = learner.stage.features(learner.stage.pad(second))[-1].float().mean((2, 3))
            views = learner.view(pooled[free]), learner.view(other)
            total = total + unlabelled * contrastive_loss(*views, self.weights.temperature)
        return total
