"""A video decoder for a frozen model, from videos to a model folder. vidlbc pretrain-decoder runs it.

check --> OUT = copy of the model --> fit --> OUT/video_decoder --> PSNR with and without it on validation videos

OUT/                   the whole model: vidlbc.load(OUT, refine=True), decode.py model=OUT refine=true
OUT/training/          request, checkpoint, log: the same command resumes
OUT/metrics.json       written last
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidlbc.codec import models
from vidlbc.codec.inputs import check_qp, pick_device
from vidlbc.codec.load import load
from vidlbc.codec.refinement import VideoDecoder
from vidlbc.data.corpus import is_video
from vidlbc.errors import InputError
from vidlbc.run import distributed
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.progress import progress_bar
from vidlbc.run.request import keep_request
from vidlbc.run.tables import format_table
from vidlbc.run.wandb_log import start_wandb
from vidlbc.train.data.clip_reading import read_clips, whole_clips
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures
from vidlbc.train.data.video_data import ClipSettings
from vidlbc.train.image_validation import spread
from vidlbc.train.loop import LoopSettings, Outcome
from vidlbc.train.objectives.refinement import RefinementDistortion
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train
from vidlbc.video.distortion import psnr

_MULTIPLE = 32


@dataclass(frozen=True)
class DecoderJobSettings:
    """`options`: of the network; `val`: videos to measure at the end, `eval_frames` of each at `eval_qps`."""

    model: str
    train: tuple[PictureSource, ...]
    out: Path
    budget: Budget
    options: dict[str, Any] = field(default_factory=dict)
    clips: ClipSettings = field(default_factory=lambda: ClipSettings(size=96, batch=4, max_side=352))
    lr: float = 2e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    motion: float = 0.1
    cuts: float = 0.15
    bf16: bool = False
    seed: int = 0
    val: tuple[PictureSource, ...] = ()
    eval_qps: tuple[int, ...] = (8, 20, 32, 44, 56)
    eval_videos: int = 12
    eval_frames: int = 24
    device: str = "auto"
    wandb: bool = False
    log_every: int = 20
    save_seconds: float = 60.0


@dataclass(frozen=True)
class Gain:
    """Means over `videos` at one QP, in dB: PSNR of frames decoded alone and refined; what the first frames gain."""

    qp: int
    videos: int
    psnr: float
    psnr_refined: float
    gain_first: float


def run_decoder_job(settings: DecoderJobSettings) -> dict[str, Any] | None:
    """Run or resume; the figures of metrics.json, or None on ranks other than 0.

    Raises InputError for whatever stands in the way, before the first step; VidlbcError where training diverges.
    """
    device = pick_device(settings.device)
    with distributed.group(device):
        folder, files, val = _check(settings)
        image = models.load_image_stage(folder / "image_stage")
        torch.manual_seed(settings.seed)
        decoder = models.build_video_decoder(image.stage, **settings.options)
        request = _request(settings, files, image)
        keep_request(settings.out / "training" / "request.json", request, settings.out, distributed.rank() == 0)
        if distributed.rank() == 0:
            _keep_model(folder, settings.out)
        outcome = _fit(settings, image, decoder, files, device)
        figures = None
        if distributed.rank() == 0:
            models.save_video_decoder(decoder.cpu(), settings.out / "video_decoder", settings.options, image.digest)
            figures = _report(settings, outcome, val)
        distributed.barrier()  # no process ends while another may still fail
    return figures


def _check(settings: DecoderJobSettings) -> tuple[Path, list[Path], list[Path]]:
    """The model's folder, training files and validation videos."""
    for qp in settings.eval_qps:
        check_qp(qp)
    clips = settings.clips
    if clips.batch < 1 or clips.frames < 2 or clips.size < _MULTIPLE or clips.size % _MULTIPLE:
        wrong = f"train.batch={clips.batch}, train.frames={clips.frames}, train.size={clips.size}"
        raise InputError(f"{wrong}: expected at least 1, at least 2 and a multiple of {_MULTIPLE}")
    folder = models.find_model(settings.model)
    if (settings.out / "image_stage").is_dir() and folder.resolve() == settings.out.resolve():
        raise InputError(f"out={settings.out} is the model itself: choose another out=, which becomes a copy of it")
    files = find_files(settings.train)
    val = [path for path in find_files(settings.val, "val") if is_video(path.name)] if settings.val else []
    if not any(is_video(path.name) for path in files):
        raise InputError("data.train holds no video: frames of still pictures alone do not show how videos move")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={settings.out}: cannot make the folder ({error.strerror})") from None
    return folder, files, val


def _request(settings: DecoderJobSettings, files: Sequence[Path], image: models.ImageModel) -> dict[str, Any]:
    """What decides the weights, by the names of the options. The budget may be raised to go on with a run."""
    clips = asdict(settings.clips)
    clips["batch"] *= distributed.world()
    named: dict[str, Any] = {
        "model": settings.model,
        "image stage": image.digest.hex(),
        "video_decoder": settings.options,
        "data.train": [asdict(source) for source in settings.train],
        "training files": hashlib.sha256("\n".join(map(str, files)).encode()).hexdigest()[:16],
        "data.max_side": clips.pop("max_side"),
    }
    own = {n: getattr(settings, n) for n in ("lr", "weight_decay", "ema", "motion", "cuts", "bf16", "seed")}
    return named | {f"train.{name}": value for name, value in {**clips, **own}.items()}


def _keep_model(folder: Path, out: Path) -> None:
    """Copied once, each part whole or not at all; an older video decoder is not part of it."""
    for name in ("image_stage", "temporal", "config.json"):
        if not (folder / name).exists() or (out / name).exists():
            continue
        temporary = out / f".{name}.tmp"
        if temporary.is_dir():
            shutil.rmtree(temporary)
        (shutil.copytree if (folder / name).is_dir() else shutil.copyfile)(folder / name, temporary)
        os.replace(temporary, out / name)


def _fit(
    settings: DecoderJobSettings,
    image: models.ImageModel,
    decoder: VideoDecoder,
    files: Sequence[Path],
    device: torch.device,
) -> Outcome:
    first = distributed.rank() == 0
    videos = [path for path in files if is_video(path.name)]
    stills = [read_pictures(path, 1, settings.clips.max_side)[0] for path in files if not is_video(path.name)]
    silent = None if first else True
    sampler = read_clips(videos, settings.clips, settings.seed, stills, device=device)
    image = image.to(device)
    image.stage.to(memory_format=torch.channels_last)
    logger = start_wandb(settings.wandb, settings.out)
    loop = LoopSettings.of(settings)
    objective = RefinementDistortion(image, settings.motion, settings.cuts, settings.seed, settings.bf16)
    decoder = decoder.to(device).to(memory_format=torch.channels_last)
    on_figures = None if logger is None else logger.log
    outcome = train("train", decoder, objective, sampler, loop, settings.out / "training", on_figures, silent)
    if logger is not None:
        logger.finish()
    return outcome


def _report(settings: DecoderJobSettings, outcome: Outcome, val: Sequence[Path]) -> dict[str, Any]:
    gains = measure_gain(settings, val) if val else []
    figures = {
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "skipped_steps": outcome.skipped,
        "last": outcome.last,
        "val": [asdict(gain) for gain in gains],
    }
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    out = settings.out
    title = f"video decoder: {outcome.steps} steps in {outcome.seconds / 60:.1f} min, {outcome.skipped} skipped"
    if gains:
        header = ("QP", "PSNR dB", "refined", "gain", "first frames")
        rows = [
            (g.qp, f"{g.psnr:.2f}", f"{g.psnr_refined:.2f}", f"{g.psnr_refined - g.psnr:+.3f}", f"{g.gain_first:+.3f}")
            for g in gains
        ]
        title = format_table(rows, header, f"{title}\n{gains[0].videos} validation videos")
    print(f"{title}\n\nmodel: {out}   use it: vidlbc decode model={out} refine=true ...")
    return figures


def measure_gain(settings: DecoderJobSettings, val: Sequence[Path]) -> list[Gain]:
    """PSNR of up to `eval_videos` of the files, evenly spread, decoded with and without the video decoder of `out`.

    Raises InputError where none can be read.
    """
    codec = load(settings.out, settings.device, "none", refine=True)
    assert codec.refiner is not None
    clips = whole_clips(spread(val, settings.eval_videos), settings.eval_frames, settings.clips.max_side)
    if not clips:
        raise InputError(f"none of {len(val)} validation videos can be read, such as {val[0]}")
    gains = []
    with progress_bar(desc="validate", unit="clip", total=len(clips) * len(settings.eval_qps)) as meter:
        for qp in settings.eval_qps:
            rows = []
            for frames in clips:
                size = frames.shape[1:3]
                latents = codec.dequantise(codec.analyse(frames, qp), qp)
                plain = psnr(codec.synthesize(latents, qp, *size), frames)
                refined = psnr(codec.refiner.start(qp, *size).add(latents), frames)
                rows.append((plain.mean(), refined.mean(), refined[0] - plain[0]))
                meter.update()
            gains.append(Gain(qp, len(clips), *(float(value) for value in np.mean(rows, axis=0))))
    return gains
