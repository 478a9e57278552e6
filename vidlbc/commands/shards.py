"""Care of shard folders: what they hold, whether it is sound, and how it is mended, joined, added to or given away.

    vidlbc shards list   input=SHARDS                 a line a shard; clips=true: a line a clip
    vidlbc shards stats  input=SHARDS                 sums by split and class, rates, verdicts, repeats
    vidlbc shards verify input=SHARDS                 every checksum, every byte; decode=true: every clip
    vidlbc shards repair input=SHARDS apply=true      what can be mended; without apply it is only told
    vidlbc shards merge  input=[A,B] output=SHARDS    one folder of the same bitstreams, repeats once
    vidlbc shards add    input=SHARDS videos=VIDEOS   new shards behind the old ones, which stay as they are
    vidlbc shards export input=SHARDS output=FOLDER   split/class/video.mp4 and labels.csv

Exit status 1: verify found something, or repair left something.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

import vidlbc
from vidlbc.codec.bitstream.rates import beside_sources
from vidlbc.errors import InputError, ShardError
from vidlbc.pipeline.check import require_number
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.options import Many, option, required
from vidlbc.run.progress import progress_bar
from vidlbc.run.tables import format_table
from vidlbc.shards import LatentShards, Plan, contents_of, read_annotations
from vidlbc.shards.maintain.add import add_videos
from vidlbc.shards.maintain.export import check_export, export_shards
from vidlbc.shards.maintain.folder import check_decoding, require_shards, verify_folder
from vidlbc.shards.maintain.inventory import list_clips, list_shards, statistics
from vidlbc.shards.maintain.merge import merge_folders
from vidlbc.shards.maintain.repair import repair_folder


@dataclass
class Options:
    """See `--help`."""

    command: str = required("list, stats, verify, repair, merge, add or export; may be given as the first word")
    input: Many = required("folder of shards; merge: two or more, as [A,B]")
    output: str | None = option(None, "merge, export: the new folder; the same command again goes on")
    out: str | None = option(None, "list, stats, verify, repair: the same as JSON, into this file")
    split: str | None = option(
        None, "list, export: train, val or test, null is everything; add: split of videos that have none"
    )
    label: str | None = option(None, "list: clips of this class, by name or number; null is all")
    clips: bool = option(False, "list: a line for every clip")
    processes: int = option(1, "verify, add: processes on this machine")
    decode: bool = option(False, "verify: also decode clips, for the bitstream's own checks")
    every: int = option(1, "verify decode=true: only every n-th clip")
    apply: bool = option(False, "repair: do it; without, it is only told")
    drop: bool = option(False, "repair: let clips go that nothing can mend")
    videos: str | None = option(None, "add: folder of videos, annotation list, or one video")
    labels: str | None = option(None, "add: annotations that lie apart from the videos: a list, or a folder of them")
    fold: int = option(1, "add: which split of UCF101 or HMDB51")
    shard_videos: int = option(32, "add: videos in a shard")
    overwrite: bool = option(False, "export: true: replace files of these names that this export did not write")
    format: str = option("mp4", "export: mp4, bitstreams (.vlbc) or latents (.safetensors)")
    fps: Any = option(None, "export: frames a second of the mp4; null is the source's own")
    crf: int = option(18, "export: quality of the mp4, 0 (lossless) to 51")
    refine: bool | None = option(None, "export: as of vidlbc decode")
    model: str | None = option(None, "shipped model or model folder; null is what the shards name")
    temporal: str | None = option(None, "transformer, lstm or none; null is what the shards name")
    device: str = option("auto", "auto, cpu or cuda")


_LISTED = 20


def main(config: DictConfig) -> int:
    commands: dict[str, Callable[[DictConfig], int | None]] = {
        "list": list_,
        "stats": stats,
        "verify": verify,
        "repair": repair,
        "merge": merge,
        "add": add,
        "export": export,
    }
    if config.command not in commands:
        raise InputError(f"command={config.command}: expected one of {', '.join(commands)}")
    if config.command != "merge":
        if isinstance(config.input, ListConfig):
            raise InputError(f"input={config.input}: expected one folder of shards")
        require_shards(Path(config.input))
    return commands[config.command](config) or 0


def list_(config: DictConfig) -> None:
    if config.clips or config.label is not None:
        rows = list_clips(config.input, config.split, None if config.label is None else str(config.label))
        names = ("key", "tar", "split", "label_name", "source", "start", "stop", "frames", "qp", "bytes", "verdict")
        print(format_table([[row.get(name) for name in names] for row in rows], names))
        _write(config.out, {"clips": rows})
        return
    lines = list_shards(config.input, config.split)
    head = ("shard", "split", "files", "clips", "frames", "bytes", "state")
    table = [[f"{line.index:05d}", *list(vars(line).values())[1:]] for line in lines]
    print(format_table(table, head))
    done = [line for line in lines if line.state == "done"]
    sums = (sum(getattr(line, name) for line in done) for name in ("clips", "frames", "bytes"))
    print("{} of {} shards done: {} clips, {} frames, {} bytes".format(len(done), len(lines), *sums))
    _write(config.out, {"shards": [asdict(line) for line in lines]})


def stats(config: DictConfig) -> None:
    found = statistics(config.input)
    names = ("clips", "videos", "frames", "hours", "bytes", "bpp", "kbps")
    head = ("clips", "videos", "frames", "hours", "bytes", "bit/pixel", "kbit/s")
    for group in ("splits", "classes"):
        rows = [[key, *(sums[name] for name in names)] for key, sums in found[group].items()]
        total = [["total", *(found["total"][name] for name in names)]]
        print(format_table(rows + (total if group == "splits" else []), [group, *head]) + "\n")
    for corpus in found["corpora"]:
        print(f"corpus: {corpus['root']} ({corpus['form']}), {corpus['files']} files")
    print(f"codec: {found['codec']} (model {found['model']})")
    for name in ("verdicts", "qp", "variant"):
        print(f"{name}: " + ", ".join(f"{value}: {count}" for value, count in found[name].items()))
    size, source_bytes = found["total"]["bytes"], found["total"]["source_bytes"]
    print(f"all clips: {size} bytes, {beside_sources(size, source_bytes)}")
    print(f"repeats: {len(found['repeats'])} files whose content, label and split an earlier one has")
    _some([f"  {repeat['source']} is {repeat['repeat_of']}" for repeat in found["repeats"]])
    print(f"the same content under other labels or splits: {len(found['other_samples'])}")
    _some(["  " + " = ".join(paths) for paths in found["other_samples"]])
    _write(config.out, found)


def verify(config: DictConfig) -> int:
    require_number("every", config.every, 1, whole=True)
    require_number("processes", config.processes, 1, whole=True)
    with progress_bar(desc="verify", unit="shard", total=_count(config.input)) as meter:
        problems = verify_folder(
            config.input, processes=config.processes, progress=lambda done: meter.update(done) and None
        )
    decoded = 0
    if config.decode:
        try:
            shards = LatentShards(config.input, partial=True)
        except ShardError as error:
            print(f"not decoded: {error}")
        else:
            shards = LatentShards(config.input, partial=True, codec=_codec(config, shards.plan))
            decoded = len(range(0, len(shards), config.every))
            with progress_bar(desc="decode", unit="clip", total=decoded) as meter:
                known = {problem.clip for problem in problems}
                found = check_decoding(shards, config.every, lambda done: meter.update(done) and None)
                problems += [problem for problem in found if problem.clip not in known]
    for problem in problems:
        print(problem)
    what = f"{_count(config.input)} shards" + (f", {decoded} clips decoded" if config.decode else "")
    print(f"{what}: {len(problems)} problems" if problems else f"{what}: all sound")
    if problems:
        print(f"what can be done: vidlbc shards repair input={config.input}")
    _write(config.out, {"problems": [asdict(problem) for problem in problems]})
    return 1 if problems else 0


def repair(config: DictConfig) -> int:
    with progress_bar(desc="repair", unit="shard", total=_count(config.input)) as meter:
        repairs = repair_folder(
            config.input, apply=config.apply, drop=config.drop, progress=lambda done: meter.update(done) and None
        )
    for one in repairs:
        for problem in one.problems[:_LISTED]:
            print(f"  {problem}")
        print(f"{one.shard}: {one.action}: {one.why}")
    left = sum(one.action == "leave" for one in repairs)
    done = "done" if config.apply else "nothing was changed: apply=true does it"
    print(
        f"{len(repairs)} shards are damaged, {left} of them cannot be mended so; {done}"
        if repairs
        else "nothing to mend"
    )
    if config.apply and any(one.action == "remove" for one in repairs):
        print("run the encoding command of this folder again: it makes the shards that were removed")
    _write(config.out, {"repairs": [asdict(one) for one in repairs]})
    return 1 if left else 0


def merge(config: DictConfig) -> None:
    if not isinstance(config.input, ListConfig) or config.output is None:
        raise InputError("merge: expected input=[A,B] and output=FOLDER")
    folders = [str(folder) for folder in config.input]
    for folder in folders:
        require_shards(Path(folder))
    with progress_bar(desc="merge", unit="shard", total=sum(map(_count, folders))) as meter:
        merged = merge_folders(folders, config.output, progress=lambda done: meter.update(done) and None)
    print(f"{len(merged.repeats)} files are repeats; their clips are kept once")
    _some([f"  {source} of {folder} is {first}" for source, folder, first in merged.repeats])
    print(_first_lines(merged.manifest.summary()))
    print(f"{len(merged.plan.shards)} shards: {config.output}")


def add(config: DictConfig) -> None:
    if config.videos is None:
        raise InputError("missing value: give videos=... (folder of videos, annotation list, or one video)")
    plan = Plan.load(config.input)
    corpus = read_annotations(config.videos, config.labels, fold=config.fold)
    codec = _codec(config, plan)
    with progress_bar(desc="hash", unit="file", total=len({item.path for item in corpus.items})) as meter:
        contents = contents_of(corpus, progress=lambda path: meter.update(1) and None)
    added = add_videos(
        config.input,
        corpus,
        codec,
        split=config.split,
        shard_videos=config.shard_videos,
        contents=contents,
        processes=config.processes,
        device=config.device,
    )
    for warning in added.warnings:
        print(f"warning: {warning}")
    count = len(added.plan.shards) - added.first_shard
    repeats = f"{added.repeats} of them repeats; {added.listed} were there already"
    print(f"{added.files} files added in {count} shards, {repeats}")
    print(_first_lines(added.manifest.summary()))


def export(config: DictConfig) -> int:
    if config.output is None:
        raise InputError("missing value: give output=... (folder for the videos)")
    check_export(config.format, config.output, config.overwrite)
    shards = LatentShards(config.input, config.split)
    if config.format != "bitstreams":
        shards = LatentShards(config.input, config.split, codec=_codec(config, shards.plan))
    with progress_bar(desc="export", unit="video") as meter:
        done = export_shards(
            shards,
            config.output,
            config.format,
            fps=config.fps,
            crf=config.crf,
            progress=lambda video: meter.update(1) and None,
            overwrite=config.overwrite,
        )
    failed = [video for video in done if video.problem]
    for video in failed:
        print(f"not exported: {video.source}: {video.problem}")
    print(
        f"{len(done) - len(failed)} videos, {sum(video.frames for video in done)} frames -> {config.output}/labels.csv"
    )
    return 2 if failed else 0


def _codec(config: DictConfig, plan: Plan) -> Any:
    """The folder's codec; `add` and `export` need its weights, wherever they lie now."""
    settings = plan.settings
    return vidlbc.load(
        config.model or settings.model,
        device=config.device,
        temporal=config.temporal or settings.temporal,
        precision=settings.precision,
        refine=config.refine,
        effort=settings.effort,
        keyint=settings.keyint,
    )


def _count(folder: str) -> int:
    try:
        return len(Plan.load(folder).shards)
    except ShardError:
        return 0


def _first_lines(text: str) -> str:
    lines = text.splitlines()
    return "\n".join(lines[:_LISTED] + ([f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []))


def _some(lines: list[str]) -> None:
    if lines:
        print(_first_lines("\n".join(lines)))


def _write(path: str | None, value: dict[str, Any]) -> None:
    if path is not None:
        write_atomic(Path(path), dump_json(value, indent=1))
        print(f"written to {path}")
