"""The steps of the main job, in order. See `vidlbc.pipeline`."""

import sys
import time
from dataclasses import replace

from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.codec.inputs import pick_device
from vidlbc.errors import InputError, VidlbcError
from vidlbc.evaluate import ProbeResult
from vidlbc.pipeline.check import Checked, check_job, shard_settings
from vidlbc.pipeline.quality import measure_quality, spread
from vidlbc.pipeline.recognition import recognise, write_results
from vidlbc.pipeline.report import collect, table, write_report
from vidlbc.pipeline.settings import JobSettings
from vidlbc.pipeline.sharing import RankEngine, encode_with_first
from vidlbc.pipeline.train import train_temporal
from vidlbc.pipeline.verify import verify
from vidlbc.run import distributed
from vidlbc.run.request import alone
from vidlbc.run.stage_clock import stage_table
from vidlbc.shards import (
    Engine,
    LatentShards,
    LocalEngine,
    Manifest,
    Plan,
    RayEngine,
    choice_of_rdo,
    contents_of,
    known_contents,
    launch,
    load_codec,
    make_plan,
    time_spent,
)

_LISTED = 40  # lines of the encoding's summary that are printed; all are in its summary.txt


def run_job(settings: JobSettings) -> dict[str, object] | None:
    """Run or resume the whole job; the figures of metrics.json, or None on ranks other than 0."""
    with distributed.group(pick_device(settings.device)):
        job = check_job(settings)
        if distributed.rank():
            codec, figures = train_temporal(settings, job.corpus), None
            encode_with_first(settings.shards, codec)
            _recognise(settings, job, codec)
        else:
            with alone(settings.out):
                _introduce(job)
                figures = _after_training(settings, job, train_temporal(settings, job.corpus))
        distributed.barrier()  # none ends while another may still fail
    return figures


def _introduce(job: Checked) -> None:
    corpus = job.corpus
    _say(corpus.label_map())
    counts = ", ".join(f"{len(corpus.select(s).items)} {s}" for s in corpus.splits)
    _say(f"{len(corpus.items)} videos ({counts}), read as: {corpus.form}")
    if job.split != "test":
        _say(f"evaluated on the {job.split} split")
    if job.obstacle:
        _say(f"recognition is left out: {job.obstacle}")


def _after_training(settings: JobSettings, job: Checked, codec: Codec) -> dict[str, object]:
    started = time.perf_counter()
    settings = replace(settings, rdo=choice_of_rdo(settings.rdo, settings.shards, codec.prefers_rdo))
    manifest, encoding = _encode(settings, job, codec)
    shards = LatentShards(settings.shards, job.split, codec=codec)
    if not len(shards):
        summary = settings.shards / "manifest" / "summary.txt"
        raise VidlbcError(f"{settings.shards}: no video of the {job.split} split could be read; see {summary}")
    verified = verify(shards, codec, settings.model, spread(shards, 4))
    image = codec.image
    plain = Codec(image, *models.no_context(image), device=settings.device, precision=settings.precision)
    quality = measure_quality(shards, codec, plain, settings.evaluation.videos)
    probes, obstacle = _recognise(settings, job, codec)
    if probes:
        write_results(settings.out / "probes", probes, job.corpus.classes)
    elif not job.obstacle:
        _say(f"recognition is left out: {obstacle}")
    figures = collect(settings, codec, manifest, encoding, quality, probes, verified)
    figures |= {"split": job.split, "recognition_left_out": obstacle}
    files = write_report(settings, shards, codec, quality, probes, figures)
    print()
    print(table(settings, figures, probes))
    print("\noutputs:")
    for path in [*files, settings.shards, settings.model]:
        print(f"  {path}")
    look = settings.out / "report" / "index.html"
    print(f"\n{time.perf_counter() - started:.0f} s after training. Look at {look}; decode the rest with")
    print(f"  vidlbc decode input={settings.shards} output=FOLDER model={settings.model}")
    return figures


def _recognise(settings: JobSettings, job: Checked, codec: Codec) -> tuple[dict[str, ProbeResult], str | None]:
    """Results by what heads saw, or none and why. All ranks take part."""
    if job.obstacle:
        return {}, job.obstacle
    cache, seed = settings.out / "features", settings.train.seed
    try:
        return recognise(settings.shards, codec, settings.evaluation, cache, seed, job.split), None
    except InputError as error:
        # Known only now: too few of the files could be read. All else that was measured still counts.
        return {}, str(error)


def _encode(settings: JobSettings, job: Checked, codec: Codec) -> tuple[Manifest, tuple[int, float]]:
    contents = contents_of(job.corpus, job.contents or known_contents(settings.shards, job.corpus))
    how = replace(shard_settings(settings), temporal=codec.kind)
    plan = make_plan(job.corpus, settings.shards, codec, how, shard_videos=settings.shard_videos, contents=contents)
    _warn_of_leaks(plan)
    here = codec if settings.processes == 1 else None
    engine: Engine = LocalEngine(settings.processes, settings.device, here, load_codec)
    if settings.launcher == "ray":
        engine = RayEngine(settings.ray, settings.device)
    ranks = RankEngine(settings.device, codec)
    if distributed.world() > 1 and settings.launcher == "local" and settings.processes == 1:
        engine = ranks
    manifest, _ = launch(plan, engine)
    if distributed.world() > 1:
        ranks.end()
    lines = manifest.summary().splitlines()
    _say("\n".join(lines[:_LISTED]))
    if len(lines) > _LISTED:
        _say(f"... and {len(lines) - _LISTED} more: {settings.shards / 'manifest' / 'summary.txt'}")
    spent = time_spent(plan)
    _say(stage_table(spent.stages, spent.frames, spent.seconds))
    return manifest, (spent.frames, spent.seconds)


def _warn_of_leaks(plan: Plan) -> None:
    trained = {source.sha256: source.path for source in plan.sources if source.split == "train" and source.sha256}
    both = [source for source in plan.sources if source.split in ("val", "test") and source.sha256 in trained]
    if both:
        first = f"{both[0].path} is {trained[both[0].sha256]}"
        _say(f"warning: {len(both)} files of val or test are also in train, to the byte (such as {first})")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
