"""The main job's report to look at: report/index.html, one file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.codec.bitstream.rates import beside_sources, bits_per_pixel
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError
from vidlbc.evaluate import ProbeResult
from vidlbc.evaluate.codecs import Anchor, build_anchors
from vidlbc.evaluate.plots import running_mean
from vidlbc.evaluate.report import SHOWN_FRAMES, Page, add_clip, show_clip
from vidlbc.pipeline.quality import ClipQuality, Quality
from vidlbc.pipeline.recognition import labelled_videos
from vidlbc.pipeline.settings import JobSettings
from vidlbc.pipeline.sources import source_frames_at
from vidlbc.shards import LatentShards, gather

INPUT_NAMES = {"latents": "latents", "decoded": "decoded frames", "pixels": "source pixels"}
_BESIDE = "x265"
_LISTED = 200  # files that were not sound; all are in the manifest
_PLACES = 600  # of a training curve
_READING = ("deadline_s", "deinterlace", "picture_fps")
_DATA_OPTIONS = ("root", "labels", "fold", "form", "holdout", "clip_frames", "max_side", *_READING)


def write_page(
    path: Path,
    settings: JobSettings,
    shards: LatentShards,
    codec: Codec,
    quality: Quality,
    probes: Mapping[str, ProbeResult],
    figures: Mapping[str, Any],
    training: Sequence[Mapping[str, Any]],
) -> None:
    """`figures`: metrics.json; `training`: the rows of the log, in order of steps."""
    page = Page(f"Latent shards of {settings.data}", f"vidlbc {figures['environment']['vidlbc']}")
    page.text(
        f"{figures['n_videos']} videos, {figures['n_failed']} unreadable, {figures['n_damaged']} damaged; "
        f"{figures['n_clips']} clips. Every rate is the size of a file."
    )
    points = accuracy_points(shards, probes, figures["qp"], settings.evaluation.base)
    page.tiles(_tiles(figures, points, probes, len(shards.classes)))
    if probes:
        page.heading("Accuracy against bits")
        page.text(
            "The same head on three inputs, everything under it frozen; mean bytes of a test video. Source pixels are "
            "a band: their bytes are those of the source files.",
            note=True,
        )
        page.accuracy(points, chance=1 / len(shards.classes))
        page.heading("Classes")
        counts = {INPUT_NAMES[name]: result.confusion() for name, result in probes.items()}
        page.confusion(shards.classes, counts)
    elif figures["recognition_left_out"]:
        page.text(f"Recognition was left out: {figures['recognition_left_out']}.", note=True)
    _add_shown(page, shards, codec, quality.shown)
    _add_training(page, training)
    page.heading("Measured clips")
    header = ["clip", "frames", "bytes", "bit/pixel", "without context", "temporal=none", "PSNR dB", "MS-SSIM"]
    page.table(header, [_clip_row(clip) for clip in quality.clips])
    _add_troubled(page, shards)
    page.heading("Settings")
    page.facts({**_options(settings), "fingerprint": figures["fingerprint"]})
    page.heading("Environment")
    page.facts(figures["environment"])
    page.write(path)


def accuracy_points(
    shards: LatentShards, probes: Mapping[str, ProbeResult], qp: int, base: bool = False
) -> list[dict[str, Any]]:
    """Points for `Page.accuracy`, one an input. Bytes are means over the test videos that the probe was judged on.

    `base`: the latents' bytes are those of the base layer. Source pixels have their files' bytes, and no QP.
    """
    videos = {video.first["key"]: video for video in labelled_videos(shards)}
    sizes = {(source.path, source.sha256): source.size for source in shards.plan.sources}
    points = []
    for name, result in probes.items():
        clips = [row for key in result.keys for _, row in videos[key].clips]
        if name == "pixels":
            total = sum(sizes[source] for source in {(row["source"], row["source_sha256"]) for row in clips})
        else:
            layer = base and name == "latents"
            total = sum((row["base_bytes"] or 0) if layer else row["bytes"] for row in clips)
        pixels = sum(row["frames"] * row["height"] * row["width"] for row in clips)
        points.append(
            {
                "medium": INPUT_NAMES[name],
                "head": result.kind,
                "qp": None if name == "pixels" else qp,
                "bytes": total / result.n_videos,
                "bpp": bits_per_pixel(total, 1, 1, pixels),
                "top1": result.top1,
                "ci95": list(result.ci95),
                "clips": result.n_videos,
            }
        )
    return points


def _tiles(
    f: Mapping[str, Any], points: Sequence[Mapping[str, Any]], probes: Mapping[str, ProbeResult], classes: int
) -> list[tuple[str, str, str]]:
    tiles = []
    for point, result in zip(points, probes.values(), strict=True):
        low, high = (100 * v for v in point["ci95"])
        beside = f"{point['bpp']:.4f} bit/pixel; {result.n_videos} test videos, {result.n_failed} unreadable; "
        beside += f"{result.kind}; chance {100 / classes:.1f}%"
        tiles.append((f"top-1, {point['medium']}", f"{100 * point['top1']:.1f}% [{low:.1f}, {high:.1f}]", beside))
    saved, saved_none = (100 * (1 - f["bpp"] / f[name]) for name in ("bpp_no_context", "bpp_none"))
    tiles += [
        ("bit/pixel", f"{f['bpp']:.4f}", f"qp {f['qp']}, {f['n_measured']} {f['split']} clips, true sizes"),
        ("PSNR, MS-SSIM", f"{f['psnr']:.2f} dB, {f['ms_ssim']:.4f}", "RGB, against the decoded source"),
    ]
    if f["temporal"] != "none":
        if f["rdo"]:
            beside = f"against {f['bpp_none']:.4f} bit/pixel of temporal=none for the same PSNR"
        else:
            beside = f"{f['bpp_no_context']:.4f} bit/pixel without, same symbols; {saved_none:.1f}% below temporal=none"
        tiles.append(("saved by temporal context", f"{saved:.1f}%", beside))
    speed = f"{f['encode_fps'] or 0:.1f}, {f['decode_fps']:.1f} frames/s"
    machine = f"{f['environment']['device']}, {f['environment']['threads']} threads"
    verified = f"{f['verified_clips']} clips, {f['verified_frames']} frames"
    return [
        *tiles,
        (
            "size",
            f"{f['shard_bytes']:,} bytes",
            beside_sources(f["shard_bytes"], f["source_bytes"], f["qp"]),
        ),
        ("encode, decode", speed, machine),
        ("verified", verified, "decode to the same symbols in another process"),
    ]


def _add_shown(page: Page, shards: LatentShards, codec: Codec, clip: ClipQuality) -> None:
    index = next(i for i in range(len(shards)) if shards.meta(i)["key"] == clip.key)
    meta = shards.meta(index)
    source = source_frames_at(shards, meta, meta["frames"], np.arange(min(meta["frames"], SHOWN_FRAMES)))
    fps = Fraction(meta["fps"]) if meta["fps"] and Fraction(meta["fps"]) > 0 else Fraction(25)
    other: Anchor | None = None
    left_out = ""
    try:
        other = build_anchors([_BESIDE])[0][_BESIDE]
    except InputError as error:
        left_out = str(error)
    add_clip(page, show_clip(meta["source"], source, fps, codec, shards.bitstream(index), other, left_out))


def _add_training(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    page.heading("Training of the temporal stage")
    window = max(1, len(rows) // 50)
    if window > 1:
        page.text(f"Running means over {window} entries of the log.", note=True)
    some = np.unique(np.linspace(0, len(rows) - 1, min(_PLACES, len(rows))).round().astype(int))

    def curve(name: str) -> list[float | None]:
        values = np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)
        return [float(v) if np.isfinite(v) else None for v in running_mean(values, window)[some]]

    steps = [rows[i]["step"] for i in some]
    rates = {"frames with a past": curve("bpp"), "first frames": curve("bpp_first")}
    page.row(
        [
            page.series("Estimated bits of training clips", rates, "step", "bit/pixel", x=steps, digits=4),
            page.series("Share saved by the past", {"saved": curve("saving")}, "step", "share", x=steps, digits=3),
        ]
    )


def _clip_row(clip: ClipQuality) -> list[Any]:
    rates = [f"{8 * size / clip.pixels:.4f}" for size in (clip.bytes, clip.bytes_no_context, clip.bytes_none)]
    return [clip.source, clip.frames, f"{clip.bytes:,}", *rates, f"{clip.psnr:.2f}", f"{clip.ms_ssim:.4f}"]


def _add_troubled(page: Page, shards: LatentShards) -> None:
    files = gather(shards.plan)
    troubled = [[f["path"], f["split"], f["status"], f["frames"], f["reason"]] for f in files.troubled]
    _add_files(page, "Unreadable or damaged files", ["file", "split", "verdict", "frames kept", "why"], troubled)
    noted = [[f["path"], f["split"], f["notes"]] for f in files.files if f.get("notes")]
    _add_files(page, "Files that a player would show otherwise", ["file", "split", "what was noted"], noted)


def _add_files(page: Page, heading: str, columns: list[str], rows: list[list[Any]]) -> None:
    if not rows:
        return
    page.heading(heading)
    page.table(columns, rows[:_LISTED])
    if len(rows) > _LISTED:
        page.text(f"and {len(rows) - _LISTED} more: shards/manifest/manifest.parquet", note=True)


def _options(settings: JobSettings) -> dict[str, Any]:
    """The settings by the names of the tool's options."""
    values = asdict(settings)
    train, evaluation = values.pop("train"), values.pop("evaluation")
    clips, budget = train.pop("clips"), train.pop("budget") or {"steps": None, "minutes": None}
    del clips["max_side"], evaluation["panel_frames"], values["shard_videos"]
    head = {"kind": evaluation.pop("head"), "grid": evaluation.pop("grid"), **evaluation.pop("head_options")}
    evaluation |= {f"head.{name}": value for name, value in head.items()}
    columns = {f"data.columns.{name}": value for name, value in values.pop("columns").items() if value is not None}
    data = {f"data.{name}": values.pop(name) for name in _DATA_OPTIONS} | (columns or {"data.columns": "the usual"})
    train["launch"] = train.pop("step")
    trained = {f"train.{name}": value for name, value in {**budget, **train, **clips}.items()}
    return {**data, **values, **trained, **{f"eval.{name}": value for name, value in evaluation.items()}}
