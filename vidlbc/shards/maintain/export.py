"""Shards to folders that other tools read: OUT/split/class/video.mp4, with the list that says the same.

labels.csv (path,label,group,split) and labels.json: `read_annotations` gives the same labels, groups and splits
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from vidlbc.errors import InputError, VidlbcError
from vidlbc.run.atomic_files import dump_json, full_disk_as_error, write_atomic
from vidlbc.run.outputs import RECORD, Outputs
from vidlbc.shards.decode import DecodedVideo, decode_shards, videos_of
from vidlbc.shards.reader import LatentShards

EXPORTS = ("mp4", "bitstreams", "latents")


def export_shards(
    shards: LatentShards,
    output: str | Path,
    form: str = "mp4",
    *,
    fps: Any = None,
    crf: int = 18,
    progress: Callable[[DecodedVideo], None] | None = None,
    overwrite: bool = False,
) -> list[DecodedVideo]:
    """Write every video of `shards` as `output/SPLIT/CLASS/NAME.mp4`, and `labels.csv` with `labels.json` beside them.

    `bitstreams`: a .vlbc file a clip; `latents`: a .safetensors file a clip with `level0` (finest) and on, float32
    (T, C_l, H_l, W_l). Clips of a video that has several get their first frame behind the name. A video that cannot be
    decoded is told in its result, and not listed. What an earlier call with the same arguments has finished stays.
    Raises InputError for an unknown form, or a file in `output` that is not such a call's, unless `overwrite`.
    """
    check_export(form, output, overwrite)
    videos, folder = _places(shards), Path(output)
    outputs = Outputs(folder, overwrite)
    made_of = _digest(shards, form, fps, crf)
    lists = [folder / "labels.csv", *([folder / "labels.json"] if shards.classes else [])]
    outputs.check(dict.fromkeys(lists, made_of))
    with full_disk_as_error(Path(output)):
        if form == "mp4":
            done = decode_shards(
                shards, output, form, fps=fps, crf=crf, progress=progress, videos=videos, overwrite=overwrite
            )
            listed = [[video.path] for video in done]
        else:
            done, listed = [], []
            clips = {name: _clip_paths(shards, folder, name, rows, form) for name, rows in videos}
            outputs.check({path: made_of for paths in clips.values() for path in paths})
            for name, rows in videos:
                video, paths = _write_clips(shards, outputs, made_of, clips[name], rows, form)
                done.append(video)
                listed.append(paths)
                if progress:
                    progress(video)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split"])
    for (_, rows), video, paths in zip(videos, done, listed, strict=True):
        meta = shards.meta(rows[0])
        for path in [] if video.problem else paths:
            writer.writerow(
                [
                    path.relative_to(output).as_posix(),
                    meta["label_name"] or "",
                    meta["group"] or "",
                    meta["split"] or "",
                ]
            )
    texts = [table.getvalue().encode(), dump_json({"classes": list(shards.classes or ())}, indent=1)]
    for path, text in zip(lists, texts, strict=False):
        with outputs.writing(path, made_of):
            write_atomic(path, text)
    return done


def check_export(form: str, output: str | Path, overwrite: bool = False) -> None:
    """Raise InputError for a form that is not written, or an output that holds something else."""
    if form not in EXPORTS:
        raise InputError(f"format={form}: expected {', '.join(EXPORTS)}")
    folder = Path(output)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file() and not overwrite:
        raise InputError(f"{folder}: expected a new folder, one of an earlier export, or overwrite=true")


def _places(shards: LatentShards) -> list[tuple[str, list[int]]]:
    """As `videos_of`, but named split/class/video; those whose names meet get 8 characters of the video's hash."""
    named = []
    for source, rows in videos_of(shards):
        meta = shards.meta(rows[0])
        parts = [meta["split"] or "", *_parts(meta["label_name"] or ""), PurePosixPath(source).name]
        named.append((PurePosixPath(*[part for part in parts if part]).as_posix(), meta["video"], rows))
    shared = Counter(name.lower() for name, _, _ in named)  # also where a file system does not tell cases apart
    return [(name if shared[name.lower()] == 1 else f"{name}_{video[:8]}", rows) for name, video, rows in named]


def _parts(label: str) -> list[str]:
    """A class name as folders, none of which leads out of the output."""
    return [part for part in PurePosixPath(label.replace("\0", "")).parts if part not in ("/", "..", ".")]


def _clip_paths(shards: LatentShards, output: Path, name: str, rows: list[int], form: str) -> list[Path]:
    """A file a clip; those of a video that has several have their first frame behind the name."""
    suffix = "vlbc" if form == "bitstreams" else "safetensors"
    starts = [f"_{shards.meta(row)['start']:07d}" if len(rows) > 1 else "" for row in rows]
    return [output / f"{name}{start}.{suffix}" for start in starts]


def _write_clips(
    shards: LatentShards, outputs: Outputs, made_of: str, paths: list[Path], rows: list[int], form: str
) -> tuple[DecodedVideo, list[Path]]:
    earlier = [outputs.done(path, made_of) is not None for path in paths]
    source, frames = shards.meta(rows[0])["source"], sum(shards.meta(row)["frames"] for row in rows)
    if not all(earlier):
        for place, (path, row) in enumerate(zip(paths, rows, strict=True)):
            try:
                data = shards.bitstream(row)
                with outputs.writing(path, made_of) as written:
                    write_atomic(path, data if form == "bitstreams" else _latents(shards, data))
                    written.frames = shards.meta(row)["frames"]
            except VidlbcError as error:
                for path_before in paths[:place]:
                    path_before.unlink()
                return DecodedVideo(source, path, 0, str(error)), []
    return DecodedVideo(source, paths[0], frames, earlier=all(earlier)), paths


def _digest(shards: LatentShards, form: str, fps: Any, crf: int) -> str:
    """What an export depends on."""
    options = f"{fps} {crf}" if form == "mp4" else ""
    digest = hashlib.sha256(f"{form} {shards.plan.fingerprint} {shards.split} {options}".encode())
    for row in shards.table["sha256"].to_pylist():
        digest.update(row.encode())
    return digest.hexdigest()


def _latents(shards: LatentShards, data: bytes) -> bytes:
    from safetensors.torch import save

    levels = shards.codec.latents(data)
    return save({f"level{number}": level.contiguous().cpu() for number, level in enumerate(levels)})
