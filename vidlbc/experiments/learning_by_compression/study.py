"""Learning by compression from start to end (Xie et al., arXiv 2105.13978). vidlbc experiment learn-by-compression runs
it.

check --> recogniser (trained, frozen) --> two-step loop --> model --> every variant's true CR, RQ and streams

OUT/request.json                       the same command resumes
OUT/recogniser/, OUT/phases/           checkpoints and logs; OUT/phases/history.json
OUT/model/                             the last variants above the threshold: vidlbc.load(OUT/model)
OUT/streams/VARIANT.vlbc               held-out frames, decoded again by another process
OUT/history.png, OUT/metrics.json      written last
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.klt import initialise
from vidlbc.codec.image_stage.lbc import LBC
from vidlbc.codec.inputs import check_qp, pick_device
from vidlbc.codec.load import load
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError, VidlbcError
from vidlbc.experiments.learning_by_compression.degradation import Degradation
from vidlbc.experiments.learning_by_compression.evaluator import Evaluator, PatchStatistics, Pixels, Proxy, Semantics
from vidlbc.experiments.learning_by_compression.held_out import HeldOutSource, read_held_out
from vidlbc.experiments.learning_by_compression.objective import CompressionLoss, Learner, LossWeights
from vidlbc.experiments.learning_by_compression.ratio import FrameSet, measure
from vidlbc.experiments.learning_by_compression.recogniser import Recogniser, accuracy, recogniser_loss
from vidlbc.experiments.learning_by_compression.report import plot_history, tables
from vidlbc.experiments.learning_by_compression.schedules import Ramp
from vidlbc.experiments.learning_by_compression.streams import check_streams
from vidlbc.experiments.learning_by_compression.two_step import TwoStep, TwoStepSettings, plan
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request
from vidlbc.run.tensor_files import load_tensors, save_tensors
from vidlbc.train.data.mixed_data import MixedSampler, MixedSource
from vidlbc.train.loop import LoopSettings
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train

_KLT_FRAMES = 128
_STREAM_FRAMES = 8


@dataclass(frozen=True)
class RecogniserSettings:
    """Steps, batch and learning rate of the recogniser's own training; its widths."""

    steps: int = 600
    batch: int = 32
    lr: float = 2e-3
    widths: tuple[int, ...] = (24, 48, 96, 128)


@dataclass(frozen=True)
class StudySettings:
    """`stage`: options of family lbc, its `variants` in the order of the loop; `evaluator`: weight ramps by proxy."""

    train: tuple[MixedSource, ...]
    val: tuple[HeldOutSource, ...]
    out: Path
    stage: Mapping[str, Any]
    evaluator: Mapping[str, Ramp]
    patch_sizes: tuple[int, ...] = (4, 8)
    carry: tuple[int, ...] = (3, 3, 4)
    weights: LossWeights = field(default_factory=LossWeights)
    degradation: Degradation = field(default_factory=Degradation)
    loop: TwoStepSettings = field(default_factory=TwoStepSettings)
    recogniser: RecogniserSettings = field(default_factory=RecogniserSettings)
    size: int = 128
    batch: int = 8
    lr: float = 1.5e-3
    ema: float = 0.995
    seed: int = 0
    pool_mb: int = 4096
    rq_qp: int = 48
    qps: tuple[int, ...] = (0, 16, 32, 48, 63)
    device: str = "auto"
    save_seconds: float = 60.0

    @property
    def variants(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(kept) for name, kept in self.stage["variants"].items()}


def run_study(settings: StudySettings) -> dict[str, Any]:
    """Run or resume; the figures of metrics.json.

    Raises InputError for whatever stands in the way, before the first step; VidlbcError where training diverges.
    """
    device = pick_device(settings.device)
    for qp in (settings.rq_qp, *settings.qps):
        check_qp(qp)
    torch.manual_seed(settings.seed)
    stage = build_image_stage("lbc", **settings.stage)
    assert isinstance(stage, LBC)
    if settings.size % stage.multiple:
        raise InputError(f"train.size={settings.size}: expected a multiple of {stage.multiple}")
    plan(settings.variants, settings.loop)
    sampler = MixedSampler(
        settings.train, settings.size, settings.batch, NUM_QP, settings.seed, device, pool_mb=settings.pool_mb
    )
    keep_request(settings.out / "request.json", _request(settings), settings.out, write=True)
    print(sampler.describe())
    held_out = read_held_out(settings.val, settings.size, sampler.tasks)
    known = int((held_out.marks.label >= 0).sum())
    print(f"held out: {len(held_out)} frames of {settings.size} pixels, {known} with a label")

    recogniser, found = _recogniser(settings, sampler, held_out, device)
    proxies: tuple[Proxy, ...] = (Pixels(), PatchStatistics(settings.patch_sizes))
    if recogniser is not None:
        proxies += (Semantics(recogniser),)
    weights = {name: ramp for name, ramp in settings.evaluator.items() if recogniser is not None or name != "semantic"}
    evaluator = Evaluator(proxies, weights)

    learner = Learner(stage, tuple(len(task.classes) for task in sampler.tasks))
    if not (settings.out / "phases" / "history.json").is_file():
        crops = [sampler(step).frames for step in range(-(-_KLT_FRAMES // settings.batch))]
        initialise(stage, torch.cat(crops).cpu(), settings.carry)
    learner.to(device)

    def measured(module: Learner, variants: Mapping[str, tuple[int, ...]], folder: Path) -> dict[str, dict[str, float]]:
        codec = _codec(module.stage, settings.stage, variants, folder / "model")
        return {name: asdict(measure(codec, held_out, evaluator, settings.rq_qp, name)) for name in variants}

    training = LoopSettings(
        Budget(steps=1), lr=settings.lr, ema=settings.ema, seed=settings.seed, save_seconds=settings.save_seconds
    )
    loss = CompressionLoss(evaluator, settings.weights, settings.degradation, settings.seed)
    loop = TwoStep(loss, sampler, measured, settings.loop, training, settings.out / "phases")
    outcome = loop.run(learner, settings.variants)
    for path, reason in sampler.skipped.items():
        print(f"not used: {path}: {reason}", file=sys.stderr)

    accepted = {name: settings.variants[name] for name in outcome["accepted"]}
    codec = _codec(learner.stage, settings.stage, accepted, settings.out / "model")
    table = {name: {qp: measure(codec, held_out, evaluator, qp, name) for qp in settings.qps} for name in accepted}
    frames = held_out.frames[:_STREAM_FRAMES]
    figures = {
        "recogniser": found,
        "accepted": outcome["accepted"],
        "last_above_threshold": outcome["accepted"][-1],
        "stopped": outcome["stopped"],
        "threshold": settings.loop.rq_threshold,
        "held_out": len(held_out),
        "variants": {name: {str(qp): asdict(m) for qp, m in rows.items()} for name, rows in table.items()},
        "streams": check_streams(settings.out, codec, frames, accepted, settings.rq_qp),
    }
    plot_history(settings.out / "history.png", outcome, settings.loop.rq_threshold)
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    model = settings.out / "model"
    print(f"\nRQ at qp {settings.rq_qp} on {len(held_out)} held-out frames; one model for all variants: {model}")
    print(tables(outcome, table, settings.loop.rq_threshold))
    same = sum(stream["same_in_another_process"] for stream in figures["streams"].values())
    print(f"\nbitstreams decoded by another process: {same} of {len(accepted)} variants to the same frames")
    print(f"last variant above the threshold: {outcome['accepted'][-1]}")
    return figures


def _request(settings: StudySettings) -> dict[str, Any]:
    """What decides the weights. The threshold may be changed to go on with a run, or to stop it earlier."""
    told = asdict(settings)
    for name in ("out", "device", "save_seconds", "qps"):
        del told[name]
    del told["loop"]["rq_threshold"]
    return json.loads(json.dumps(told, default=str))


def _recogniser(
    settings: StudySettings, sampler: MixedSampler, held_out: FrameSet, device: torch.device
) -> tuple[Recogniser | None, dict[str, Any]]:
    """Trained on the labelled sources' train split, and its accuracy on the held-out frames; None without labels."""
    if not sampler.tasks:
        print("no labelled source: the semantic part of the evaluator is all-zero")
        return None, {}
    s = settings.recogniser
    labelled = [source for source in settings.train if source.labels != "none"]
    own = MixedSampler(
        [replace(source, share=None) for source in labelled],
        settings.size,
        s.batch,
        NUM_QP,
        settings.seed + 1,
        device,
        pool_mb=settings.pool_mb,
    )
    torch.manual_seed(settings.seed + 1)
    recogniser = Recogniser([len(task.classes) for task in own.tasks], s.widths).to(device)
    folder = settings.out / "recogniser"
    done = folder / "recogniser.safetensors"
    if done.is_file():
        recogniser.load_state_dict(load_tensors(done, device)[0])
    else:
        training = LoopSettings(
            Budget(steps=s.steps),
            lr=s.lr,
            weight_decay=0.05,
            ema=0.99,
            seed=settings.seed + 1,
            save_seconds=settings.save_seconds,
        )
        train("recogniser", recogniser, recogniser_loss, own, training, folder)
        save_tensors(done, dict(recogniser.state_dict()), {})
    marks = held_out.marks
    found = {}
    for index, (share, count) in accuracy(recogniser, held_out.tensor.to(device), marks.label, marks.task).items():
        task = own.tasks[index]
        found[task.name] = {"accuracy": share, "frames": count, "classes": len(task.classes)}
        print(f"recogniser, {task.name}: {share:.1%} of {count} held-out frames ({len(task.classes)} classes)")
    return recogniser, found


def _codec(
    stage: torch.nn.Module, options: Mapping[str, Any], variants: Mapping[str, tuple[int, ...]], folder: Path
) -> Codec:
    """Write the stage as a model that has `variants`, and load it as a reader would.

    Raises VidlbcError where the trained prior has no exact form.
    """
    assert isinstance(stage, LBC)
    described = {**options, "variants": {name: list(kept) for name, kept in variants.items()}}
    models.save_image_stage(stage, folder / "image_stage", {"family": "lbc", "options": described})
    write_atomic(folder / "config.json", dump_json({"format": models.FORMAT, "temporal": "none"}, indent=1))
    try:
        return load(folder, "cpu", temporal="none")
    except ArithmeticError as error:
        raise VidlbcError(f"{folder}: the trained prior cannot be coded exactly ({error}); lower train.lr") from None
