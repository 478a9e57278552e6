"""One source file becomes clips and a verdict. Whatever is wrong with the file stays in its verdict.

source --sha256--> as planned? --reader--> blocks --cut--> clips --codec--> clip000000.vlbc ... and a row each
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Unpack

import numpy as np

from vidlbc.data.content import content_of, local_file
from vidlbc.errors import VideoError, VidlbcError
from vidlbc.run.stage_clock import StageClock
from vidlbc.shards.clips import Block, cut_clips, thinned
from vidlbc.shards.plan import Plan, PlannedFile
from vidlbc.shards.settings import EncodingSettings
from vidlbc.shards.table import ClipRow
from vidlbc.video.rates import off_a_constant_rate

if TYPE_CHECKING:  # it brings torch
    from vidlbc.codec.options import Options
    from vidlbc.codec.rate_control import Target, TargetReport


class Progress(Protocol):
    """What is told of a file while it is encoded; see vidlbc.shards.claims."""

    def frames(self, count: int) -> None:
        """`count` more frames are finished."""

    def expect(self, count: int) -> None:
        """The file will give so many more frames than was thought."""


class EncodeReport(Protocol):
    """What `compress_stream` tells about one clip."""

    @property
    def frames(self) -> int: ...
    @property
    def estimated_bits(self) -> float: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def qp(self) -> int: ...
    @property
    def variant(self) -> str | None: ...
    @property
    def base_bytes(self) -> int | None: ...


class ClipCodec(Protocol):
    """The part of a vidlbc codec that writing shards needs."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def clock(self) -> StageClock: ...
    @property
    def lanes(self) -> int:
        """How many threads are best to call `compress_stream` at a time."""
        ...

    def compress_stream(
        self, blocks: Iterable[Block], sink: BinaryIO, qp: int = 32, **options: Unpack[Options]
    ) -> EncodeReport: ...

    def compress_to_target(
        self, frames: np.ndarray, sink: BinaryIO, target: Target, **options: Unpack[Options]
    ) -> TargetReport: ...


class ClipReader(Protocol):
    """The part of `vidlbc.video.VideoReader` that writing shards needs: `verdict` is there once `blocks` has ended."""

    def blocks(self) -> Iterator[Block]: ...
    @property
    def verdict(self) -> Any: ...
    @property
    def info(self) -> Any: ...
    @property
    def spent(self) -> float:
        """Processor seconds of its decoder, in another process."""
        ...


OpenReader = Callable[[Path, PlannedFile, EncodingSettings], ClipReader]


@dataclass(frozen=True)
class FileVerdict:
    """What became of one listed file: status `ok`, `damaged` or `unreadable`, and the clips that it gave."""

    path: str
    split: str | None
    label: int | None
    group: str | None
    start: int | None
    stop: int | None
    sha256: str
    size: int
    status: str
    reason: str
    frames: int
    clips: int
    bytes: int
    repeat_of: str | None
    decoder: str
    decoder_version: str
    notes: str = ""

    def to_json(self) -> dict[str, Any]:
        """`notes` only where there are some, so that what was written before they were has the same bytes."""
        return {name: value for name, value in asdict(self).items() if value or name != "notes"}


def open_video(path: Path, source: PlannedFile, settings: EncodingSettings) -> ClipReader:
    """The default reader: decoding in a worker process that is killed at its deadline."""
    from vidlbc.video import VideoReader

    reader: ClipReader = VideoReader(
        path,
        start=source.start or 0,
        stop=source.stop,
        block=settings.block,
        deadline_s=settings.deadline_s,
        backend=settings.backend,
        max_side=settings.max_side,
        deinterlace=settings.deinterlace,
        picture_fps=settings.picture_fps,
    )
    return reader


def encode_source(
    plan: Plan, source: PlannedFile, work: Path, codec: ClipCodec, open_reader: OpenReader, progress: Progress
) -> tuple[list[tuple[ClipRow, Path]], FileVerdict]:
    """The clips of one file as (row, bitstream file), and the file's verdict. A file's trouble never leaves here."""
    clips: list[tuple[ClipRow, Path]] = []
    status, reason, decoder, version, notes = "ok", "", "", "", ""
    if source.repeat_of is None:
        try:
            with codec.clock.stage("files"):
                _check_content(plan, source)
            with local_file(plan.root, source.path, work / "source") as path:
                reader = open_reader(path, source, plan.settings)
                try:
                    clips = _encode_clips(plan, source, work, codec, reader, progress)
                finally:
                    decoder, version = _decoder(reader)
                    codec.clock.add("video decoding", reader.spent)
                verdict = reader.verdict
                status, reason, notes = verdict.status, verdict.reason, "; ".join(getattr(verdict, "notes", ()))
                _describe(clips, reader, str(verdict), plan.settings)
        except VidlbcError as error:
            # Raised, not judged: too small for the codec, changed since the plan, no worker. None of it is kept.
            status, reason = "unreadable", str(error)
    if status == "unreadable" or (not clips and source.repeat_of is None):
        reason = reason or "no frames"
        for _, path in clips:
            path.unlink(missing_ok=True)
        clips, status = [], "unreadable"
    frames = sum(row["frames"] for row, _ in clips)
    size = sum(row["bytes"] for row, _ in clips)
    names = ("path", "split", "label", "group", "start", "stop", "sha256", "size", "repeat_of")
    listed = {name: getattr(source, name) for name in names}
    return clips, FileVerdict(
        **listed,
        status=status,
        reason=" ".join(reason.split()),
        frames=frames,
        clips=len(clips),
        bytes=size,
        decoder=decoder,
        decoder_version=version,
        notes=notes if clips else "",
    )


def _check_content(plan: Plan, source: PlannedFile) -> None:
    """The key names the content: make sure that it is still the content that was planned."""
    if source.problem:
        raise VideoError(source.problem)
    content = content_of(plan.root, source.path)
    if content.problem:
        raise VideoError(content.problem)
    if content.sha256 != source.sha256:
        raise VideoError("changed since the plan was made")


def _encode_clips(
    plan: Plan, source: PlannedFile, work: Path, codec: ClipCodec, reader: ClipReader, progress: Progress
) -> list[tuple[ClipRow, Path]]:
    def counted(blocks: Iterator[Block]) -> Iterator[Block]:
        while True:
            with codec.clock.stage("transfer"):
                block = next(blocks, None)
            if block is None:
                return
            if not told[0]:
                told[0] = max(1, _promised(source, reader, settings.step))
                progress.expect(told[0])
            yield block
            progress.frames(len(block))

    settings, told = plan.settings, [0]
    start = source.start or 0
    clips: list[tuple[ClipRow, Path]] = []
    for clip in cut_clips(thinned(reader.blocks(), settings.step), settings.clip_frames):
        path = work / f"clip{len(clips):06d}.vlbc"
        with open(path, "w+b") as sink:
            report, reached = _compress(codec, counted(clip), sink, settings, _rate(reader, settings) or 0)
        with codec.clock.stage("files"):
            sha256, base_sha256 = _sha256(path), _sha256(path, report.base_bytes) if report.base_bytes else None
        stop = start + (report.frames - 1) * settings.step + 1
        row: ClipRow = {
            "key": plan.key(source, start, stop),
            "label": source.label,
            "label_name": None if source.label is None else plan.classes[source.label],
            "split": source.split,
            "group": source.group,
            "source": source.path,
            "source_sha256": source.sha256,
            "video": source.video,
            "start": start,
            "stop": stop,
            "frames": report.frames,
            "height": report.height,
            "width": report.width,
            "qp": report.qp,
            "variant": report.variant,
            "rdo": settings.rdo,
            "target": None if settings.target is None else "{}={:g}".format(*settings.target),
            "reached": reached,
            "codec": plan.fingerprint,
            "bytes": path.stat().st_size,
            "bits": 8 * path.stat().st_size,
            "estimated_bits": round(float(report.estimated_bits)),
            "sha256": sha256,
            "base_bytes": report.base_bytes,
            "base_sha256": base_sha256,
            "fps": None,  # this and what follows: once the file has been read to its end
            "verdict": "",
            "decoder": "",
            "decoder_version": "",
        }
        clips.append((row, path))
        start += report.frames * settings.step
    progress.expect(sum(row["frames"] for row, _ in clips) - told[0])
    return clips


def _promised(source: PlannedFile, reader: ClipReader, step: int) -> int:
    """Frames that a file will give, by its header; 0 where it does not say."""
    info = reader.info
    frames = getattr(info, "frames", None) or round(
        float((getattr(info, "duration", 0) or 0) * getattr(info, "fps", 0))
    )
    stop = frames if source.stop is None else min(frames, source.stop)
    return -(-max(0, stop - (source.start or 0)) // step)


def _compress(
    codec: ClipCodec, clip: Iterator[Block], sink: BinaryIO, settings: EncodingSettings, fps: float | Fraction
) -> tuple[EncodeReport, float | None]:
    """What was written, and what a target reached. A target needs the whole clip in memory: up to `clip_frames`."""
    options: Options = {"context": settings.context, "fps": fps, "variant": settings.variant, "rdo": settings.rdo}
    if settings.target is None:
        return codec.compress_stream(clip, sink, qp=settings.qp, **options), None
    from vidlbc.codec.rate_control import Target

    target = Target(*settings.target)
    target.check_rate(fps)
    report = codec.compress_to_target(np.concatenate(list(clip)), sink, target, **options)
    return report, round(report.reached, 4)


def _describe(clips: list[tuple[ClipRow, Path]], reader: ClipReader, verdict: str, settings: EncodingSettings) -> None:
    """Complete the rows with what is known only once the file has been read to its end."""
    decoder, version = _decoder(reader)
    rate, aspect = _rate(reader, settings), getattr(reader.info, "aspect", 1)
    times: list[float | None] = getattr(reader, "seconds", [])
    varies = off_a_constant_rate(times[:: settings.step])
    first = clips[0][0]["start"] if clips else 0
    for row, _ in clips:
        if varies:
            shown = times[row["start"] - first : row["stop"] - first : settings.step]
            row["times"] = [round(1e6 * ((time or 0.0) - (times[0] or 0.0))) for time in shown]
        if aspect != 1:
            row["aspect"] = f"{aspect.numerator}/{aspect.denominator}"
        row["fps"], row["verdict"] = str(rate) if rate else None, verdict
        row["decoder"], row["decoder_version"] = decoder, version


def _rate(reader: ClipReader, settings: EncodingSettings) -> Fraction | None:
    """Coded frames per second; known once the first block has been read."""
    if not reader.info or not reader.info.fps:
        return None
    return Fraction(reader.info.fps).limit_denominator(1_000_000) / settings.step


def _decoder(reader: ClipReader) -> tuple[str, str]:
    verdict = getattr(reader, "verdict", None)
    return (verdict.backend or "", verdict.backend_version or "") if verdict is not None else ("", "")


def _sha256(path: Path, size: int | None = None) -> str:
    """Of the file, or of its first `size` bytes."""
    with open(path, "rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(file.read(size)).hexdigest()
