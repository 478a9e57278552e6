"""Settings of the scalable study."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidlbc.codec.inputs import check_qp
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.scalable.objective import TaskStrength
from vidlbc.experiments.scalable.task import TaskSettings
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.loop import LoopSettings
from vidlbc.train.schedule import Budget

PHASES = ("base", "enhancement", "alone", "evaluate")
ANCHORS = {"alone": "stand-alone", "alone_hyper": "stand-alone, hyper-latent only"}


@dataclass(frozen=True)
class PartSettings:
    """Budget and optimiser of one training."""

    steps: int
    lr: float = 1e-3
    ema: float = 0.995
    weight_decay: float = 0.01

    def loop(self, seed: int) -> LoopSettings:
        return LoopSettings(
            Budget(steps=self.steps),
            lr=self.lr,
            ema=self.ema,
            weight_decay=self.weight_decay,
            seed=seed,
            log_every=20,
            save_seconds=60.0,
        )


@dataclass(frozen=True)
class ScalableSettings:
    """`actions`: labelled clips, for the task and the figures; `pictures`: what the enhancement is trained on.

    `stage`: options of the family `scalable`, without `layers`. `head_steps`: see BaseLoss. `eval_frames`: of a test
    clip, evenly spread; `eval_clips`: at most so many test clips (None: all). `alone_steps`: of each stand-alone codec;
    None gives it those of a base and of an enhancement together, since the scalable codec's networks had both.
    """

    actions: Path
    pictures: tuple[PictureSource, ...]
    out: Path
    stage: dict[str, Any] = field(default_factory=dict)
    phases: tuple[str, ...] = PHASES
    betas: tuple[float, ...] = (0.0, 0.01)
    clips: ClipSettings = field(default_factory=ClipSettings)
    cache: Path | None = None
    task: TaskSettings = field(default_factory=TaskSettings)
    strength: TaskStrength = field(default_factory=TaskStrength)
    head_steps: int = 400
    crops: CropSettings = field(default_factory=lambda: CropSettings(max_side=256))
    base: PartSettings = field(default_factory=lambda: PartSettings(1100, lr=1.5e-3, ema=0.99, weight_decay=0.05))
    enhancement: PartSettings = field(default_factory=lambda: PartSettings(1600, lr=1.5e-3))
    alone_steps: int | None = None
    seed: int = 0
    eval_qps: tuple[int, ...] = (8, 24, 40, 56)
    eval_frames: int = 6
    eval_clips: int | None = None

    def __post_init__(self) -> None:
        for phase in self.phases:
            if phase not in PHASES:
                raise InputError(f"phases: unknown {phase!r}, expected some of {', '.join(PHASES)}")
        if not self.betas or min(self.betas) < 0 or len(set(self.betas)) != len(self.betas):
            raise InputError(f"betas={list(self.betas)}: expected different numbers of at least 0")
        for qp in self.eval_qps:
            check_qp(qp)
        if self.eval_frames < 1 or (self.eval_clips is not None and self.eval_clips < 1):
            raise InputError(f"eval.frames={self.eval_frames}, eval.clips={self.eval_clips}: expected at least 1")
        if self.crops.size < 16 or self.crops.size % 16 or self.crops.batch < 1:
            wrong = f"enhancement.size={self.crops.size}, enhancement.batch={self.crops.batch}"
            raise InputError(f"{wrong}: expected a multiple of 16, and at least 1")

    @property
    def alone(self) -> PartSettings:
        """Of each stand-alone codec."""
        steps = self.base.steps + self.enhancement.steps if self.alone_steps is None else self.alone_steps
        return replace(self.enhancement, steps=steps)

    def folder(self, part: str, beta: float | None = None) -> Path:
        """Of `base` or `both` at a beta, or of `alone`."""
        return self.out / (part if beta is None else f"{part}_{beta:g}")
