"""Dense tasks from an inherited f and g: boundaries, and super-resolution (Xie et al., arXiv 2105.13978, section 3.4).

    picture --f--> latents --g with a new last layer--> boundary map        class-balanced cross-entropy
    picture --down, up--> degraded --f--> latents --g--> picture            squared error

Both tasks: `run(contestant, folder)` trains (the same call resumes) and gives the figures of one row,
`baseline(folder)` those of a method without learning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.evaluate import bootstrap_ci
from vidlbc.experiments.figures import save_picture
from vidlbc.experiments.transfer.matching import boundary_score, f_measure, match_counts, thin
from vidlbc.experiments.transfer.pictures import crops_of, degrade, klt_pictures
from vidlbc.experiments.transfer.start import Contestant, EncoderDecoder, starting_stage
from vidlbc.run.options import given, option
from vidlbc.train.loop import LoopSettings
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train
from vidlbc.video.distortion import psnr

Pictures = Sequence[NDArray[np.uint8]]
SHOWN = 3


@dataclass(frozen=True)
class DenseSettings:
    """Training of every contestant of a task. `quantise`: a QP whose gains round the latents, or None."""

    batch: int = given("crops a step")
    size: int = given("pixels of a crop's side")
    steps: int = option(400, "of every row")
    lr: float = option(0.001, "peak learning rate of AdamW; cosine decay")
    weight_decay: float = option(0.01, "of AdamW")
    ema: float = option(0.99, "decay of the moving average of the weights, which is what is kept")
    quantise: int | None = option(None, "QP 0..63 whose gains round the latents; null leaves them as they are")
    seed: int = option(0, "of everything random")

    def loop(self) -> LoopSettings:
        return LoopSettings(
            Budget(steps=self.steps),
            lr=self.lr,
            weight_decay=self.weight_decay,
            ema=self.ema,
            warmup=0.05,
            seed=self.seed,
            log_every=max(1, min(20, self.steps // 5)),
        )


class BoundaryTask:
    """Pictures are uint8 (H, W, 4): RGB and the mean of the annotators' boundaries."""

    name = "boundaries"

    def __init__(self, model: str, training: Pictures, test: Pictures, settings: DenseSettings):
        self.model, self.training, self.test, self.settings = model, training, test, settings

    def run(self, contestant: Contestant, folder: Path) -> dict[str, Any]:
        network, figures = _fit(self, contestant, folder, outputs=1, objective=balanced_cross_entropy)

        def predict(frames: Tensor) -> Tensor:
            return network(frames).sigmoid()

        return figures | self._measure(predict, folder)

    def baseline(self, folder: Path) -> dict[str, Any]:
        """Sobel gradients of the blurred luminance, over the largest of the picture."""
        return self._measure(gradient_magnitude, folder)

    @torch.no_grad()
    def _measure(self, predict: Callable[[Tensor], Tensor], folder: Path) -> dict[str, Any]:
        counts = []
        for index, picture in enumerate(self.test):
            map_ = predict(_tensor(picture[..., :3]))[0, 0]
            counts.append(match_counts(thin(map_).numpy(), picture[..., 3] / 255))
            if index < SHOWN:
                save_picture(folder / f"shown_{index}.png", (map_.numpy() * 255).round().astype(np.uint8))
        score = boundary_score(counts)
        interval = bootstrap_ci(np.stack(counts), lambda some: float(f_measure(some.sum(0)).max()), draws=500)
        return {
            "ods": score.ods,
            "ods_ci95": interval,
            "ods_threshold": score.ods_threshold,
            "ois": score.ois,
            "ap": score.ap,
            "pictures": len(counts),
        }

    def shown(self) -> dict[str, list[NDArray]]:
        """What frames the predictions in a figure."""
        return {
            "input": [p[..., :3] for p in self.test[:SHOWN]],
            "annotators": [p[..., 3] for p in self.test[:SHOWN]],
        }


class ResolutionTask:
    """Pictures are uint8 (H, W, 3). Test sets by name; PSNR over RGB of 8-bit pictures, no border cut off."""

    name = "super_resolution"

    def __init__(
        self, model: str, training: Pictures, test: dict[str, list[NDArray]], scale: int, settings: DenseSettings
    ):
        self.model, self.training, self.test, self.scale, self.settings = model, training, test, scale, settings

    def run(self, contestant: Contestant, folder: Path) -> dict[str, Any]:
        def objective(network: nn.Module, frames: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
            mse = (network(degrade(frames, self.scale)) - frames).square().mean()
            return mse, {"psnr": float(-10 * mse.detach().log10())}

        network, figures = _fit(self, contestant, folder, outputs=3, objective=objective)
        return figures | self._measure(network, folder)

    def baseline(self, folder: Path) -> dict[str, Any]:
        """The degraded input: bicubic interpolation."""
        return self._measure(lambda degraded: degraded, folder)

    @torch.no_grad()
    def _measure(self, restore: Callable[[Tensor], Tensor], folder: Path) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for name, pictures in self.test.items():
            values, gains = [], []
            for index, picture in enumerate(pictures):
                degraded = degrade(_tensor(picture), self.scale)
                restored = _picture(restore(degraded))
                values.append(float(psnr(restored[None], picture[None])[0]))
                gains.append(values[-1] - float(psnr(_picture(degraded)[None], picture[None])[0]))
                if index < SHOWN and name == next(iter(self.test)):
                    save_picture(folder / f"shown_{index}.png", restored)
            figures[name] = {
                "psnr": float(np.mean(values)),
                "gain": float(np.mean(gains)),
                "gain_ci95": bootstrap_ci(gains),
                "pictures": len(values),
            }
        return figures

    def shown(self) -> dict[str, list[NDArray]]:
        """What frames the predictions in a figure."""
        pictures = next(iter(self.test.values()))[:SHOWN]
        return {"input": [_picture(degrade(_tensor(p), self.scale)) for p in pictures], "truth": list(pictures)}


def balanced_cross_entropy(network: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
    """Class-balanced cross-entropy (Xie and Tu, arXiv 1504.06375, Eq. 2), truth weighted by the annotators' agreement.

    `batch` (B, 4, S, S): RGB and the mean m of the annotators' boundaries. A pixel counts as boundary with weight m,
    and as no boundary where nobody drew one; both classes weigh the same in sum.
    """
    logits, truth = network(batch[:, :3])[:, 0], batch[:, 3]
    nobody = (truth == 0).float()
    positive = -(truth * F.logsigmoid(logits)).sum() / truth.sum().clamp_min(1)
    negative = -(nobody * F.logsigmoid(-logits)).sum() / nobody.sum().clamp_min(1)
    return (positive + negative) / 2, {"positive": float(positive.detach()), "negative": float(negative.detach())}


def gradient_magnitude(frames: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W) in [0, 1]."""
    grey = F.avg_pool2d(F.pad(frames.mean(1, keepdim=True), (2,) * 4, mode="replicate"), 5, 1)
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    edges = F.conv2d(F.pad(grey, (1,) * 4, mode="replicate"), torch.stack([sobel, sobel.T])[:, None])
    size = edges.square().sum(1, keepdim=True).sqrt()
    return size / size.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)


def _fit(
    task: "BoundaryTask | ResolutionTask", contestant: Contestant, folder: Path, outputs: int, objective: Any
) -> tuple[EncoderDecoder, dict[str, Any]]:
    s = task.settings
    stage = starting_stage(contestant, task.model, lambda: klt_pictures(task.training, s.size, s.seed), s.seed)
    torch.manual_seed(s.seed)
    network = EncoderDecoder(stage, contestant, outputs, s.quantise)
    crops = crops_of(task.training, s.size, s.batch, s.seed)
    outcome = train(f"{task.name} {contestant}", network, objective, lambda step: crops(step)[0], s.loop(), folder)
    return network, {"steps": outcome.steps, "seconds": round(outcome.seconds, 1)}


def _tensor(picture: NDArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255


def _picture(frames: Tensor) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = (frames[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return out
