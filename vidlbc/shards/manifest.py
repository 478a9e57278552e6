"""The manifest: every listed file with its verdict, and the sums. Put together from the stats of finished shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlbc.codec.bitstream.rates import beside_sources
from vidlbc.errors import ShardError, one_line
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.shards.layout import MANIFEST, ShardFiles, read_stats
from vidlbc.shards.plan import Plan
from vidlbc.shards.sources import FileVerdict
from vidlbc.shards.table import manifest_table, table_bytes

_NUMBERS = re.compile(r"\d+(\.\d+)?")
_SUMS = ("n_failed", "n_damaged", "n_repeats", "n_clips", "frames", "pixels", "bytes", "estimated_bits")


@dataclass(frozen=True)
class Manifest:
    """Sums over a finished run. `n_videos` counts listed items; `n_failed` unreadable ones, which gave no clip.

    `qp`: of all clips, None where each has its own; `short`: clips that could not reach the target that was asked for.
    """

    n_videos: int
    n_failed: int
    n_damaged: int
    n_repeats: int
    n_clips: int
    frames: int
    pixels: int
    bytes: int
    estimated_bits: int
    source_bytes: int
    files: tuple[dict[str, Any], ...]
    qp: int | None = None
    short: int = 0

    @property
    def bpp(self) -> float:
        """Bits per pixel of the bitstreams, from their true sizes (0 when there are none)."""
        return 8 * self.bytes / self.pixels if self.pixels else 0.0

    @property
    def troubled(self) -> list[dict[str, Any]]:
        """The files whose verdict is not `ok`."""
        return [file for file in self.files if file["status"] != "ok"]

    def summary(self) -> str:
        """What a person wants to know, one fact a line: sums, every file that is not `ok`, what was noted of others."""
        ok = self.n_videos - self.n_failed - self.n_damaged
        ratio = beside_sources(self.bytes, self.source_bytes, self.qp)
        lines = [
            f"{self.n_videos} videos: {ok} ok, {self.n_damaged} damaged, {self.n_failed} unreadable;"
            f" {self.n_repeats} repeats",
            f"{self.n_clips} clips, {self.frames} frames, {self.bytes} bytes ({ratio}), {self.bpp:.4f} bits per pixel",
        ]
        if self.short:
            lines.append(f"{self.short} clips fall short of the target: no qp or variant reaches it (column `reached`)")
        for file in self.troubled:
            kept = f" ({file['frames']} frames kept)" if file["status"] == "damaged" else ""
            lines.append(f"{file['status']}{kept}: {file['path']}: {file['reason']}")
        noted: dict[str, list[str]] = {}
        for file in self.files:
            for note in (file.get("notes") or "").split("; "):
                if note:
                    noted.setdefault(_NUMBERS.sub("N", note), []).append(f"{file['path']}: {note}")
        for found in noted.values():
            more = f" (and {len(found) - 1} more such)" if len(found) > 1 else ""
            lines.append(f"noted: {found[0]}{more}")
        return "\n".join(lines)


def gather(plan: Plan) -> Manifest:
    """The manifest of a finished run. Raises ShardError when shards are missing."""
    files: list[dict[str, Any]] = []
    sums, short = dict.fromkeys(_SUMS, 0), 0
    for index in range(len(plan.shards)):
        stats = read_stats(ShardFiles(Path(plan.output), index))
        if stats is None:
            raise ShardError(f"{plan.output}: shard {index:05d} is not finished; run the encoding again")
        try:
            for name in sums:
                sums[name] += stats[name]
            short += stats.get("n_short", 0)
            if len(stats["files"]) != plan.shards[index].last - plan.shards[index].first:
                raise ValueError(f"verdicts of {len(stats['files'])} files")
            for file in stats["files"]:
                FileVerdict(**file)  # TypeError where it is none
                label = file["label"]
                if label is not None and label < 0:
                    raise ValueError(f"label {label}")
                label_name = None if label is None else plan.classes[label]
                files.append({**file, "shard": index, "label_name": label_name})
        except (KeyError, TypeError, IndexError, ValueError) as error:
            path = ShardFiles(Path(plan.output), index).stats
            raise ShardError(f"{path}: damaged stats ({one_line(error)}); see vidlbc shards verify") from None
    sizes = {(part.root, source.path): source.size for part in plan.parts for source in part.sources}
    qp = plan.settings.qp if plan.settings.target is None else None
    source_bytes = sum(sizes.values())
    return Manifest(n_videos=len(files), source_bytes=source_bytes, files=tuple(files), qp=qp, short=short, **sums)


def write_manifest(plan: Plan) -> Manifest:
    """Write `manifest.parquet`, `manifest.json` (the sums) and `summary.txt`, atomically; returns the manifest."""
    manifest = gather(plan)
    for name, data in manifest_files(manifest).items():
        write_atomic(Path(plan.output) / MANIFEST / name, data)
    return manifest


def manifest_files(manifest: Manifest) -> dict[str, bytes]:
    """What the files of a manifest hold, by name."""
    sums = {name: value for name, value in vars(manifest).items() if name in ("n_videos", "source_bytes", *_SUMS)}
    return {
        "manifest.parquet": table_bytes(manifest_table(list(manifest.files))),
        "manifest.json": dump_json({**sums, "bpp": manifest.bpp}, indent=1),
        "summary.txt": (manifest.summary() + "\n").encode(),
    }
