"""Decode shards in a fresh process and compare their symbols with those of the source videos.

    python -m vidlbc.pipeline.verify < REQUEST     REQUEST: JSON with the fields of `_Request`

prints {key: [sha256 of the symbols, how many]} as JSON.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from vidlbc.codec.bitstream import Reader
from vidlbc.codec.codec import Codec
from vidlbc.codec.load import load
from vidlbc.errors import VideoError, VidlbcError
from vidlbc.pipeline.sources import source_frames
from vidlbc.shards import LatentShards


@dataclass(frozen=True)
class Verified:
    """Counts of what decoded alike; `sources`: clips whose source files were analysed anew, with the same result."""

    clips: int
    frames: int
    symbols: int
    sources: int


@dataclass(frozen=True)
class _Request:
    shards: str
    split: str | None
    model: str
    kind: str
    threads: int
    batch: int
    device: str
    indices: list[int]


def symbols_digest(symbols: Sequence[torch.Tensor]) -> str:
    """SHA-256 over int16 little-endian symbols, fine to coarse, each (T, C_l, H_l, W_l)."""
    sha = hashlib.sha256()
    for level in symbols:
        sha.update(level.to(torch.int16).contiguous().cpu().numpy().astype("<i2", copy=False).tobytes())
    return sha.hexdigest()


def verify(
    shards: LatentShards,
    codec: Codec,
    model: str | Path,
    indices: Sequence[int],
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    on_clip: Callable[[int], None] = lambda frames: None,
) -> Verified:
    """Raises VidlbcError where a clip decodes to other symbols.

    The other process runs on `device`, on so many threads, up to `batch` clips of equal size at once. Its symbols must
    be those that a new analysis of the source gives here, with symbols chosen again where they were chosen (`rdo`); a
    GPU's analysis is not promised to repeat, nor is a damaged file's content, so where they differ, or the source is
    gone, this process decodes as well and compares with that.
    `on_clip` is called with the frames of each clip compared.
    """
    request = _Request(
        str(shards.folder), shards.split, str(model), codec.kind, threads, batch, device, list(map(int, indices))
    )
    done = subprocess.run(
        [sys.executable, "-m", "vidlbc.pipeline.verify"],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise VidlbcError(f"verification: the decoding process failed: {reason}")
    found = json.loads(done.stdout.splitlines()[-1])
    frames = symbols = sources = 0
    for index in indices:
        meta = shards.meta(index)
        digest, count = found[meta["key"]]
        try:
            as_source = _as_source(codec, shards, index, digest)
        except VideoError as error:
            print(f"not compared with its source: {error}", file=sys.stderr)
            as_source = False
        if not as_source and digest != symbols_digest(codec.symbols(shards.bitstream(index))):
            raise VidlbcError(
                f"verification: clip {meta['key']} of {meta['source']} decodes to other symbols in another process"
            )
        sources, frames, symbols = sources + as_source, frames + meta["frames"], symbols + count
        on_clip(meta["frames"])
    return Verified(len(indices), frames, symbols, sources)


def _as_source(codec: Codec, shards: LatentShards, index: int, digest: str) -> bool:
    """Are these the symbols that an encoder makes of the source file? Raises VidlbcError where they should be and are
    not."""
    meta, settings = shards.meta(index), shards.plan.settings
    frames, header = source_frames(shards, meta), Reader(shards.bitstream(index)).header
    if header.copies:
        symbols = codec.encode(frames, meta["qp"], context=settings.context, variant=meta["variant"], rdo=True).symbols
    else:
        symbols = codec.analyse(
            frames,
            meta["qp"],
            variant=meta["variant"],
            rdo=settings.rdo,
            context=settings.context,
            skip=header.skip,
        )
    if symbols_digest(codec.unpadded(symbols, *frames.shape[1:3])) == digest:
        return True
    # Decoders repair some damage differently each time: that is the file's doing, not the codec's.
    if codec.device.type == "cpu" and np.array_equal(frames, source_frames(shards, meta)):
        raise VidlbcError(f"verification: clip {meta['key']} does not hold the symbols of its source {meta['source']}")
    return False


def _batches(shards: LatentShards, indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """Clips of equal length and frame size, up to `size` together."""

    def shape(index: int) -> tuple[int, ...]:
        meta = shards.meta(index)
        return meta["frames"], meta["height"], meta["width"]

    for _, group in groupby(sorted(indices, key=shape), key=shape):
        alike = list(group)
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def main() -> None:
    request = _Request(**json.load(sys.stdin))
    torch.set_num_threads(request.threads)
    shards = LatentShards(request.shards, request.split)
    codec = load(request.model, device=request.device, temporal=request.kind)
    found: dict[str, tuple[str, int]] = {}
    for batch in _batches(shards, request.indices, request.batch):
        decoded = codec.symbols([shards.bitstream(index) for index in batch])
        for row, index in enumerate(batch):
            levels = [level[row] for level in decoded]
            found[shards.meta(index)["key"]] = symbols_digest(levels), sum(level.numel() for level in levels)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
