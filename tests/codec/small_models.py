"""Small codecs whose weights are pure integer arithmetic, so they are the same under every version of torch and numpy.

numpy promises the raw stream of its bit generators, not what its distributions make of them; so the weights are cut
straight from Philox's bits. Every layer gets weights, also those that start at zero: an untrained context that says
nothing
would hide every mistake in how the past is carried.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidlbc.codec import models
from vidlbc.codec.bitstream import Reader, unpack_kinds
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding.moving import FrameKind
from vidlbc.codec.image_stage import ImageStage, build_image_stage

KINDS = ("none", "lstm", "transformer")
IMAGE_OPTIONS = {
    "channels": [1, 3, 4, 5],
    "widths": [8, 8, 8, 8],
    "encoder_blocks": [1, 1, 1, 1],
    "decoder_blocks": [1, 1, 1, 1],
    "prior_widths": [32, 32, 32],
    "prior_blocks": 1,
}
TEMPORAL_OPTIONS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "transformer": {"context": 2, "margin": 2},
}

MOTION_OPTIONS: dict[str, Any] = {
    "widths": [8, 8, 8, 8],
    "encoder_blocks": [1, 1, 1, 1],
    "decoder_blocks": [1, 1, 1, 1],
    "fusion": 8,
    "fusion_blocks": 1,
}
MOVED_OPTIONS: dict[str, dict[str, Any]] = {
    "lstm": {"motion": MOTION_OPTIONS},
    "transformer": {"context": 2, "motion": MOTION_OPTIONS},
}


def raw_bits(key: int, count: int) -> np.ndarray:
    """`count` numbers of 12 bits, int64, from Philox."""
    return (np.random.Philox(key=key).random_raw(count) >> np.uint64(52)).astype(np.int64)


def uniform(shape: tuple[int, ...], key: int, amplitude: float) -> Tensor:
    """Multiples of amplitude / 2048 in [-amplitude, amplitude)."""
    bits = raw_bits(key, int(np.prod(shape)))
    return torch.from_numpy(((bits - 2048) / 2048 * amplitude).astype(np.float32).reshape(shape))


@torch.no_grad()
def fill(module: nn.Module, seed: int) -> None:
    """Set every parameter from its name and `seed`; gains to quarters of an octave, so that their powers are exact."""
    for name, parameter in module.named_parameters():
        key = zlib.crc32(f"{seed}/{name}".encode())
        if name.endswith("log2_gain"):
            anchor, channel = torch.meshgrid(*[torch.arange(n) for n in parameter.shape], indexing="ij")
            parameter.copy_(1 + anchor / 2 + (channel % 3) / 4)
        elif parameter.dim() == 1:
            parameter.copy_(uniform(tuple(parameter.shape), key, 0.25))
        else:
            # A power of two near 1 / sqrt(inputs): activations neither vanish nor reach the clamp.
            inputs = parameter[0].numel()
            parameter.copy_(uniform(tuple(parameter.shape), key, 2.0 ** -round(np.log2(inputs) / 2)))


def small_image_stage(seed: int = 0, **options: Any) -> ImageStage:
    stage = build_image_stage("lbc", **IMAGE_OPTIONS, **options)
    fill(stage, seed)
    return stage.eval()


def save_small_model(
    folder: Path,
    seed: int = 0,
    kinds: tuple[str, ...] = ("lstm", "transformer"),
    moved: bool = False,
    copies: bool = False,
    overlap: bool = False,
    **options: Any,
) -> Path:
    """A model folder as training writes it. Same seed, same bytes of weights, same fingerprint.

    `moved`: kinds that predict from moved pictures, with `copies` those whose blocks may be copied, with `overlap`
    those whose moved blocks run into each other. `options`: more of the image stage's, such as variants.
    """
    config = {"family": "lbc", "options": IMAGE_OPTIONS | options}
    models.save_image_stage(small_image_stage(seed, **options), folder / "image_stage", config)
    image = models.load_image_stage(folder / "image_stage")
    for kind in kinds:
        of_kind = (MOVED_OPTIONS if moved else TEMPORAL_OPTIONS)[kind]
        if moved:
            said = {"copies": copies, "overlap": overlap}
            of_kind = of_kind | {"motion": of_kind["motion"] | {name: True for name, on in said.items() if on}}
        described = {"kind": kind, "options": of_kind}
        temporal = models.build_temporal(kind, image.stage, **of_kind)
        fill(temporal, seed + 1)
        models.save_temporal(temporal, folder / "temporal" / kind, described, image.digest)
    (folder / "config.json").write_text(json.dumps({"format": 1, "temporal": kinds[-1] if kinds else "none"}))
    return folder


def kinds_of(data: bytes) -> list[FrameKind]:
    """Of each frame of a stream of a moved kind."""
    reader = Reader(data)
    return [FrameKind(kind) for packet in reader.packets() for kind in unpack_kinds(packet, reader.header)]


def noisy_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A drifting picture with noise: the past says something, not everything. uint8 (count, H, W, 3)."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height + count, width + count, 3)).astype(np.float64)
    for axis in (0, 1):
        picture = (picture + np.roll(picture, 1, axis) + np.roll(picture, 2, axis)) / 3
    clip = np.stack([picture[t : t + height, t : t + width] for t in range(count)])
    return (clip + rng.normal(0, 4, clip.shape)).clip(0, 255).astype(np.uint8)


def large_symbols(codec: Codec, count: int, height: int, width: int) -> list[Tensor]:
    """int32 (count, H_l, W_l, C_l): symbols as large as they get, and nothing."""
    shapes = [q.shape for q in codec.analyse(noisy_frames(count, height, width), 20)]
    bits = [raw_bits(key, int(np.prod(shape))).reshape(shape) for key, shape in enumerate(shapes)]
    return [torch.from_numpy(((b % 3 - 1) * 32767).astype(np.int32)) for b in bits]


def wild_field(key: int, before: Tensor) -> Tensor:
    """Vectors that no search would find, some far outside of the picture: any decode. Random weights show no motion.

    `before`: the field of the frame before, int32 (1, H/8, W/8, 2), which some blocks keep. Of the same shape.
    """
    _, rows, columns, _ = before.shape
    bits = torch.from_numpy(raw_bits(key, 3 * rows * columns)).view(3, 1, rows, columns).int()
    large = bits[:2, :, ::2, ::2].permute(1, 2, 3, 0) % 80 - 40
    # Two in three blocks of 16x16 as the one on their left: else no guess would ever be right.
    kept = bits[2, :, ::2, ::2, None] % 3 > 0
    for column in range(1, columns // 2):
        large[:, :, column] = torch.where(kept[:, :, column], large[:, :, column - 1], large[:, :, column])
    field = large.repeat_interleave(2, 1).repeat_interleave(2, 2)
    odd = bits[2, ..., None] // 3
    return torch.where(odd < 80, 700 - 9 * field, torch.where(odd < 400, before, field)).contiguous()
