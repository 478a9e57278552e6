"""The steps of the main job, in order. See `vidlbc.job`."""

import sys
import time

import numpy as np

from vidlbc import models
from vidlbc.codec import Codec, pick_device
from vidlbc.errors import VidlbcError
from vidlbc.evaluation import ProbeResult
from vidlbc.job.check import check_job
from vidlbc.job.quality import measure_quality
from vidlbc.job.recognition import recognise, write_results
from vidlbc.job.report import collect, table, write_report
from vidlbc.job.settings import JobSettings
from vidlbc.job.train import train_temporal
from vidlbc.job.verify import verify_sample
from vidlbc.shards import Corpus, LatentShards, Manifest, Settings, encode_corpus, logged_seconds, make_plan
from vidlbc.training import distributed


def run_job(settings: JobSettings) -> dict[str, object] | None:
    """Run or resume the whole job; the figures of metrics.json, or None on ranks other than 0."""
    distributed.start(pick_device(settings.device))
    try:
        corpus = check_job(settings)
        if distributed.rank() == 0:
            _say(corpus.label_map())
            counts = ", ".join(f"{len(corpus.select(s).items)} {s}" for s in corpus.splits)
            _say(f"{len(corpus.items)} videos ({counts}), read as: {corpus.form}")
        codec = train_temporal(settings, corpus)
    finally:
        rank = distributed.rank()
        distributed.stop()
    return _after_training(settings, corpus, codec) if rank == 0 else None


def _after_training(settings: JobSettings, corpus: Corpus, codec: Codec) -> dict[str, object]:
    started = time.perf_counter()
    manifest, encoding = _encode(settings, corpus, codec)
    shards = LatentShards(settings.shards, "test", codec=codec)
    if not len(shards):
        raise VidlbcError(f"{settings.shards}: no test video could be read; see {settings.shards}/manifest/summary.txt")
    verified = verify_sample(shards, codec, settings.model, 4)
    image = codec.image
    plain = Codec(image, *models.no_context(image), device=settings.device, precision=settings.precision)
    quality = measure_quality(shards, codec, plain, settings.evaluation.videos)
    probes: dict[str, ProbeResult] = {}
    if corpus.classes and _labelled(corpus):
        probes = recognise(settings.shards, codec, settings.evaluation, settings.out / "features", settings.train.seed)
        write_results(settings.out / "probes", probes, corpus.classes)
    else:
        _say("no labels: recognition is left out")
    figures = collect(settings, codec, manifest, encoding, quality, probes, verified)
    files = write_report(settings, shards, codec, quality, probes, figures)
    print()
    print(table(settings, figures, probes))
    print("\noutputs:")
    for path in [*files, settings.shards, settings.model]:
        print(f"  {path}")
    look = settings.out / "side_by_side.mp4"
    print(f"\n{time.perf_counter() - started:.0f} s after training. Look at {look}; decode the rest with")
    print(f"  python tools/decode.py input={settings.shards} output=FOLDER model={settings.model}")
    return figures


def _encode(settings: JobSettings, corpus: Corpus, codec: Codec) -> tuple[Manifest, tuple[int, float]]:
    how = Settings(
        qp=settings.qp, clip_frames=settings.clip_frames, max_side=settings.max_side,
        model=str(settings.model.resolve()), temporal=codec.kind, precision=settings.precision,
        deadline_s=settings.deadline_s,
    )  # fmt: skip
    plan = make_plan(corpus, settings.shards, codec, how, shard_videos=settings.shard_videos)
    manifest, _ = encode_corpus(
        plan, processes=settings.processes, device=settings.device, codec=codec if settings.processes == 1 else None
    )
    _say(manifest.summary())
    return manifest, logged_seconds(plan)


def _labelled(corpus: Corpus) -> bool:
    """Both sides need labels."""
    return bool(np.all([any(i.label is not None for i in corpus.select(s).items) for s in ("train", "test")]))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
