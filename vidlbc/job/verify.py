"""Decode a sample of the shards in a fresh process and compare its symbols with those of the source videos.

    python -m vidlbc.job.verify SHARDS MODEL KIND THREADS KEY...

prints {key: sha256 of the symbols} as JSON.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vidlbc.codec import Codec, load
from vidlbc.errors import VidlbcError
from vidlbc.job.sources import source_frames
from vidlbc.shards import LatentShards


def symbols_digest(symbols: Sequence[torch.Tensor]) -> str:
    """SHA-256 over int16 little-endian symbols, fine to coarse, each (T, C_l, H_l, W_l)."""
    sha = hashlib.sha256()
    for level in symbols:
        sha.update(level.to(torch.int16).contiguous().numpy().astype("<i2", copy=False).tobytes())
    return sha.hexdigest()


def verify_sample(shards: LatentShards, codec: Codec, model: Path, count: int) -> dict[str, int]:
    """Counts of clips and frames decoded alike. Raises VidlbcError where one differs.

    The other process runs on one thread; this one analyses the source frames anew.
    """
    indices = sorted({round(i) for i in np.linspace(0, len(shards) - 1, min(count, len(shards)))})
    metas = [shards.meta(i) for i in indices]
    keys = [meta["key"] for meta in metas]
    command = [sys.executable, "-m", "vidlbc.job.verify", str(shards.folder), str(model), codec.kind, "1", *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VidlbcError(f"verification: the decoding process failed: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    frames = 0
    for meta in metas:
        expected = symbols_digest(_source_symbols(codec, shards, meta))
        if found[meta["key"]] != expected:
            raise VidlbcError(
                f"verification: clip {meta['key']} of {meta['source']} decodes to other symbols elsewhere"
            )
        frames += meta["frames"]
    return {"clips": len(keys), "frames": frames}


def _source_symbols(codec: Codec, shards: LatentShards, meta: dict) -> list[torch.Tensor]:
    frames = source_frames(shards, meta)
    symbols = codec.analyse(frames, shards.plan.settings.qp)
    return codec.crop([q.permute(0, 3, 1, 2) for q in symbols], *frames.shape[1:3])


def main(arguments: Sequence[str]) -> None:
    folder, model, kind, threads, *keys = arguments
    torch.set_num_threads(int(threads))
    shards = LatentShards(folder)
    codec = load(model, device="cpu", temporal=kind)
    places = {shards.meta(i)["key"]: i for i in range(len(shards))}
    print(json.dumps({key: symbols_digest(codec.symbols(shards.bitstream(places[key]))) for key in keys}))


if __name__ == "__main__":
    main(sys.argv[1:])
