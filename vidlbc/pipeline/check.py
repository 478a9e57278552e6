"""Everything that can be known to fail is checked before the first minute of work."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidlbc.codec import models
from vidlbc.codec.inputs import check_motion_options, check_qp, pick_device
from vidlbc.codec.models import temporal_class
from vidlbc.data.annotations.lists import USUAL, Columns
from vidlbc.data.corpus import locate
from vidlbc.errors import InputError, check_switch
from vidlbc.heads import build_head
from vidlbc.pipeline.settings import JobSettings
from vidlbc.pipeline.train import started_from
from vidlbc.shards import Content, Corpus, EncodingSettings, contents_of, known_contents, read_annotations, split_corpus
from vidlbc.train.data.pictures import PictureSource, find_files

_MINIMUM_FREE = 200 * 2**20


@dataclass(frozen=True)
class Checked:
    """What the job works on. `split` is the one that is evaluated; `obstacle`: why recognition is left out, or None."""

    corpus: Corpus
    split: str
    obstacle: str | None
    contents: Mapping[str, Content] = field(default_factory=dict)


def check_job(settings: JobSettings) -> Checked:
    """The corpus with its splits. Raises InputError with one line for whatever stands in the way."""
    check_values(settings)
    pick_device(settings.device)
    if not (settings.model / "trained.json").is_file():
        models.load_image_stage(models.find_model(settings.image_stage) / "image_stage")
    corpus, contents = corpus_with_splits(
        settings.root,
        settings.labels,
        settings.fold,
        settings.holdout,
        settings.shards,
        settings.form,
        settings.columns,
    )
    split = evaluation_split(corpus)
    corpus.require("train", split)
    check_output(settings.out, settings.root, corpus)
    return Checked(corpus, split, recognition_obstacle(corpus, split), contents)


def corpus_with_splits(
    root: str | tuple[str, ...],
    labels: str | None,
    fold: int,
    holdout: float,
    shards: Path,
    form: str = "auto",
    columns: Columns = USUAL,
) -> tuple[Corpus, dict[str, Content]]:
    """The corpus, split by group where its annotations do not say how, and what of its content had to be read for that.

    `shards`: a folder that an earlier run may have made.
    """
    corpus = read_annotations(root, labels, fold=fold, form=form, columns=columns)
    contents: dict[str, Content] = {}
    if not corpus.splits:
        # Equal files stay on one side, so every file is read; a resumed run remembers.
        contents = contents_of(corpus, known_contents(shards, corpus))
        corpus = split_corpus(corpus, test=holdout, contents=contents)
        corpus = replace(corpus, form=f"{corpus.form}, {holdout:.0%} held out by group")
    return corpus, contents


def evaluation_split(corpus: Corpus) -> str:
    """`test`; but `val` where there is no test split, or only val has labels (Kinetics, Something-Something)."""
    if "val" not in corpus.splits:
        return "test"
    if "test" not in corpus.splits:
        return "val"
    return "val" if _labels(corpus, "val") and not _labels(corpus, "test") else "test"


def recognition_obstacle(corpus: Corpus, split: str) -> str | None:
    """Why no head can be trained and tested on this corpus, in words; None where one can."""
    if not corpus.classes:
        return "the corpus has no labels"
    for part in ("train", split):
        if not _labels(corpus, part):
            return f"no video of the {part} split has a label"
    if len(set(_labels(corpus, "train"))) < 2:
        return "there is a single class"
    if split == "val" or not _labels(corpus, "val"):
        items = [item for item in corpus.select("train").items if item.label is not None]
        if len({item.group or item.path for item in items}) < 2:
            return "the train split is one group and there is no val split: nothing is left to choose the head on"
    return None


def _labels(corpus: Corpus, split: str) -> list[int]:
    return [item.label for item in corpus.select(split).items if item.label is not None]


def shard_settings(settings: JobSettings) -> EncodingSettings:
    """How the corpus is encoded. Raises InputError for values out of range."""
    return EncodingSettings(
        qp=settings.qp,
        clip_frames=settings.clip_frames,
        max_side=settings.max_side,
        model=str(settings.model.resolve()),
        temporal=settings.temporal,
        precision=settings.precision,
        deadline_s=settings.deadline_s,
        psnr=settings.psnr,
        bitrate=settings.bitrate,
        rdo=bool(settings.rdo),
        effort=settings.effort,
        keyint=settings.keyint,
        deinterlace=settings.deinterlace,
        picture_fps=settings.picture_fps,
    )


def check_values(settings: JobSettings) -> None:
    """A value that would only be met after an hour of training is met here."""
    check_qp(settings.qp)
    check_switch("rdo", settings.rdo)
    check_motion_options(settings.effort, settings.keyint)
    temporal_class(settings.temporal)
    _one_of("precision", settings.precision, ("fp32", "bf16"))
    train, clips, evaluation = settings.train, settings.train.clips, settings.evaluation
    started_from(settings)
    build_head(evaluation.head, [(1, 8)], 2, grid=evaluation.grid, **evaluation.head_options)
    for name, value, least in (
        ("processes", settings.processes, 1),
        ("data.clip_frames", settings.clip_frames, 1),
        ("data.fold", settings.fold, 1),
        ("train.frames", clips.frames, 2),
        ("train.size", clips.size, 16),
        ("train.batch", clips.batch, 1),
        ("train.pool_windows", clips.pool_windows, 1),
        ("train.window_frames", clips.window_frames, clips.frames),
        ("train.steps_per_pool", clips.steps_per_pool, 1),
        ("eval.videos", evaluation.videos, 1),
        ("eval.frames", evaluation.frames, 1),
        ("eval.views", evaluation.views, 1),
        ("eval.head.grid", evaluation.grid, 1),
        ("eval.epochs", evaluation.epochs, 1),
    ):
        require_number(name, value, least, whole=True)
    for name, values in (("eval.rates", evaluation.rates), ("eval.decays", evaluation.decays)):
        if not values:
            raise InputError(f"{name}=[]: expected at least one number")
        for number in values:
            require_number(name, number, 0)
    if clips.large_size is not None:
        require_number("train.large_size", clips.large_size, clips.size, whole=True)
    if settings.max_side is not None:
        require_number("data.max_side", settings.max_side, 16, whole=True)
    if train.budget is not None:
        if train.budget.steps is not None:
            require_number("train.steps", train.budget.steps, 1, whole=True)
        if train.budget.minutes is not None:
            require_number("train.minutes", train.budget.minutes, 0)
    require_number("train.lr", train.lr, 0)
    require_number("train.weight_decay", train.weight_decay, 0)
    if not 0 <= train.ema < 1:
        raise InputError(f"train.ema={train.ema}: expected a number from 0 to below 1")
    require_number("train.picture_share", clips.picture_share, 0)
    find_files([PictureSource(source) for source in train.pictures])
    shard_settings(settings)


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value}: expected one of {', '.join(choices)}")


def require_number(name: str, value: Any, least: int, whole: bool = False) -> None:
    """Raises InputError where an option is no number, or a smaller one."""
    good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not good or not value >= least:
        raise InputError(f"{name}={value}: expected a {'whole ' if whole else ''}number of at least {least}")


def check_output(out: Path, data: str | tuple[str, ...], corpus: Corpus) -> None:
    """Make the folder. Raises InputError where it lies inside the data, is not writable, or its disk is too full."""
    for root in [Path(source).expanduser() for source in ([data] if isinstance(data, str) else data)]:
        if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
            hint = "its videos would be read as data; put it elsewhere"
            raise InputError(f"out={out} lies inside data.root={root}: {hint}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={out}: cannot make the folder ({error.strerror})") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"out={out}: the folder is not writable")
    # Shards are no larger than the videos at any sensible QP; features, plots and checkpoints are the rest.
    videos = sum(_size(corpus, item.path) for item in corpus.items)
    needed, free = videos + _MINIMUM_FREE, shutil.disk_usage(out).free
    if free < needed:
        raise InputError(f"out={out}: {free / 2**20:.0f} MB free, about {needed / 2**20:.0f} MB are needed")


def _size(corpus: Corpus, path: str) -> int:
    file, _ = locate(corpus.root, path)
    return file.stat().st_size if file.is_file() else 0
