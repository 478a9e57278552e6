"""Shards to folders that other tools read: OUT/split/class/video.mp4, with the list that says the same.

labels.csv (path,label,group,split) and labels.json: `read_annotations` gives the same labels, groups and splits
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from vidlbc.errors import InputError, VidlbcError
from vidlbc.shards.decode import DecodedVideo, decode_shards, videos_of
from vidlbc.shards.layout import dump_json, full_disk_as_error, write_atomic
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
) -> list[DecodedVideo]:
    """Write every video of `shards` as `output/SPLIT/CLASS/NAME.mp4`, and `labels.csv` with `labels.json` beside them.

    `bitstreams`: a .vlbc file a clip; `latents`: a .safetensors file a clip with `level0` (finest) and on, float32
    (T, C_l, H_l, W_l). Clips of a video that has several get their first frame behind the name. A video that cannot be
    decoded is told in its result, and not listed. Raises InputError for an unknown form or an `output` in use.
    """
    check_export(form, output)
    videos = _places(shards)
    with full_disk_as_error(Path(output)):
        if form == "mp4":
            done = decode_shards(shards, output, form, fps=fps, crf=crf, progress=progress, videos=videos)
            listed = [[video.path] for video in done]
        else:
            done, listed = [], []
            for name, rows in videos:
                video, paths = _write_clips(shards, Path(output), name, rows, form)
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
    write_atomic(Path(output) / "labels.csv", table.getvalue().encode())
    if shards.classes:
        write_atomic(Path(output) / "labels.json", dump_json({"classes": list(shards.classes)}, indent=1))
    return done


def check_export(form: str, output: str | Path) -> None:
    """Raise InputError for a form that is not written, or an output that holds something else."""
    if form not in EXPORTS:
        raise InputError(f"format={form}: expected {', '.join(EXPORTS)}")
    folder = Path(output)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "labels.csv").is_file()):
        raise InputError(f"{folder}: expected a new folder, or one of an earlier export (with labels.csv)")


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


def _write_clips(
    shards: LatentShards, output: Path, name: str, rows: list[int], form: str
) -> tuple[DecodedVideo, list[Path]]:
    paths: list[Path] = []
    frames = 0
    for row in rows:
        meta = shards.meta(row)
        start = f"_{meta['start']:07d}" if len(rows) > 1 else ""
        path = output / f"{name}{start}.{'vlbc' if form == 'bitstreams' else 'safetensors'}"
        try:
            data = shards.bitstream(row)
            write_atomic(path, data if form == "bitstreams" else _latents(shards, data))
        except VidlbcError as error:
            for written in paths:
                written.unlink()
            return DecodedVideo(meta["source"], path, 0, str(error)), []
        paths.append(path)
        frames += meta["frames"]
    return DecodedVideo(shards.meta(rows[0])["source"], paths[0], frames), paths


def _latents(shards: LatentShards, data: bytes) -> bytes:
    from safetensors.torch import save

    levels = shards.codec.latents(data)
    return save({f"level{number}": level.contiguous().cpu() for number, level in enumerate(levels)})
