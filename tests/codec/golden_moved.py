"""The golden bitstreams of moved kinds: given symbols and given fields under fixed weights.

    python -m tests.codec.golden_moved NAME ...  # writes these: only new ones, or all for a new format version

Fields and flags are given, not searched for: what a search finds may differ between machines. So may what RDO chooses:
of those streams only the decoding is golden, symbols and pictures.
"""

from __future__ import annotations

import io
import sys
from itertools import count
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

import vidlbc
from tests.codec.golden_streams import FPS, QP, all_symbols, write
from tests.codec.small_models import noisy_frames, raw_bits, wild_field
from vidlbc.codec.coding.moved_encoding import MovedChooser, SourceFrames
from vidlbc.codec.coding.moving import Past
from vidlbc.codec.motion.brightness import Brightness
from vidlbc.codec.moved_codec import MovedCodec
from vidlbc.codec.options import CodingOptions

# Blocks of 16x16: 6 by 6, so that every pass has some.
FRAMES, HEIGHT, WIDTH, KEYINT = 9, 70, 83, 5
SHAPES = [(24, 24, 1), (12, 12, 3), (6, 6, 4), (3, 3, 5)]
STILL = 2  # of the frames that are no key frames
NAMES = {
    "moved_lstm": "lstm",
    "moved_transformer": "transformer",
    "moved_lstm_rdo": "lstm",
    "moved_transformer_rdo": "transformer",
    "moved_lstm_copies": "lstm",
    "moved_transformer_copies": "transformer",
    "moved_lstm_bright": "lstm",
    "moved_transformer_overlap": "transformer",
}
BRIGHT = {1: Brightness((90, 64, 50), (-20, 0, 30)), 2: Brightness((255, 1, 64), (-128, 127, 1))}
KINDS, KINDS_OF_COPIES = "KMMSMKMMM", "KMMSMKRMM"


def copies(name: str) -> bool:
    return name.endswith(("copies", "bright", "overlap"))


def overlap(name: str) -> bool:
    return name.endswith("overlap")


def symbols() -> list[Tensor]:
    """int32 (9, H_l, W_l, C_l)."""
    return all_symbols(FRAMES, SHAPES)


def encode(model: Path, name: str) -> bytes:
    codec, turn, flagged = vidlbc.load(model, device="cpu", temporal=NAMES[name]), count(), count()
    assert isinstance(codec, MovedCodec)
    codec._priors.intra_frames, codec.keyint = False, KEYINT

    def fields(chooser: MovedChooser, picture: Tensor, past: Past, displaced: Tensor | None) -> Tensor:
        t = next(turn)
        return torch.zeros_like(past.field) if t == STILL else wild_field(900 + t, past.field)

    def flags(chooser: MovedChooser, frame: object, known: object, seen: object, lasts: Tensor) -> Tensor:
        """Single blocks, and the four of a cell of stride 32."""
        rows, columns = lasts.shape[1:]
        bits = raw_bits(1900 + next(flagged), rows * columns).reshape(rows, columns)
        return torch.from_numpy((bits % 3 == 0) | (bits[::2, ::2] % 4 == 1).repeat(2, 0).repeat(2, 1))[None]

    lights = iter([BRIGHT.get(t) if name.endswith("bright") else None for t in range(1, FRAMES)])
    with (
        patch.object(MovedChooser, "search", fields),
        patch.object(MovedChooser, "copies", flags),
        patch.object(MovedChooser, "lift", lambda *given: KEYINT // 2),
        patch("vidlbc.codec.coding.moved_encoding.brightness_between", lambda frame, before: next(lights)),
    ):
        if not (copies(name) or name.endswith("rdo")):
            return codec.compress_symbols(symbols(), QP, HEIGHT, WIDTH, fps=FPS)[0]
        sink, header = (
            io.BytesIO(),
            codec._header(HEIGHT, WIDTH, CodingOptions(QP, fps=FPS, rdo=copies(name), skip=0), ()),
        )
        pictures = noisy_frames(FRAMES, 96, 96)
        pictures[6] = pictures[5]
        steps = [gains.step for gains in codec._gains(QP)]
        y = [(q + (7 * q % 15 - 7) / 16.0) * step for q, step in zip(symbols(), steps, strict=True)]
        frames = codec._chooser(header, True).packets([SourceFrames(y, torch.from_numpy(pictures))])
        codec._finish(frames, sink, header, None, lambda symbols: None)
        return sink.getvalue()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write([name], encode, moved=True, copies=copies(name), overlap=overlap(name))
