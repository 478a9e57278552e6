"""Rate and distortion of the stored test clips, from true sizes and decoded frames."""

import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from vidlbc.bitstream import inspect
from vidlbc.codec import Codec
from vidlbc.errors import VideoError, VidlbcError
from vidlbc.evaluation import ms_ssim, psnr
from vidlbc.job.sources import source_frames
from vidlbc.progress import progress_bar
from vidlbc.shards import LatentShards


@dataclass(frozen=True)
class ClipQuality:
    """One clip. `bytes_none`: its symbols under kind `none`; `bytes_no_context`: under this kind's null context."""

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
    for index in progress_bar(spread(shards, videos), desc="rate and distortion", unit="clip"):
        meta, data = shards.meta(index), shards.bitstream(index)
        try:
            source = source_frames(shards, meta)
        except VideoError as error:
            print(f"not measured: {error}", file=sys.stderr)
            continue
        started = time.perf_counter()
        (symbols, _), decoded = codec.decode_shown(data)
        height, width = source.shape[1:3]
        qp = meta["qp"]
        seconds = time.perf_counter() - started
        null_data, null = codec.compress_symbols(symbols, qp, height, width, context=False)
        none_data = data
        if codec.kind != "none":
            none_data = plain.compress_symbols(symbols, qp, height, width)[0]
        if len(source) > longest:
            longest, shown = len(source), len(clips)
            bits = codec.compress_symbols(symbols, qp, height, width, skip=inspect(data).skip)[1].frame_bits
            bits_null = null.frame_bits
        clips.append(
            ClipQuality(
                key=meta["key"],
                source=meta["source"],
                frames=len(source),
                pixels=source[..., 0].size,
                bytes=len(data),
                bytes_no_context=len(null_data),
                bytes_none=len(none_data),
                estimated_bits=float(meta["estimated_bits"]),
                psnr=float(np.mean(psnr(decoded, source))),
                ms_ssim=float(np.mean(ms_ssim(decoded, source))),
                decode_seconds=seconds,
            )
        )
    if not clips:
        raise VidlbcError(f"{shards.folder}: no source of split '{shards.split}' can be read again to compare with")
    return Quality(tuple(clips), clips[shown], bits, bits_null)


def spread(shards: LatentShards, count: int) -> list[int]:
    """Up to `count` clips, evenly spread: of sound files, where there are any (a damaged one may decode otherwise next
    time)."""
    verdicts = [shards.meta(i)["verdict"] for i in range(len(shards))]
    good = [i for i, verdict in enumerate(verdicts) if verdict == "ok"] or list(range(len(shards)))
    return [good[i] for i in sorted({round(p) for p in np.linspace(0, len(good) - 1, min(count, len(good)))})]
