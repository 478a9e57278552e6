"""Rate and distortion of the stored test clips, from true sizes and decoded frames."""

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vidlbc.codec.bitstream import Reader
from vidlbc.codec.bitstream.container import MAX_QP
from vidlbc.codec.codec import Codec
from vidlbc.errors import VideoError, VidlbcError
from vidlbc.pipeline.sources import source_frames
from vidlbc.run.progress import progress_bar
from vidlbc.shards import LatentShards
from vidlbc.video.distortion import ms_ssim, psnr


@dataclass(frozen=True)
class ClipQuality:
    """One clip. `bytes_none`: its symbols under kind `none`; `bytes_no_context`: under this kind's null context; where
    symbols were chosen for the context, both are what kind `none` takes for the same PSNR."""

    key: str
    source: str
    frames: int
    pixels: int
    bytes: int
    bytes_no_context: int
    bytes_none: int
    estimated_bits: float
    psnr: float
    ms_ssim: float
    decode_seconds: float


@dataclass(frozen=True)
class Quality:
    """All measured clips, and the figures of the longest one, frame by frame, for the plots."""

    clips: tuple[ClipQuality, ...]
    shown: ClipQuality
    frame_bits: tuple[float, ...]
    frame_bits_no_context: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        total = {name: sum(getattr(c, name) for c in self.clips) for name in _SUMS}
        return {
            "bpp": 8 * total["bytes"] / total["pixels"],
            "bpp_no_context": 8 * total["bytes_no_context"] / total["pixels"],
            "bpp_none": 8 * total["bytes_none"] / total["pixels"],
            "size_over_estimate": 8 * total["bytes"] / total["estimated_bits"],
            "psnr": float(np.mean([c.psnr for c in self.clips])),
            "ms_ssim": float(np.mean([c.ms_ssim for c in self.clips])),
            "decode_fps": total["frames"] / max(total["decode_seconds"], 1e-9),
        }

    def to_json(self) -> dict[str, object]:
        return asdict(self)


_SUMS = ("frames", "pixels", "bytes", "bytes_no_context", "bytes_none", "estimated_bits", "decode_seconds")

_BRACKET = 3  # QPs: between two so far apart bytes are a line, to a thousandth


def measure_quality(shards: LatentShards, codec: Codec, plain: Codec, videos: int) -> Quality:
    """Decode and compare up to `videos` clips, evenly spread over the split. `plain`: the codec of kind `none`.

    A clip whose source no longer gives the same frames is left out and named on stderr. Raises VidlbcError where none
    is left.
    """
    clips: list[ClipQuality] = []
    shown = 0
    bits: tuple[float, ...] = ()
    bits_null: tuple[float, ...] = ()
    longest = 0
    chosen = shards.plan.settings.rdo and codec.kind != "none"
    for index in progress_bar(spread(shards, videos), desc="rate and distortion", unit="clip"):
        meta, data = shards.meta(index), shards.bitstream(index)
        try:
            source = source_frames(shards, meta)
        except VideoError as error:
            print(f"not measured: {error}", file=sys.stderr)
            continue
        started = time.perf_counter()
        (symbols, _), decoded = codec.decode_shown(data)
        seconds = time.perf_counter() - started
        height, width = source.shape[1:3]
        qp, quality = meta["qp"], float(np.mean(psnr(decoded, source)))
        if chosen:
            size, null = at_equal_quality(plain, source, qp, meta["variant"], quality)
            none_size = null_size = size
        else:
            null_data, report = codec.compress_symbols(symbols, qp, height, width, context=False)
            null, null_size, none_size = report.frame_bits, len(null_data), len(data)
            if codec.kind != "none":
                none_size = len(plain.compress_symbols(symbols, qp, height, width)[0])
        if len(source) > longest:
            longest, shown = len(source), len(clips)
            bits, bits_null = _frame_bits(codec, data, source, symbols, meta), null
        clips.append(
            ClipQuality(
                key=meta["key"],
                source=meta["source"],
                frames=len(source),
                pixels=source[..., 0].size,
                bytes=len(data),
                bytes_no_context=null_size,
                bytes_none=none_size,
                estimated_bits=float(meta["estimated_bits"]),
                psnr=quality,
                ms_ssim=float(np.mean(ms_ssim(decoded, source))),
                decode_seconds=seconds,
            )
        )
    if not clips:
        raise VidlbcError(f"{shards.folder}: no source of split '{shards.split}' can be read again to compare with")
    return Quality(tuple(clips), clips[shown], bits, bits_null)


def _frame_bits(
    codec: Codec, data: bytes, source: np.ndarray, symbols: list[Tensor], meta: Mapping[str, Any]
) -> tuple[float, ...]:
    """Bits of each frame of a stored clip."""
    header = Reader(data).header
    if header.copies:
        return codec.encode(
            source, meta["qp"], context=header.context, variant=meta["variant"], rdo=True
        ).report.frame_bits
    height, width = source.shape[1:3]
    return codec.compress_symbols(symbols, meta["qp"], height, width, skip=header.skip)[1].frame_bits


def at_equal_quality(
    plain: Codec, frames: np.ndarray, qp: int, variant: str | None, quality: float
) -> tuple[int, tuple[float, ...]]:
    """What kind `none` takes for a mean PSNR in dB: bytes, between those of two QPs along a line of their logarithm,
    and bits of each frame at the nearer one. Beyond its QPs: what it takes at the last one."""
    known: dict[int, tuple[float, int, tuple[float, ...]]] = {}

    def at(number: int) -> float:
        if number not in known:
            data, _, report = plain.encode(frames, number, variant=variant, rdo=False)
            known[number] = float(np.mean(psnr(plain.decompress(data), frames))), len(data), report.frame_bits
        return known[number][0]

    low = high = qp
    step = 2
    while at(low) > quality and low > 0:
        low, high, step = max(low - step, 0), low, 2 * step
    while at(high) < quality and high < MAX_QP:
        low, high, step = high, min(high + step, MAX_QP), 2 * step
    while high - low > _BRACKET:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) < quality else (low, middle)
    (worse, fewer, _), (better, more, _) = known[low], known[high]
    share = min(max((quality - worse) / (better - worse), 0.0), 1.0) if better > worse else 0.0
    near = known[high] if share > 0.5 else known[low]
    return round(fewer ** (1 - share) * more**share), near[2]


def spread(shards: LatentShards, count: int) -> list[int]:
    """Up to `count` clips, evenly spread: of sound files, where there are any (a damaged one may decode otherwise next
    time)."""
    verdicts = [shards.meta(i)["verdict"] for i in range(len(shards))]
    good = [i for i, verdict in enumerate(verdicts) if verdict.startswith("ok")] or list(range(len(shards)))
    return [good[i] for i in sorted({round(p) for p in np.linspace(0, len(good) - 1, min(count, len(good)))})]
