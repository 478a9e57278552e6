"""Settings of the main job, built by vidlbc.commands.pretrain_video."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidlbc.data.annotations.lists import USUAL, Columns
from vidlbc.shards import RaySettings
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.schedule import Budget


@dataclass(frozen=True)
class TrainSettings:
    """Stage 2. `budget` None: use the shipped weights as they are. `start`: shipped | scratch.

    `pictures`: sources (vidlbc.train.data.pictures) of still pictures, from which moving ones are made. `motion`:
    auto, true or false: whether a stage from nothing predicts from moved pictures; `options`: of such a stage.
    `parts` of such a stage are trained (see vidlbc.pipeline.train), None: those that the image stage has no layers
    for; `rdo`: on symbols chosen for rate and distortion.
    """

    budget: Budget | None
    clips: ClipSettings
    lr: float = 5e-4
    weight_decay: float = 0.02
    ema: float = 0.998
    start: str = "shipped"
    bf16: bool = False
    tf32: bool = True
    seed: int = 0
    save_seconds: float = 60.0
    val_seconds: float = 300.0
    log_every: int | None = None
    resident: str = "auto"
    step: str = "auto"
    pictures: tuple[str, ...] = ()
    motion: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] | None = None
    rdo: bool = False


@dataclass(frozen=True)
class EvaluationSettings:
    """`videos`: at most this many test videos for rate and distortion; recognition always uses every labelled one.

    `base`: the probe on latents reads the base layer alone (and nothing but its bytes, without `decoded`).
    """

    videos: int = 32
    head: str = "attentive"
    head_options: dict[str, object] = field(default_factory=dict)
    frames: int = 16
    views: int = 2
    grid: int = 4
    epochs: int = 30
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    decays: tuple[float, ...] = (0.05, 1.0)
    pixels: bool = True
    decoded: bool = True
    base: bool = False
    panel_frames: int = 3


@dataclass(frozen=True)
class JobSettings:
    """`psnr`, `bitrate`: see vidlbc.codec.rate_control; `rdo`: see vidlbc.codec.coding.rdo, None: where blocks may be
    copied; `launcher`: local, or ray with the settings `ray`."""

    root: str | tuple[str, ...]
    out: Path
    image_stage: str
    temporal: str
    qp: int
    device: str
    precision: str
    train: TrainSettings
    evaluation: EvaluationSettings
    labels: str | None = None
    fold: int = 1
    form: str = "auto"
    columns: Columns = USUAL
    holdout: float = 0.2
    clip_frames: int = 256
    shard_videos: int = 32
    max_side: int | None = None
    processes: int = 1
    launcher: str = "local"
    ray: RaySettings = field(default_factory=RaySettings)
    deadline_s: float = 60.0
    deinterlace: bool = False
    picture_fps: float = 25.0
    psnr: float | None = None
    bitrate: float | None = None
    rdo: bool | None = None
    effort: str = "default"
    keyint: int = 0
    wandb: bool = False

    @property
    def data(self) -> str:
        """What the corpus was read from, in words."""
        return self.root if isinstance(self.root, str) else ", ".join(self.root)

    @property
    def model(self) -> Path:
        return self.out / "model"

    @property
    def rate(self) -> str:
        """What was asked for, in words."""
        if self.psnr is not None:
            return f"{self.psnr:g} dB a clip"
        return f"qp {self.qp}" if self.bitrate is None else f"{self.bitrate:g} kbit/s a clip"

    @property
    def shards(self) -> Path:
        return self.out / "shards"
