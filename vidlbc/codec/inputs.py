"""What a codec is given, checked: device, frames, QP, frame rate, options of motion.

Each raises InputError with one line.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream import MAX_RATE, MAX_SIDE
from vidlbc.codec.motion.search import EFFORTS
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError

MIN_SIDE = 16


def pick_device(device: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`. Raises InputError where CUDA is asked for and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: expected auto, cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} was asked for, but torch finds no CUDA GPU: use device=cpu or device=auto")
    return chosen


def check_qp(qp: int) -> int:
    if isinstance(qp, bool) or not isinstance(qp, int | np.integer) or not 0 <= qp < NUM_QP:
        raise InputError(f"qp={qp!r}: expected an integer from 0 to {NUM_QP - 1}")
    return int(qp)


def check_motion_options(effort: str, keyint: int) -> None:
    if effort not in EFFORTS:
        raise InputError(f"effort={effort!r}: expected {', '.join(EFFORTS)}")
    if isinstance(keyint, bool) or not isinstance(keyint, int) or keyint < 0:
        raise InputError(f"keyint={keyint!r}: expected a number of frames, 0 or more")


def frame_rate(fps: float | Fraction | str | None) -> Fraction:
    """As the header holds it: a non-negative fraction whose denominator is at most a million.

    Also as rows of shards have it, "24000/1001", or None where unknown.
    """
    try:
        # Fraction itself would take years over "1e999999999".
        short = not isinstance(fps, str) or (len(fps) <= 24 and "e" not in fps.lower())
        rate = Fraction(0 if fps is None else fps).limit_denominator(1_000_000) if short else Fraction(-1)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        rate = Fraction(-1)
    if not 0 <= rate.numerator <= MAX_RATE:
        raise InputError(f"fps={fps!r}: expected frames a second, or 0 where unknown")
    return rate


def frames_tensor(block: np.ndarray | Tensor) -> Tensor:
    """A block of frames, checked on its own."""
    try:
        frames = block if isinstance(block, Tensor) else np.asarray(block)
    except ValueError:
        raise InputError("frames differ in size: expected uint8 (T, H, W, 3), one size a clip") from None
    name = str(frames.dtype).removeprefix("torch.")
    if name != "uint8" or frames.ndim != 4 or frames.shape[-1] != 3:
        found = type(block).__name__ if name == "object" else f"{name} {tuple(frames.shape)}"
        raise InputError(f"frames are {found}: expected uint8 (T, H, W, 3){_hint(frames)}")
    height, width = frames.shape[1:3]
    if min(height, width) < MIN_SIDE:
        raise InputError(f"frames are {height}x{width}: expected at least {MIN_SIDE} pixels a side")
    if max(height, width) > MAX_SIDE:
        raise InputError(f"frames are {height}x{width}: expected at most {MAX_SIDE} pixels a side")
    if isinstance(frames, np.ndarray):
        # A view may run backwards or be read-only, which torch does not take.
        plain = frames.flags.writeable and min(frames.strides) >= 0
        return torch.from_numpy(frames if plain else frames.copy())
    return frames


def _hint(frames: np.ndarray | Tensor) -> str:
    """What makes frames of what was given, where that can be told."""
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[-1] != 3:
        return "; to move channels behind: frames.transpose(0, 2, 3, 1), of a tensor frames.permute(0, 2, 3, 1)"
    if frames.ndim == 3 and frames.shape[-1] == 3:
        return "; one frame is frames[None]"
    floats = frames.is_floating_point() if isinstance(frames, Tensor) else frames.dtype.kind == "f"
    if floats and frames.ndim == 4 and len(frames) and 0 <= float(frames.min()) and float(frames.max()) <= 1:
        return "; of numbers from 0 to 1: (255 * frames).round().astype('uint8'), of a tensor .byte()"
    return ""


def repack(blocks: Iterable[np.ndarray | Tensor], size: int) -> Iterator[Tensor]:
    """Checked frames in packets of `size` (the last may be shorter), whatever the sizes of the blocks."""
    waiting: list[Tensor] = []
    count, shape = 0, None
    for block in blocks:
        frames = frames_tensor(block)
        shape = shape or tuple(frames.shape[1:3])
        if tuple(frames.shape[1:3]) != shape:
            raise InputError(f"frame size changes from {shape} to {tuple(frames.shape[1:3])}: expected one size a clip")
        waiting.append(frames)
        count += len(frames)
        if count < size:
            continue
        joined = waiting[0] if len(waiting) == 1 else torch.cat(waiting)
        whole = count - count % size
        yield from joined[:whole].split(size)
        waiting, count = [joined[whole:]], count - whole
    if count:
        yield torch.cat(waiting)
