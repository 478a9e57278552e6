"""Shards back to videos that people can look at: the clips of a source joined again, under the source's own name."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vidlbc.errors import InputError, ShardError, VidlbcError
from vidlbc.run.outputs import Outputs
from vidlbc.shards.reader import LatentShards

FORMATS = ("mp4", "png")
_NAME_BYTES = 200  # of a folder or file; systems take 255, and suffixes are added
_DEFAULT_FPS = Fraction(25)
_RATE = re.compile(r"[1-9][0-9]{0,9}(/[1-9][0-9]{0,9})?", re.ASCII)


@dataclass(frozen=True)
class DecodedVideo:
    """One decoded source: where it went, how many frames, or what kept it from being decoded.

    `earlier`: it was there already, whole, from an earlier run.
    """

    source: str
    path: Path
    frames: int
    problem: str = ""
    earlier: bool = False


def decode_shards(
    shards: LatentShards,
    output: str | Path,
    form: str = "mp4",
    *,
    fps: Fraction | float | None = None,
    crf: int = 18,
    progress: Callable[[DecodedVideo], None] | None = None,
    videos: Sequence[tuple[str, list[int]]] | None = None,
    overwrite: bool = False,
) -> list[DecodedVideo]:
    """Decode every video of `shards` to `output/SOURCE.mp4`, or to `output/SOURCE/000000.png` and on.

    `fps`: the sources' own where None. `videos`: other names for them than `videos_of` gives. Memory is a block of
    frames. A video that cannot be decoded is told in its result and leaves no file; the others are decoded. What an
    earlier call with the same arguments has finished is not decoded again. Raises InputError for an unknown form, or a
    file that is there already and is not such a call's, unless `overwrite`; OSError for a full disk.
    """
    check_form(form)
    chosen = videos_of(shards) if videos is None else videos
    outputs = Outputs(output, overwrite)
    made_of = {source: _made_of(shards, rows, form, fps, crf) for source, rows in chosen}
    outputs.check({named(Path(output) / source, form): made_of[source] for source, _ in chosen})
    done = []
    for source, rows in chosen:
        path = Path(output) / source
        target = named(path, form)
        try:
            earlier = outputs.done(target, made_of[source])
            if earlier is None:
                rate = fps or clip_rate(shards, rows[0])
                times = None if fps else clip_times(shards, rows)
                aspect = clip_aspect(shards, rows[0])
                with outputs.writing(target, made_of[source], form == "png") as written:
                    frames = _frames(shards, rows)
                    written.frames = write_frames(path, frames, form, rate, crf, times, aspect)
                result = DecodedVideo(source, target, written.frames)
            else:
                result = DecodedVideo(source, target, earlier, earlier=True)
        except VidlbcError as error:
            result = DecodedVideo(source, target, 0, str(error))
        done.append(result)
        if progress:
            progress(result)
    return done


def _made_of(shards: LatentShards, rows: list[int], form: str, fps: Any, crf: int) -> str:
    """What the file of a video depends on: bitstreams, what decodes them, options."""
    digest = hashlib.sha256(f"{form} {fps} {crf if form == 'mp4' else ''} {_shows(shards)}".encode())
    for row in rows:
        digest.update(shards.table["sha256"][row].as_py().encode())
        if times := shards.meta(row).get("times"):
            digest.update(repr(times).encode())
    return digest.hexdigest()


def _shows(shards: LatentShards) -> str:
    """Which pictures the codec makes of the bitstreams."""
    return str(getattr(shards.codec, "picture_fingerprint", shards.codec.fingerprint))


def clip_rate(shards: LatentShards, index: int) -> Fraction:
    """Frames a second of a clip, 25 where unknown. Raises ShardError where its row holds no such thing."""
    text = shards.meta(index)["fps"]
    if text is None:
        return _DEFAULT_FPS
    # Fraction itself would take years over "1e999999999".
    if not _RATE.fullmatch(text):
        raise ShardError(f"{shards.folder}: clip {index}: fps={text[:40]!r}, expected a fraction")
    return Fraction(text)


def clip_times(shards: LatentShards, rows: Sequence[int]) -> list[int] | None:
    """When the frames of a video's clips are shown, rising microseconds; None: at a constant rate, or not all known."""
    times = [time for row in rows for time in shards.meta(row).get("times") or ()]
    known = len(times) == sum(shards.meta(row)["frames"] for row in rows)
    return times if known and all(a < b for a, b in pairwise(times)) else None


def clip_aspect(shards: LatentShards, index: int) -> Fraction:
    """Width of a clip's pixels to their height. Raises ShardError where its row holds no such thing."""
    text = shards.meta(index).get("aspect") or "1"
    if not _RATE.fullmatch(text):
        raise ShardError(f"{shards.folder}: clip {index}: aspect={text[:40]!r}, expected a fraction")
    return Fraction(text)


def write_frames(
    path: Path,
    frames: Iterator[np.ndarray],
    form: str,
    fps: Any,
    crf: int = 18,
    times: Sequence[int] | None = None,
    aspect: Fraction = Fraction(1),
) -> int:
    """Write (H, W, 3) uint8 frames as `path`.mp4 or into the folder `path`; returns how many. `times`, `aspect`: see
    vidlbc.video.write_mp4."""
    from vidlbc.video import write_mp4, write_pngs

    if form == "mp4":
        return write_mp4(named(path, form), frames, fps, crf, times, aspect)
    return write_pngs(path, frames)


def named(path: Path, form: str) -> Path:
    """What a video called `path` becomes: a file for mp4, a folder for png."""
    return path.with_name(path.name + ".mp4") if form == "mp4" else path


def check_form(form: str) -> None:
    """Raise InputError for a format that is not written."""
    if form not in FORMATS:
        raise InputError(f"format={form}: expected {' or '.join(FORMATS)}")


def videos_of(shards: LatentShards) -> list[tuple[str, list[int]]]:
    """(output name without suffix, clip indices in frame order) of every video.

    A name is the source's path without what would lead out of the output folder. Sources that differ only in their
    suffix, frame range or label get 8 characters of the video's hash.
    """
    columns = {name: shards.table[name].to_pylist() for name in ("video", "source", "start")}
    clips: dict[str, list[int]] = {}
    sources: dict[str, str] = {}
    for index, (video, source) in enumerate(zip(columns["video"], columns["source"], strict=True)):
        clips.setdefault(video, []).append(index)
        sources[video] = _inside(source)
    shared = Counter(sources.values())
    names = {video: name if shared[name] == 1 else f"{name}_{video[:8]}" for video, name in sources.items()}
    ordered = sorted(clips.items(), key=lambda pair: names[pair[0]])
    return [(names[video], sorted(rows, key=lambda row: columns["start"][row])) for video, rows in ordered]


def _inside(source: str) -> str:
    archive, _, member = source.rpartition(".tar::")
    kept = [part.replace("\0", "").encode(errors="replace") for part in PurePosixPath(archive, member).parts]
    parts = [part[:_NAME_BYTES].decode(errors="ignore") for part in kept if part.strip(b"/.")]
    return PurePosixPath(*parts).with_suffix("").as_posix() if parts else "unnamed"


def _frames(shards: LatentShards, rows: list[int]) -> Iterator[np.ndarray]:
    for row in rows:
        data = shards.bitstream(row)
        for block in shards.codec.decompress_stream(data):
            yield from block
