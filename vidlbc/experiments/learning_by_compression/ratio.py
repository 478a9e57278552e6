"""CR and RQ of Eq. 1 (Xie et al.), and Table 1 counted from a live model.

    CR = sum of size(x) / sum of size(f(x)),    RQ = mean of -log r(x, g(f(x)))

over a data set. `size` is the number of elements, as in the paper, or the number of bytes: of 8-bit RGB on one side, of
the bitstreams on the other.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.codec import Codec
from vidlbc.codec.image_stage import ImageStage
from vidlbc.evaluate import bootstrap_ci
from vidlbc.experiments.learning_by_compression.evaluator import Evaluator, Marks
from vidlbc.run.tables import format_table
from vidlbc.video.distortion import psnr

# RQ of a frame that is recovered without any error would be infinite.
_LEAST = 1e-6
_BATCH = 32


def compression_ratio(original: Sequence[int], compressed: Sequence[int]) -> float:
    """CR of Eq. 1: sizes of every x and of every f(x), in the same unit."""
    return sum(original) / sum(compressed)


def recovery_quality(r: Tensor) -> float:
    """RQ of Eq. 1 from r of every frame, (N,), in nats; r below 1e-6 counts as 1e-6."""
    return float(-r.double().clamp_min(_LEAST).log().mean())


@dataclass(frozen=True)
class LevelSize:
    """One row of Table 1: `size` = (height, width) of a module's output, channels of the original and each variant."""

    size: tuple[int, int]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class ElementTable:
    """Table 1 of a model: rows from the input down, CR in elements of the original and each variant."""

    names: tuple[str, ...]
    rows: tuple[LevelSize, ...]
    ratios: tuple[float, ...]

    def __str__(self) -> str:
        shown = [
            (str(i), f"{row.size[0]} x {row.size[1]}", *[str(c) for c in row.channels])
            for i, row in enumerate(self.rows)
        ]
        shown.append(("CR", "", *[f"{ratio:.1f}" for ratio in self.ratios]))
        return format_table(shown, ("module", "resolution", *self.names), "channels, and compression in elements")


@torch.no_grad()
def element_table(stage: ImageStage, variants: Mapping[str, Sequence[int]], side: int = 256) -> ElementTable:
    """Analyse a frame of `side` x `side` pixels, truncate as each variant says, and count what is left."""
    frame = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    latents = stage.analysis(stage.pad(frame))
    sent: dict[str, list[Tensor]] = {"original": [frame, *[y[:, :0] for y in latents]]}
    for name, kept in variants.items():
        sent[name] = [frame[:, :0], *[y[:, :k] for y, k in zip(latents, kept, strict=True)]]
    shapes = [frame.shape, *[y.shape for y in latents]]
    rows = [
        LevelSize((shape[-2], shape[-1]), tuple(tensors[i].shape[1] for tensors in sent.values()))
        for i, shape in enumerate(shapes)
    ]
    sizes = [sum(tensor.numel() for tensor in tensors) for tensors in sent.values()]
    return ElementTable(tuple(sent), tuple(rows), tuple(compression_ratio([frame.numel()], [n]) for n in sizes))


@dataclass(frozen=True)
class FrameSet:
    """Held-out frames of one size, uint8 (N, S, S, 3), and what is known of them."""

    frames: np.ndarray
    marks: Marks
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def tensor(self) -> Tensor:
        """(N, 3, S, S) float in [0, 1]."""
        return torch.from_numpy(self.frames).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class Recovery:
    """One variant at one QP over a set of frames: CR in elements and in bytes, RQ with its 95% interval, PSNR in dB."""

    cr: float
    cr_bytes: float
    bpp: float
    rq: float
    rq_low: float
    rq_high: float
    psnr: float


def measure(codec: Codec, held_out: FrameSet, evaluator: Evaluator, qp: int, variant: str | None = None) -> Recovery:
    """Write the frames as one bitstream, decode it, compare: bytes are those of the file, x' what its reader sees.

    A codec without temporal stage codes each frame alone, so one file for all only shares the header.
    """
    sink = io.BytesIO()
    report = codec.compress_stream([held_out.frames], sink, qp=qp, variant=variant)
    decoded = codec.decompress(sink.getvalue())
    r = recovery(evaluator, held_out, decoded)
    kept = codec.kept(variant) or tuple(level.channels for level in codec.levels)
    height, width = (side + -side % codec.stage.multiple for side in held_out.frames.shape[1:3])
    cells = [height // level.stride * (width // level.stride) for level in codec.levels]
    elements = sum(k * n for k, n in zip(kept, cells, strict=True)) * len(held_out)
    rates = [-math.log(max(float(value), _LEAST)) for value in r]
    low, high = bootstrap_ci(rates)
    size = held_out.frames.size
    return Recovery(
        cr=compression_ratio([size], [elements]),
        cr_bytes=compression_ratio([size], [report.bytes]),
        bpp=8 * report.bytes / (size / 3),
        rq=recovery_quality(r),
        rq_low=low,
        rq_high=high,
        psnr=float(np.mean(psnr(decoded, held_out.frames))),
    )


@torch.no_grad()
def recovery(evaluator: Evaluator, held_out: FrameSet, decoded: np.ndarray) -> Tensor:
    """r of every frame, (N,), with the weights at the end of the run; `decoded` as `held_out.frames`."""
    marks = held_out.marks
    out = []
    for start in range(0, len(held_out), _BATCH):
        rows = slice(start, start + _BATCH)
        part = Marks(marks.label[rows], marks.weight[rows], marks.task[rows])
        again = torch.from_numpy(decoded[rows]).permute(0, 3, 1, 2).float() / 255
        out.append(evaluator(held_out.tensor[rows], again, part))
    return torch.cat(out)
