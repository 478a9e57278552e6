"""What a probe found: accuracy with its interval and its denominator, and every view's logits to check it by."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidlbc.evaluate.probe.bootstrap import bootstrap_ci
from vidlbc.heads.base import Head


@dataclass(frozen=True)
class ProbeResult:
    """Outcome of `run_probe` on one input. Accuracies are fractions of the `n_videos` that could be read."""

    kind: str
    head: Head  # the refitted head, on the CPU: latents in, logits out
    keys: tuple[str, ...]  # test videos
    labels: Tensor  # (N,)
    view_logits: Tensor  # (N, V, classes)
    chosen: dict[str, float]  # rate, decay, epochs
    trials: tuple[dict[str, float], ...]  # every candidate with its top-1 and loss on the holdout
    holdout: str  # what the choice was made on
    n_train: int  # videos of the final fit
    n_holdout: int
    n_failed: int  # test files that could not be read: in no accuracy, never replaced
    parameters: int
    seconds: float
    seed: int

    @property
    def n_videos(self) -> int:
        return len(self.keys)

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of every view, averaged over a video's views: (N, classes)."""
        return video_probabilities(self.view_logits)

    @property
    def predictions(self) -> Tensor:
        return self.probabilities.argmax(dim=1)

    @cached_property
    def correct(self) -> np.ndarray:
        return (self.predictions == self.labels).double().numpy()

    @property
    def top1(self) -> float:
        return float(self.correct.mean())

    @property
    def top5(self) -> float:
        """With fewer than 5 classes: the true class is always among them."""
        best = self.probabilities.topk(min(5, self.probabilities.shape[1]), dim=1).indices
        return float((best == self.labels[:, None]).any(dim=1).double().mean())

    @property
    def mean_class(self) -> float:
        """Mean over the classes present in the test split of the accuracy on each."""
        return mean_class_accuracy(np.stack([self.labels.numpy(), self.correct], axis=1))

    @cached_property
    def ci95(self) -> tuple[float, float]:
        """95% bootstrap interval of top-1, over videos."""
        return bootstrap_ci(self.correct, seed=self.seed)

    @cached_property
    def mean_class_ci95(self) -> tuple[float, float]:
        rows = np.stack([self.labels.numpy(), self.correct], axis=1)
        return bootstrap_ci(rows, mean_class_accuracy, seed=self.seed)

    def confusion(self) -> np.ndarray:
        """Counts (true, predicted)."""
        classes = self.view_logits.shape[2]
        flat = self.labels * classes + self.predictions
        return torch.bincount(flat, minlength=classes * classes).reshape(classes, classes).numpy()

    def summary(self) -> dict[str, Any]:
        """Everything but tensors, ready for JSON."""
        return dict(
            kind=self.kind,
            top1=self.top1,
            top1_ci95=list(self.ci95),
            top5=self.top5,
            mean_class=self.mean_class,
            mean_class_ci95=list(self.mean_class_ci95),
            n_videos=self.n_videos,
            n_failed=self.n_failed,
            views=self.view_logits.shape[1],
            n_train=self.n_train,
            n_holdout=self.n_holdout,
            holdout=self.holdout,
            chosen=self.chosen,
            trials=list(self.trials),
            parameters=self.parameters,
            seconds=self.seconds,
            seed=self.seed,
        )

    def write_views(self, path: str | Path, classes: Sequence[str] | None = None) -> None:
        """One Parquet row a view: key, view, label, logits. Written under a temporary name first."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        n, views, _ = self.view_logits.shape
        table = pa.table(
            {
                "key": [key for key in self.keys for _ in range(views)],
                "view": list(range(views)) * n,
                "label": self.labels.repeat_interleave(views).tolist(),
                "logits": pa.array(self.view_logits.flatten(0, 1).tolist(), pa.list_(pa.float32())),
            }
        )
        if classes is not None:
            table = table.replace_schema_metadata({"classes": "\n".join(classes)})
        part = Path(path).with_name(Path(path).name + ".part")
        pq.write_table(table, part)
        part.replace(path)


def video_probabilities(view_logits_NVK: Tensor) -> Tensor:
    """(N, V, classes) -> (N, classes): mean of the views' softmax, in double precision."""
    return view_logits_NVK.double().softmax(dim=2).mean(dim=1)


def mean_class_accuracy(rows: np.ndarray) -> float:
    """`rows` (N, 2) of (label, correct) -> mean of the per-class accuracies, over classes present."""
    labels = rows[:, 0].astype(np.int64)
    count = np.bincount(labels)
    right = np.bincount(labels, weights=rows[:, 1])
    present = count > 0
    return float((right[present] / count[present]).mean())
