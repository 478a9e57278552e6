"""What the main job leaves to look at: metrics.json, plots, a side-by-side mp4, a page, a table."""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.codec.bitstream.rates import beside_sources
from vidlbc.codec.codec import Codec
from vidlbc.evaluate import ProbeResult, write_metrics
from vidlbc.evaluate.plots import (
    plot_accuracy,
    plot_confusion,
    plot_frame_bits,
    plot_reconstruction,
    plot_training,
)
from vidlbc.evaluate.report import environment
from vidlbc.pipeline.page import INPUT_NAMES, write_page
from vidlbc.pipeline.quality import Quality
from vidlbc.pipeline.settings import JobSettings
from vidlbc.pipeline.sources import source_frames
from vidlbc.pipeline.verify import Verified
from vidlbc.run.tables import format_table
from vidlbc.shards import LatentShards, Manifest
from vidlbc.video import write_side_by_side, writes_mp4


def collect(
    settings: JobSettings,
    codec: Codec,
    manifest: Manifest,
    encoding: tuple[int, float],
    quality: Quality,
    probes: Mapping[str, ProbeResult],
    verified: Verified,
) -> dict[str, Any]:
    """The figures of the run. Accuracies are null where the corpus has no labels."""
    best, pixels = probes.get("latents"), probes.get("pixels")
    figures: dict[str, Any] = quality.summary()
    figures |= {
        "encode_fps": encoding[0] / encoding[1] if encoding[1] else None,
        "top1": best.top1 if best else None,
        "top1_ci95": best.ci95 if best else None,
        "top5": best.top5 if best else None,
        "mean_class": best.mean_class if best else None,
        "top1_pixels": pixels.top1 if pixels else None,
        "top1_pixels_ci95": pixels.ci95 if pixels else None,
        "top1_decoded": probes["decoded"].top1 if "decoded" in probes else None,
        "n_videos": manifest.n_videos,
        "n_failed": manifest.n_failed,
        "n_damaged": manifest.n_damaged,
        "n_clips": manifest.n_clips,
        "n_measured": len(quality.clips),
        "bpp_all_clips": manifest.bpp,
        "shard_bytes": manifest.bytes,
        "source_bytes": manifest.source_bytes,
        "verified_clips": verified.clips,
        "verified_frames": verified.frames,
        "verified_sources": verified.sources,
        "qp": settings.qp if settings.psnr is None and settings.bitrate is None else None,
        "rate": settings.rate,
        "rdo": settings.rdo,
        "temporal": codec.kind,
        "fingerprint": codec.fingerprint,
        "environment": environment(codec.device),
    }
    return figures


def write_report(
    settings: JobSettings,
    shards: LatentShards,
    codec: Codec,
    quality: Quality,
    probes: Mapping[str, ProbeResult],
    figures: Mapping[str, Any],
) -> list[Path]:
    """metrics.json, plots/*.png, side_by_side.mp4 (with PyAV), per-clip figures, report/index.html; returns what was
    written."""
    out, plots = settings.out, settings.out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    written = [out / "clips.json"]
    written[0].write_text(json.dumps(quality.to_json(), indent=1) + "\n")
    if codec.kind != "none":
        plot_frame_bits(
            plots / "frame_bits.png",
            quality.frame_bits,
            quality.frame_bits_no_context,
            quality.shown.source,
            "temporal=none, about the same PSNR" if figures["rdo"] else "without context",
        )
        written.append(plots / "frame_bits.png")

    shown = next(i for i in range(len(shards)) if shards.meta(i)["key"] == quality.shown.key)
    meta, data = shards.meta(shown), shards.bitstream(shown)
    source, decoded = source_frames(shards, meta), codec.decompress(data)
    chosen = np.linspace(0, len(source) - 1, min(settings.evaluation.panel_frames, len(source))).astype(int)
    caption = f"qp {meta['qp']}, {8 * len(data) / source[..., 0].size:.3f} bit/pixel"
    plot_reconstruction(plots / "reconstruction.png", source[chosen], decoded[chosen], ["", caption, ""])
    fps = Fraction(meta["fps"]) if meta["fps"] and Fraction(meta["fps"]) > 0 else Fraction(25)
    written.append(plots / "reconstruction.png")
    if writes_mp4():
        write_side_by_side(out / "side_by_side.mp4", iter(source), iter(decoded), fps)
        written.append(out / "side_by_side.mp4")

    if probes:
        bars = [
            {"name": INPUT_NAMES[n], "top1": r.top1, "ci95": r.ci95, "bpp": None if n == "pixels" else figures["bpp"]}
            for n, r in probes.items()
        ]
        plot_accuracy(plots / "accuracy.png", bars, chance=1 / max(1, len(shards.classes)))
        plot_confusion(plots / "confusion.png", probes["latents"].confusion(), shards.classes, "latents")
        written += [plots / "accuracy.png", plots / "confusion.png"]
    log = out / "training" / "log.jsonl"
    rows = _steps(log) if log.is_file() else []
    if rows:
        curves = {name: [row.get(name, float("nan")) for row in rows] for name in ("bpp", "bpp_first", "saving")}
        plot_training(plots / "training.png", [row["step"] for row in rows], curves, "stage 2")
        written.append(plots / "training.png")
    write_metrics(out / "metrics.json", figures)
    page = out / "report" / "index.html"
    write_page(page, settings, shards, codec, quality, probes, figures, rows)
    return [out / "metrics.json", *written, page]


def _steps(log: Path) -> list[dict[str, Any]]:
    """The training log in order of steps. A resumed run repeats some, and a killed one may leave half a line."""
    found: dict[int, dict[str, Any]] = {}
    for line in log.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
            found[int(row["step"])] = row
        except (ValueError, TypeError, KeyError):
            continue
    return [found[step] for step in sorted(found)]


def table(settings: JobSettings, figures: Mapping[str, Any], probes: Mapping[str, ProbeResult]) -> str:
    """The table that ends the run."""
    f = figures
    # `or 0.0`: no "-0.0%".
    saved = round(100 * (1 - f["bpp"] / f["bpp_no_context"]), 1) or 0.0
    saved_none = round(100 * (1 - f["bpp"] / f["bpp_none"]), 1) or 0.0
    same = "same PSNR" if f["rdo"] else "same pixels"
    machine = f"{f['environment']['device']}, {f['environment']['threads']} threads"
    verified = f"{f['verified_clips']} clips, {f['verified_frames']} frames"
    without = ("  without context", f"{f['bpp_no_context']:.4f}   ({saved:.1f}% saved by context, {same})")
    rows: list[tuple[str, str]] = [
        ("videos", f"{f['n_videos']}, {f['n_failed']} unreadable, {f['n_damaged']} damaged; {f['n_clips']} clips"),
        ("size", f"{f['shard_bytes']:,} bytes, {beside_sources(f['shard_bytes'], f['source_bytes'], f['qp'])}"),
        ("bits per pixel", f"{f['bpp']:.4f}   ({f['rate']}, {f['n_measured']} test clips, true sizes)"),
        *([] if f["rdo"] and f["temporal"] != "none" else [without]),
        ("  temporal=none", f"{f['bpp_none']:.4f}   ({saved_none:.1f}% saved, {same})"),
        ("PSNR, MS-SSIM", f"{f['psnr']:.2f} dB, {f['ms_ssim']:.4f}   (RGB, against the decoded source)"),
        ("encode, decode", f"{f['encode_fps'] or 0:.1f}, {f['decode_fps']:.1f} frames/s   ({machine})"),
        ("verified", f"{verified} decode to the same symbols in another process"),
    ]
    for name, result in probes.items():
        low, high = result.ci95
        rate = "the source files" if name == "pixels" else f"{f['bpp']:.4f} bit/pixel"
        text = f"{100 * result.top1:.1f}% [{100 * low:.1f}, {100 * high:.1f}], top-5 {100 * result.top5:.1f}%"
        rows.append((f"top-1, {INPUT_NAMES[name]}", f"{text}   ({result.n_videos} test videos, {result.kind}, {rate})"))
    width = max(len(text) for _, text in rows)
    rows = [(name, text.ljust(width)) for name, text in rows]
    return format_table(rows, title=f"vidlbc: {settings.data} -> {settings.out}")
