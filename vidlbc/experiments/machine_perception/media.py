"""What the heads read: every clip coded by one codec at one setting, its bytes, and its decoded frames.

    clips --every n-th frame--> Anchor -> out/media/NAME/streams.bin, info.json        sizes are those of the streams
                                   +----> F evenly spread frames: latents (y^) or pictures --> frames.safetensors
    copies of training clips ------+----> the same, after those of all clips; no stream is kept

`info.json` is written last; a medium that has one is complete and is taken as it is.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidlbc.evaluate.codecs import Anchor
from vidlbc.evaluate.codecs.equal_bytes import X264_FPS
from vidlbc.evaluate.codecs.ours import Vidlbc
from vidlbc.experiments.machine_perception.data import even_frames
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.progress import progress_bar
from vidlbc.video.distortion import psnr


@dataclass(frozen=True)
class Medium:
    """`bytes` of all clips, `psnr` (dB) of those that were decoded for it; both None for uncompressed pictures.

    `levels`: (channels, stride) of what is read; `frames`: one tensor a level, (N, F, C, H, W) float or, for pictures,
    (N, F, H, W, 3) uint8; N is all clips, then all copies (machine_perception_copies).
    """

    name: str
    setting: str
    bytes: int | None
    psnr: float | None
    levels: tuple[tuple[int, int], ...]
    frames: tuple[Tensor, ...]

    @property
    def is_pictures(self) -> bool:
        return self.frames[0].dtype == torch.uint8

    def read(self, clips: Tensor, frames: Tensor) -> list[Tensor]:
        """`frames` (B, T) of `clips` (B,): one float (B, T, C, H, W) a level; pictures in [0, 1]."""
        chosen = [level[clips[:, None], frames] for level in self.frames]
        return [x.permute(0, 1, 4, 2, 3).float() / 255 for x in chosen] if self.is_pictures else chosen


PICTURES = ((3, 1),)


def pictures(name: str, clips: Sequence[np.ndarray], count: int) -> Medium:
    """`count` evenly spread frames of each clip, as they are."""
    return Medium(name, "as read", None, None, PICTURES, (torch.from_numpy(_spread(clips, count)),))


def code_medium(
    anchor: Anchor,
    value: float,
    clips: Sequence[np.ndarray],
    copies: Sequence[np.ndarray],
    count: int,
    measured: Sequence[int],
    folder: Path,
    levels: Sequence[int] = (),
) -> Medium:
    """Code every clip and copy; keep `count` decoded frames of each. `measured`: clips whose PSNR is taken; `levels`:
    indices of the latents that are kept. Resumes from `folder` where it is complete."""
    info = folder / "info.json"
    if not info.is_file():
        _code(anchor, value, clips, copies, count, measured, folder, levels)
    told: dict[str, Any] = json.loads(info.read_text())
    tensors = load_file(folder / "frames.safetensors")
    frames = tuple(tensors[str(i)] for i in range(len(tensors)))
    shapes = tuple((int(c), int(s)) for c, s in told["levels"])
    return Medium(anchor.name, f"{anchor.scale} {value:g}", sum(told["sizes"]), told["psnr"], shapes, frames)


def stored_sizes(folder: Path) -> list[int]:
    """Bytes of every clip of a medium that was coded into `folder`."""
    return list(json.loads((folder / "info.json").read_text())["sizes"])


def _code(
    anchor: Anchor,
    value: float,
    clips: Sequence[np.ndarray],
    copies: Sequence[np.ndarray],
    count: int,
    measured: Sequence[int],
    folder: Path,
    levels: Sequence[int],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    bar = progress_bar(clips, desc=f"code {anchor.name} {anchor.scale} {value:g}", unit="clip")
    streams = [anchor.encode(clip, value, X264_FPS) for clip in bar]
    quality = [float(psnr(anchor.decode(streams[i]), clips[i]).mean()) for i in measured]
    if isinstance(anchor, Vidlbc):
        kept, shapes = _latents(anchor, streams, [len(clip) for clip in clips], count, levels)
    else:
        kept, shapes = [torch.from_numpy(_spread([anchor.decode(data) for data in streams], count))], list(PICTURES)
    if copies:
        bar = progress_bar(copies, desc=f"copies {anchor.name}", unit="clip")
        seen = [_seen(anchor, clip, value, even_frames(len(clip), count)) for clip in bar]
        for place, index in enumerate(levels if isinstance(anchor, Vidlbc) else (0,)):
            kept[place] = torch.cat([kept[place], torch.stack([views[index] for views in seen])])
    part = folder / f"frames.{os.getpid()}.part"
    save_file({str(i): tensor.contiguous() for i, tensor in enumerate(kept)}, part)
    part.replace(folder / "frames.safetensors")
    write_atomic(folder / "streams.bin", b"".join(streams))
    told = {"sizes": [len(data) for data in streams], "psnr": float(np.mean(quality)), "levels": shapes}
    told |= {"coder": anchor.name, "setting": anchor.scale, "value": value}
    write_atomic(folder / "info.json", dump_json(told))


def _seen(anchor: Anchor, frames: np.ndarray, value: float, chosen: Sequence[int]) -> list[Tensor]:
    """What a head sees of the `chosen` frames: one tensor a level.

    Pictures (T, H, W, 3) uint8, or dequantised latents (T, C_l, H_l, W_l). Of latents no bitstream is written: without
    a temporal stage frames are coded each on its own, and a bitstream gives back the very symbols.
    """
    if isinstance(anchor, Vidlbc):
        codec, qp = anchor.codec, int(value)
        return codec.dequantise(codec.analyse(frames[list(chosen)], qp), qp)
    return [torch.from_numpy(anchor.decode(anchor.encode(frames, value, X264_FPS))[list(chosen)])]


def _latents(
    anchor: Vidlbc, streams: Sequence[bytes], lengths: Sequence[int], count: int, levels: Sequence[int]
) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Dequantised latents out of the bitstreams, the frames that `_spread` would take."""
    kept: list[list[Tensor]] = [[] for _ in levels]
    for data, length in zip(progress_bar(streams, desc=f"read {anchor.name}", unit="clip"), lengths, strict=True):
        decoded = anchor.codec.latents(data)
        for place, index in enumerate(levels):
            kept[place].append(decoded[index][even_frames(length, count)].clone())
    shapes = [(anchor.codec.levels[i].channels, anchor.codec.levels[i].stride) for i in levels]
    return [torch.stack(level) for level in kept], shapes


def _spread(clips: Sequence[np.ndarray], count: int) -> np.ndarray:
    return np.stack([clip[even_frames(len(clip), count)] for clip in clips])


def describe(medium: Medium, pixels: int) -> dict[str, Any]:
    """Figures of a medium for metrics.json; `pixels`: of all coded frames."""
    bpp = None if medium.bytes is None else 8 * medium.bytes / pixels
    return {"setting": medium.setting, "bytes": medium.bytes, "bpp": bpp, "psnr": medium.psnr}
