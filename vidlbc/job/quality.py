"""Rate and distortion of the stored test clips, from true sizes and decoded frames."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from vidlbc.codec import Codec
from vidlbc.evaluation import ms_ssim, psnr
from vidlbc.job.sources import source_frames
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
    """All measured clips, and one clip's figures frame by frame for the plots."""

    clips: tuple[ClipQuality, ...]
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


def measure_quality(shards: LatentShards, codec: Codec, plain: Codec, videos: int, bar: bool | None = None) -> Quality:
    """Decode and compare up to `videos` clips, evenly spread over the split. `plain`: the codec of kind `none`."""
    indices: Sequence[int] = sorted({round(i) for i in np.linspace(0, len(shards) - 1, min(videos, len(shards)))})
    clips: list[ClipQuality] = []
    bits: tuple[float, ...] = ()
    bits_null: tuple[float, ...] = ()
    for index in tqdm(indices, desc="rate and distortion", unit="clip", disable=None if bar is None else not bar):
        meta, data = shards.meta(index), shards.bitstream(index)
        source = source_frames(shards, meta)
        started = time.perf_counter()
        decoded = codec.decompress(data)
        seconds = time.perf_counter() - started
        _, with_context = codec.transcode(data, codec, context=True)
        null_data, null = codec.transcode(data, codec, context=False)
        none_data = data if codec.kind == "none" else codec.transcode(data, plain, context=True)[0]
        if not bits:
            bits, bits_null = with_context.frame_bits, null.frame_bits
        clips.append(
            ClipQuality(
                key=meta["key"],
                source=meta["source"],
                frames=len(source),
                pixels=source[..., 0].size,
                bytes=len(data),
                bytes_no_context=len(null_data),
                bytes_none=len(none_data),
                estimated_bits=with_context.estimated_bits,
                psnr=float(np.mean(psnr(decoded, source))),
                ms_ssim=float(np.mean(ms_ssim(decoded, source))),
                decode_seconds=seconds,
            )
        )
    return Quality(tuple(clips), bits, bits_null)
