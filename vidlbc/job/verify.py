"""Decode a sample of the shards in a fresh process and compare its symbols with those of the source videos.

    python -m vidlbc.job.verify SHARDS MODEL KIND THREADS KEY...

prints {key: sha256 of the symbols} as JSON.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidlbc.codec import Codec, load
from vidlbc.errors import VideoError, VidlbcError
from vidlbc.job.quality import spread
from vidlbc.job.sources import source_frames
from vidlbc.shards import LatentShards


def symbols_digest(symbols: Sequence[torch.Tensor]) -> str:
    """SHA-256 over int16 little-endian symbols, fine to coarse, each (T, C_l, H_l, W_l)."""
    sha = hashlib.sha256()
    for level in symbols:
        sha.update(level.to(torch.int16).contiguous().cpu().numpy().astype("<i2", copy=False).tobytes())
    return sha.hexdigest()


def verify_sample(shards: LatentShards, codec: Codec, model: Path, count: int) -> dict[str, int]:
    """Counts of clips and frames decoded alike. Raises VidlbcError where one differs.

    The other process runs on the CPU, on one thread. This one decodes too, and analyses the source frames anew: on the
    CPU all three agree to the bit; a GPU's analysis is not promised to repeat, so there the sources are only counted.
    """
    indices = spread(shards, count)
    metas = [shards.meta(i) for i in indices]
    keys = [meta["key"] for meta in metas]
    command = [sys.executable, "-m", "vidlbc.job.verify", str(shards.folder), str(model), codec.kind, "1", *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise VidlbcError(f"verification: the decoding process failed: {reason}")
    found = json.loads(done.stdout.splitlines()[-1])
    frames = sources = 0
    for meta, index in zip(metas, indices, strict=True):
        clip = f"clip {meta['key']} of {meta['source']}"
        if found[meta["key"]] != symbols_digest(codec.symbols(shards.bitstream(index))):
            raise VidlbcError(f"verification: {clip} decodes to other symbols in another process")
        try:
            sources += _as_source(codec, shards, meta, found[meta["key"]])
        except VideoError as error:
            print(f"not compared with its source: {error}", file=sys.stderr)
        frames += meta["frames"]
    return {"clips": len(keys), "frames": frames, "sources": sources}


def _as_source(codec: Codec, shards: LatentShards, meta: Mapping[str, Any], digest: str) -> bool:
    """Are these the symbols of the source file? Raises VidlbcError where they should be and are not."""
    frames = source_frames(shards, meta)
    symbols = codec.analyse(frames, shards.plan.settings.qp)
    if symbols_digest(codec.crop([q.permute(0, 3, 1, 2) for q in symbols], *frames.shape[1:3])) == digest:
        return True
    # Decoders repair some damage differently each time: that is the file's doing, not the codec's.
    if codec.device.type == "cpu" and np.array_equal(frames, source_frames(shards, meta)):
        raise VidlbcError(f"verification: clip {meta['key']} does not hold the symbols of its source {meta['source']}")
    return False


def main(arguments: Sequence[str]) -> None:
    folder, model, kind, threads, *keys = arguments
    torch.set_num_threads(int(threads))
    shards = LatentShards(folder)
    codec = load(model, device="cpu", temporal=kind)
    places = {shards.meta(i)["key"]: i for i in range(len(shards))}
    print(json.dumps({key: symbols_digest(codec.symbols(shards.bitstream(places[key]))) for key in keys}))


if __name__ == "__main__":
    main(sys.argv[1:])
