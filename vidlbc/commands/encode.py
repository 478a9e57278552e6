"""Encode videos into latent shards: folders, lists of any common annotation family, or single videos.

Run again with the same options, it finishes what is left, whichever launcher began it. Every file gets a verdict in
OUTPUT/manifest.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

import vidlbc
from vidlbc.data.annotations.lists import Columns
from vidlbc.errors import InputError, ShardError
from vidlbc.run.options import Many, option, paths, required, section
from vidlbc.run.stage_clock import stage_table
from vidlbc.shards import (
    Content,
    Corpus,
    EncodingSettings,
    Engine,
    LocalEngine,
    Plan,
    RayEngine,
    RaySettings,
    SlurmSettings,
    choice_of_rdo,
    contents_of,
    known_contents,
    launch,
    load_codec,
    make_plan,
    read_annotations,
    require_ray,
    split_corpus,
    submit,
    time_spent,
    watch,
    write_scripts,
)
from vidlbc.shards.forecast import forecast, held_out


@dataclass
class SlurmOptions:
    """`slurm.*`."""

    submit: bool = option(True, "submit with sbatch; false only writes the scripts, and says how")
    wait: bool = option(False, "show the progress until the array is over; stopping to look stops no task")
    shards_per_task: int = option(1, "consecutive shards of one task of the array")
    partition: str | None = option(None, "of sbatch, as the next four; null: the cluster's default")
    time: str | None = option(None, "limit of a task, as 04:00:00; null: the partition's")
    cpus: int | None = option(None, "CPUs of a task; null: the cluster's default")
    gpus: int | None = option(None, "GPUs of a task; null: none")
    memory: str | None = option(None, "memory of a task, as 8G; null: the cluster's default")
    limit: int | None = option(None, "tasks that run at a time; null: no limit")
    extra: list[str] | None = option(
        None, "list of further lines of the script: '#SBATCH --account=A', 'module load ...'; null: none"
    )


@dataclass
class Options:
    """See `--help`."""

    input: Many = required("folder of videos, annotation list, or one video; a pattern of such, or several: [a,b]")
    output: str = required("folder for the shards; the same command again resumes")
    plan: bool = option(False, "only tell what would be done: labels, splits, files, about how long and how many bytes")
    labels: str | None = option(None, "annotations that lie apart from the videos: a list, or a folder of them")
    fold: int = option(1, "which split of UCF101 or HMDB51")
    form: str = option(
        "auto", "how the corpus is described: auto (told from content), or package.module:function of your own"
    )
    columns: Columns = section(Columns, "names of a table's columns, where they are not the usual ones")
    holdout: float = option(
        0.2, "labelled videos without a split: the share that becomes test, by group; 0 holds nothing out"
    )
    model: str = option("default", "shipped model or model folder")
    temporal: str | None = option(None, "transformer, lstm or none; null is the model's own")
    qp: int = option(32, "quality, 0 (smallest) to 63 (best)")
    psnr: float | None = option(
        None, "dB; the smallest variant and QP that reach it, chosen for each clip; null: qp for all"
    )
    bitrate: float | None = option(
        None, "kbit/s, mean of a clip; the highest QP of each clip whose file is no larger; null: qp for all"
    )
    bpp_per_db: float | None = option(
        None, "bit/pixel that a dB is worth; each clip's variant and QP are where a dB more would cost more"
    )
    rdo: bool | None = option(
        None,
        "symbols chosen for rate and distortion; fewer bits at equal quality; null: as an earlier run into output, "
        "else where blocks may be copied",
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
    variant: str | None = option(
        None, "truncation of the latents, of a model that has some (V1, V2, ...); null: all channels"
    )
    context: bool = option(True, "code frames given the frames before them")
    precision: str = option("fp32", "of the encoder's analysis: fp32 or bf16")
    device: str = option("auto", "auto, cpu or cuda")
    clip_frames: int = option(256, "longer videos are cut into clips of at most this many frames")
    shard_videos: int = option(32, "videos in a shard; what is lost, at most, when a run is killed")
    every: int | None = option(None, "only every n-th frame is coded; null: all")
    max_side: int | None = option(None, "longest side in pixels; larger videos are scaled down")
    backend: str = option("auto", "video decoder: auto, pyav, decord or opencv")
    deinterlace: bool = option(False, "part the fields of interlaced videos, one frame for one; by PyAV alone")
    picture_fps: float = option(25.0, "frames a second of videos that are folders of numbered pictures")
    deadline_s: float = option(60.0, "seconds without a frame after which a file's decoder is killed")
    processes: int = option(1, "encoding processes on this machine, with launcher=local")
    launcher: str = option(
        "local", "who encodes the shards: local (processes here), ray (actors on a cluster) or slurm (an array job)"
    )
    ray: RaySettings = section(RaySettings)
    slurm: SlurmOptions = section(SlurmOptions)


def main(config: DictConfig) -> None:
    settings = EncodingSettings(
        qp=config.qp,
        context=config.context,
        clip_frames=config.clip_frames,
        max_side=config.max_side,
        backend=config.backend,
        model=str(Path(config.model).resolve()) if Path(config.model).is_dir() else config.model,
        temporal=config.temporal,
        precision=config.precision,
        deadline_s=config.deadline_s,
        variant=config.variant,
        psnr=config.psnr,
        bpp_per_db=config.bpp_per_db,
        bitrate=config.bitrate,
        every=config.every,
        effort=config.effort,
        keyint=config.keyint,
        deinterlace=config.deinterlace,
        picture_fps=config.picture_fps,
    )
    ray, slurm = launchers(config)
    corpus = read_annotations(
        paths(config.input), config.labels, fold=config.fold, form=config.form, columns=Columns(**config.columns)
    )
    codec = vidlbc.load(
        settings.model,
        config.device,
        settings.temporal,
        settings.precision,
        effort=settings.effort,
        keyint=settings.keyint,
    )
    codec.kept(settings.variant)  # an unknown one is told before anything is read
    settings = replace(settings, rdo=choice_of_rdo(config.rdo, config.output, codec.prefers_rdo))
    if config.plan:
        print(corpus.label_map())
        if config.holdout and corpus.classes and not corpus.splits:
            print(held_out(config.holdout))
        print(forecast(corpus, codec, settings).told(config.processes if config.launcher == "local" else 1))
        return
    contents = hashed(corpus, config.output)
    if config.holdout and corpus.classes and not corpus.splits:
        corpus = split_corpus(corpus, test=config.holdout, contents=contents)
        corpus = replace(corpus, form=f"{corpus.form}, {config.holdout:.0%} held out by group")
    print(corpus.label_map())

    plan = make_plan(corpus, config.output, codec, settings, shard_videos=config.shard_videos, contents=contents)
    if config.launcher == "slurm" and not all_done(plan, slurm, config):
        return
    engine: Engine = LocalEngine(config.processes, config.device, codec, load_codec)
    if config.launcher == "ray":
        engine = RayEngine(ray, config.device)
    manifest, reports = launch(plan, engine)

    frames, seconds, stages = time_spent(plan)
    print(manifest.summary())
    print(f"{len(reports)} shards, {sum(report.skipped for report in reports)} of them from earlier runs")
    print(f"{frames / seconds:.1f} frames/s per process" if seconds else "nothing was encoded")
    print(f"\n{stage_table(stages, frames, seconds)}\n")
    print(f"shards: {config.output}   verdicts: {Path(config.output) / 'manifest' / 'summary.txt'}")
    print(f"look at them: vidlbc decode input={config.output} output=FOLDER")


def launchers(config: DictConfig) -> tuple[RaySettings, SlurmSettings]:
    """What `ray.*` and `slurm.*` say. Raises InputError before any long work."""
    if config.launcher not in ("local", "ray", "slurm"):
        raise InputError(f"launcher={config.launcher}: expected local, ray or slurm")
    if config.launcher == "ray":
        require_ray()
    ray: dict[str, Any] = dict(config.ray)
    slurm: dict[str, Any] = {name: value for name, value in config.slurm.items() if name not in ("submit", "wait")}
    slurm["extra"] = tuple(str(line) for line in slurm["extra"] or ())
    return RaySettings(**ray), SlurmSettings(**slurm)


def all_done(plan: Plan, settings: SlurmSettings, config: DictConfig) -> bool:
    """Is every shard done? Else the array job is written and submitted, or how to is said."""
    scripts = write_scripts(plan, settings, config.device)
    if scripts is None:
        return True
    print(f"{scripts.shards} of {len(plan.shards)} shards are to do, in {scripts.tasks} tasks: {scripts.encode}")
    if not config.slurm.submit:
        print(scripts.encode.read_text())
        print("submit it, and what writes the manifest after it, with")
        print("\n".join(f"  {command}" for command in scripts.commands))
    else:
        encode, gather = submit(scripts)
        print(f"submitted: job {encode} (squeue -j {encode}), then job {gather}, which writes the manifest", flush=True)
        if config.slurm.wait and (left := watch(plan, encode)):
            raise ShardError(f"{left} shards are not done; see {scripts.encode.parent}/*.log, then run this again")
    print("the same command again submits what is not done; launcher=local or ray go on with it as well")
    return False


def hashed(corpus: Corpus, output: str) -> dict[str, Content]:
    """The content of every file; what an earlier run into `output` hashed is not read again."""
    known: dict[str, Any] = known_contents(output, corpus)
    total = len({item.path for item in corpus.items} - known.keys())
    with tqdm(total=total, unit="file", desc="hash", disable=None if total > 1000 else True) as meter:
        return contents_of(corpus, known, lambda path: meter.update(1) and None)
