"""The main job: train the temporal stage, encode a corpus into latent shards, verify, evaluate action recognition.

    vidlbc pretrain-video data.root=VIDEOS out=FOLDER

VIDEOS is a folder of videos, split/class/video folders, or an annotation list. The same command resumes a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig

from vidlbc.data.annotations.lists import Columns
from vidlbc.errors import InputError
from vidlbc.pipeline import EvaluationSettings, JobSettings, TrainSettings, run_job
from vidlbc.pipeline.plan import plan_of_job
from vidlbc.run.options import Many, option, paths, required, section
from vidlbc.shards import RaySettings, require_ray
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.schedule import budget_of


@dataclass
class DataOptions:
    """`data.*`."""

    root: Many = required(
        "folder of videos, or an annotation list of any family in docs/shards.md; a pattern of such, or several: [a,b]"
    )
    labels: str | None = option(None, "annotations that lie apart from the videos")
    fold: int = option(1, "which split of UCF101 or HMDB51")
    form: str = option(
        "auto", "how the corpus is described: auto (told from content), or package.module:function of your own"
    )
    columns: Columns = section(Columns, "names of a table's columns, where they are not the usual ones")
    holdout: float = option(0.2, "a corpus without splits: the share that becomes test, by group")
    max_side: int | None = option(None, "longest side in pixels; larger videos are scaled down")
    clip_frames: int = option(256, "longer videos are cut into clips of at most this many frames")
    deadline_s: float = option(60.0, "seconds without a frame after which a file's decoder is killed")
    picture_fps: float = option(25.0, "frames a second of videos that are folders of numbered pictures")
    deinterlace: bool = option(False, "part the fields of interlaced videos in what is encoded; by PyAV alone")


@dataclass
class TrainOptions:
    """`train.*`."""

    minutes: float | None = option(
        10.0, "budget of stage 2; with steps set too, whichever ends first; both null: shipped weights as is"
    )
    steps: int | None = option(None, "the same budget in steps")
    until: str | None = option(
        None, "time of day in place of minutes: HH:MM, an ISO time, @SECONDS since the epoch, +MINUTES from the start"
    )
    start: str = option(
        "shipped",
        "what training starts from: shipped (image_stage='s own), scratch, or a model whose image stage "
        "may be another, and which may have another kind with motion",
    )
    motion: bool | str = option(
        "auto",
        "whether a stage from nothing predicts from moved pictures: auto (where the image stage's "
        "networks are known), true, false",
    )
    options: dict[str, Any] = option({}, "of a temporal stage from nothing: +train.options.NAME=VALUE")
    parts: list[str] | None = option(
        None,
        "list of what is trained of such a stage: prior, vectors, fusion, synthesis, analysis; null: the "
        "first three, or all where not all blocks of the image stage are depth-wise (large)",
    )
    rdo: bool = option(
        False, "train such a stage on symbols that are chosen for rate and distortion, as rdo=true encodes; slower"
    )
    lr: float = option(0.0005, "peak learning rate of AdamW; cosine decay")
    weight_decay: float = option(0.02, "of AdamW")
    ema: float = option(0.998, "decay of the moving average of the weights, which is what is kept")
    bf16: bool = option(False, "autocast in training (GPU)")
    tf32: bool = option(True, "matrix products and convolutions in TF32 in training (GPU)")
    seed: int = option(0, "of everything random")
    frames: int = option(6, "frames of a training clip")
    save_seconds: float = option(60.0, "between checkpoints: what a killed run loses at most")
    size: int = option(160, "pixels of its crop")
    large_size: int | None = option(
        None, "pixels of the crop of every second step, of large videos and pictures; null is size"
    )
    batch: int = option(2, "clips a step and process; torchrun: so many from each")
    pool_windows: int = option(256, "windows kept in memory")
    window_frames: int = option(24, "frames of a window, from which a clip is drawn")
    pictures: list[str] | None = option(
        None, "list of folders or patterns of still pictures: clips of a moving camera are made from them"
    )
    picture_share: float = option(0.25, "share of the training clips made so")
    steps_per_pool: int = option(
        2000, "steps before other windows are read, where a corpus has more than the pool holds"
    )
    resident: bool | str = option(
        "auto", "windows on the training device, where clips are drawn: auto (where they fit), true or false"
    )
    launch: str = option("auto", "a step as a CUDA graph: graph, eager, or auto (graph on one GPU)")
    log_every: int | None = option(None, "steps between two lines of the log; null: 100 on a GPU, else 10")
    val_seconds: float = option(
        300.0, "between validations on the val split, estimated, in the process; they take a tenth of the time at most"
    )


@dataclass
class EvalOptions:
    """`eval.*`."""

    videos: int = option(32, "test videos for rate and distortion; recognition uses all")
    frames: int = option(16, "frames of a view")
    views: int = option(2, "views of a video")
    epochs: int = option(30, "training passes of a probe, at most")
    rates: list[float] = option(
        [0.0003, 0.001, 0.003], "learning rates that are tried; the val split, or held-out groups, decide"
    )
    decays: list[float] = option([0.05, 1.0], "weight decays that are tried with each")
    pixels: bool = option(True, "the same probe on source pixels")
    decoded: bool = option(True, "the same probe on decoded frames")
    base: bool = option(False, "the probe on latents reads the base layer alone; for an image stage that has one")


@dataclass
class Options:
    """See `--help`."""

    choices: ClassVar[dict[str, str]] = {"head@eval.head": "attentive"}

    data: DataOptions = section(DataOptions)
    out: str = required("folder for everything the run makes")
    plan: bool = option(False, "only tell what would be done: labels, splits, files, about how long and how many bytes")
    image_stage: str = option("default", "shipped model or model folder; frozen")
    temporal: str = option("transformer", "transformer, lstm or none")
    qp: int = option(32, "quality, 0 (smallest) to 63 (best)")
    psnr: float | None = option(None, "dB; each clip's smallest variant and QP that reach it; null: qp for all")
    bitrate: float | None = option(
        None, "kbit/s, mean of a clip; each clip's highest QP whose file is no larger; null: qp for all"
    )
    rdo: bool | None = option(
        None,
        "symbols chosen for rate and distortion under temporal=, and blocks copied: fewer bits at equal "
        'quality, slower; figures "same symbols" then favour it; null: as an earlier run into out, else '
        "where blocks may be copied",
    )
    effort: str = option(
        "default",
        "of the search for motion and for symbols: fast, default or best; kinds that predict from moved "
        "pictures alone have one",
    )
    keyint: int = option(
        0,
        "frames from one key frame, where decoding may begin, to the next; 0: only at scene cuts; other "
        "kinds have none",
    )
    device: str = option(
        "auto",
        "auto, cpu or cuda; several GPUs or CPU processes: torchrun --nproc-per-node=N tools/pretrain_video.py ...",
    )
    precision: str = option("fp32", "of the frozen encoder's analysis: fp32 or bf16")
    processes: int = option(1, "encoding processes on this machine, with launcher=local")
    launcher: str = option("local", "who encodes the shards: local (processes here) or ray (actors on a cluster)")
    ray: RaySettings = section(RaySettings)
    wandb: bool = option(False, "log to Weights & Biases, offline unless WANDB_MODE is set")
    train: TrainOptions = section(TrainOptions)
    eval: EvalOptions = section(EvalOptions)


def settings_of(config: DictConfig) -> JobSettings:
    data, train, evaluation = config.data, config.train, config.eval
    head: dict[str, Any] = {str(name): value for name, value in evaluation.head.items()}
    grid = head.pop("grid")
    if config.launcher not in ("local", "ray"):
        raise InputError(f"launcher={config.launcher}: expected local or ray")
    if config.launcher == "ray":
        require_ray()
    budget = None
    if any(limit is not None for limit in (train.minutes, train.steps, train.until)):
        budget = budget_of(train.steps, train.minutes, train.until)
    clips = ClipSettings(
        frames=train.frames,
        size=train.size,
        batch=train.batch,
        pool_windows=train.pool_windows,
        window_frames=train.window_frames,
        steps_per_pool=train.steps_per_pool,
        max_side=data.max_side,
        picture_share=train.picture_share,
        large_size=train.large_size,
    )
    return JobSettings(
        root=paths(data.root),
        out=Path(config.out),
        image_stage=config.image_stage,
        temporal=config.temporal,
        qp=config.qp,
        psnr=config.psnr,
        bitrate=config.bitrate,
        rdo=config.rdo,
        effort=config.effort,
        keyint=config.keyint,
        device=config.device,
        precision=config.precision,
        train=TrainSettings(
            budget,
            clips,
            lr=train.lr,
            weight_decay=train.weight_decay,
            ema=train.ema,
            start=train.start,
            bf16=train.bf16,
            tf32=train.tf32,
            seed=train.seed,
            save_seconds=train.save_seconds,
            val_seconds=train.val_seconds,
            log_every=train.log_every,
            resident=str(train.resident).lower(),
            step=train.launch,
            pictures=tuple(train.pictures or ()),
            motion=str(train.motion).lower(),
            options={str(name): value for name, value in train.options.items()},
            parts=None if train.parts is None else tuple(train.parts),
            rdo=train.rdo,
        ),
        evaluation=EvaluationSettings(
            videos=evaluation.videos,
            head=head.pop("kind"),
            head_options=head,
            frames=evaluation.frames,
            views=evaluation.views,
            grid=grid,
            epochs=evaluation.epochs,
            rates=tuple(evaluation.rates or ()),
            decays=tuple(evaluation.decays or ()),
            pixels=evaluation.pixels,
            decoded=evaluation.decoded,
            base=evaluation.base,
        ),
        labels=data.labels,
        fold=data.fold,
        form=data.form,
        columns=Columns(**data.columns),
        holdout=data.holdout,
        clip_frames=data.clip_frames,
        max_side=data.max_side,
        processes=config.processes,
        launcher=config.launcher,
        ray=RaySettings(**config.ray),
        deadline_s=data.deadline_s,
        deinterlace=data.deinterlace,
        picture_fps=data.picture_fps,
        wandb=config.wandb,
    )


def main(config: DictConfig) -> None:
    settings = settings_of(config)
    if config.plan:
        print(plan_of_job(settings))
    else:
        run_job(settings)
