"""The golden bitstreams of tests/goldens: fixed symbols under fixed weights.

    python -m tests.codec.golden_streams NAME ...  # writes these: only new ones, or all for a new format version

The symbols are given, not analysed: floating-point analysis may differ between machines, the rest of the format not.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import vidlbc
from tests.codec.small_models import raw_bits, save_small_model
from vidlbc.codec.bitstream import Header
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding import RateDistortionQuantiser
from vidlbc.codec.image_stage.base import truncated

FOLDER = Path(__file__).resolve().parents[1] / "goldens"
SEED = 7  # of the weights
FRAMES, HEIGHT, WIDTH, QP, FPS = 19, 20, 37, 37, Fraction(30000, 1001)
SHAPES = [(8, 16, 1), (4, 8, 3), (2, 4, 4), (1, 2, 5)]
NAMES = {
    "none": ("none", True),
    "lstm": ("lstm", True),
    "transformer": ("transformer", True),
    "transformer_no_context": ("transformer", False),
    "transformer_intra": ("transformer", True),
    "transformer_layers": ("transformer", True),  # version 3, as those after it
    "lstm_variant": ("lstm", True),
    "none_layers_variant": ("none", True),
    "transformer_skip": ("transformer", True),  # version 4
}
SKIP = 40
MODEL_KINDS = ("lstm", "transformer")
VARIANT = {"short": [1, 2, 0, 3]}


def options_of(name: str) -> dict[str, Any]:
    """More options of the image stage."""
    return ({"base_levels": 2} if "layers" in name else {}) | ({"variants": VARIANT} if "variant" in name else {})


def symbols(name: str = "") -> list[Tensor]:
    """Those that stream `name` holds: 0 where its variant codes none."""
    kept = VARIANT["short"] if "variant" in name else [q.shape[-1] for q in all_symbols()]
    return [truncated(q, k, -1) for q, k in zip(all_symbols(), kept, strict=True)]


def all_symbols(frames: int = FRAMES, shapes: Sequence[tuple[int, int, int]] = SHAPES) -> list[Tensor]:
    """int32 (frames, H_l, W_l, C_l) of the padded frame: mostly small, some slow in time, some far out of any table."""
    levels = []
    for key, shape in enumerate(shapes):
        still = raw_bits(100 + key, int(np.prod(shape))).reshape(shape) % 9 - 4
        moving = raw_bits(200 + key, frames * still.size).reshape(frames, *shape)
        q = still + moving % 3 - 1
        q = np.where(moving % 199 == 0, (moving - 2048) * 15, q)
        q = np.where(moving == 2, 32767, np.where(moving == 3, -32767, q))
        levels.append(torch.from_numpy(q.astype(np.int32)))
    return levels


class FixedSymbols(Codec):
    """Encodes the symbols above, whatever the frames."""

    given: Sequence[Tensor] = ()
    frame = 0

    def analyse(self, frames: np.ndarray | Tensor, qp: int, **options: Any) -> list[Tensor]:
        self.frame += len(frames)
        return [q[self.frame - len(frames) : self.frame] for q in self.given]


def encode(model: Path, name: str) -> bytes:
    """With these weights the intra prior is always the shorter: only `transformer_intra` may choose it."""
    kind, context = NAMES[name]
    codec = vidlbc.load(model, device="cpu", temporal=kind)
    if name.endswith("skip"):
        return codec.compress_symbols(fitted(codec, name), QP, HEIGHT, WIDTH, context=context, fps=FPS, skip=SKIP)[0]
    codec.__class__ = FixedSymbols
    assert isinstance(codec, FixedSymbols)
    codec.given, codec.frame = symbols(name), 0
    codec._priors.intra_frames = name.endswith("intra")
    # So that there are frames whose levels take different priors.
    with patch.multiple("vidlbc.codec.coding.encoding", _WORTH_BOTH=0, _WORTH_BOTH_AT_CUTS=0):
        variant = "short" if "variant" in name else None
        return codec.compress(
            np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8), QP, context=context, fps=FPS, variant=variant
        )


def fitted(codec: Codec, name: str) -> list[Tensor]:
    """The symbols of stream `name`: those above, but centres where their scales are skipped."""
    if not name.endswith("skip"):
        return symbols(name)
    codec._priors.intra_frames = False
    levels = tuple((level.stride, level.channels) for level in codec.levels)
    # Of the padded size: what is not shown is worth nothing.
    padded = (side + -side % 32 for side in (HEIGHT, WIDTH))
    header = Header(*padded, QP, bytes(16), codec.kind, levels, skip=SKIP)
    # At this price nothing is changed but what must be.
    return RateDistortionQuantiser(codec._priors, header, 1e9).choose([q.float() for q in symbols(name)])


def write(names: Sequence[str], encode: Callable[[Path, str], bytes] = encode, **options: Any) -> None:
    """`options`: more of `save_small_model`."""
    FOLDER.mkdir(exist_ok=True)
    place = FOLDER / "fingerprints.json"
    fingerprints = json.loads(place.read_text()) if place.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model = save_small_model(Path(folder) / name, SEED, MODEL_KINDS, **options_of(name), **options)
            data = encode(model, name)
            (FOLDER / f"{name}.vlbc").write_bytes(data)
            fingerprints[name] = vidlbc.inspect(data).fingerprint
            print(f"{name}: {len(data)} bytes, {fingerprints[name]}")
    place.write_text(json.dumps(fingerprints, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    write(sys.argv[1:])
