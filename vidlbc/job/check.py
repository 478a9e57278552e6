"""Everything that can be known to fail is checked before the first minute of work."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vidlbc import models
from vidlbc.codec import check_qp, pick_device
from vidlbc.errors import InputError
from vidlbc.job.settings import JobSettings
from vidlbc.shards import Corpus, read_annotations, split_corpus
from vidlbc.shards.corpus import locate
from vidlbc.temporal_stage import KINDS

_MINIMUM_FREE = 200 * 2**20


def check_job(settings: JobSettings) -> Corpus:
    """The corpus with its splits. Raises InputError with one line for whatever stands in the way."""
    check_qp(settings.qp)
    if settings.temporal not in KINDS:
        raise InputError(f"temporal={settings.temporal}: expected one of {', '.join(KINDS)}")
    if settings.train.start not in ("shipped", "scratch"):
        raise InputError(f"train.start={settings.train.start}: expected shipped or scratch")
    pick_device(settings.device)
    models.find_model(settings.image_stage)
    corpus = read_annotations(settings.root, settings.labels, fold=settings.fold)
    if not corpus.splits:
        corpus = split_corpus(corpus, test=settings.holdout)
        corpus = replace(corpus, form=f"{corpus.form}, {settings.holdout:.0%} held out by group")
    corpus.require("train", "test")
    _check_output(settings.out, corpus)
    return corpus


def _check_output(out: Path, corpus: Corpus) -> None:
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
