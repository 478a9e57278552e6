"""CompressAI's own models with the zoo's weights, where the user has them: nothing is downloaded.

A name is `compressai-ARCHITECTURE`: an image model, such as compressai-bmshj2018-hyperprior (compressai-hyperprior for
short), frame after frame, or compressai-ssf2020. Checkpoints lie in one folder under the names that the zoo and
torch.hub give them, `bmshj2018-hyperprior-3-...pth.tar`, `ssf2020-mse-3-...pth.tar`; the number is the quality.

A file is: the number of strings of every frame and the shapes of the latents, as the models tell them, packed once
(zlib), then every string with its length in 4 bytes.
"""

import json
import re
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.image_stage.compressai_families import import_compressai, read_checkpoint
from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.base import Anchor

PREFIX = "compressai-"
_SHORT = {"hyperprior": "bmshj2018-hyperprior", "factorized": "bmshj2018-factorized", "mean-hyperprior": "mbt2018-mean"}
_VIDEO = "ssf2020"
_LENGTH = 4
_UNTRAINED = 4  # the quality whose widths are those of most of the zoo's


class CompressAIModel(Anchor):
    """All checkpoints of one architecture in `folder`, a quality each. `trained=False`: with random weights, at
    quality 4, which are as fast.

    Raises InputError for an unknown architecture, or where there is no checkpoint of it.
    """

    scale, suffix = "quality", ".compressai"

    def __init__(self, name: str, folder: Path | None, device: str = "cpu", trained: bool = True) -> None:
        short = name.removeprefix(PREFIX)
        self.name, self._architecture, self._device = name, _SHORT.get(short, short), device
        zoo = import_compressai().zoo
        known = {**zoo.image.model_architectures, _VIDEO: zoo.video.model_architectures[_VIDEO]}
        if self._architecture not in known:
            raise InputError(f"codec {name}: expected {PREFIX} and one of {', '.join([*_SHORT, *known])}")
        self._class = known[self._architecture]
        self.steps = self.qualities = (_UNTRAINED,)
        self.settings = "random weights"
        self._files: dict[int, Path] = {}
        if trained:
            self._find(folder)
        self._loaded: tuple[int, Any] | None = None

    def _find(self, folder: Path | None) -> None:
        pattern = re.compile(re.escape(self._architecture) + r"(?:-mse)?-(\d)-[0-9a-f]+(\.pth\.tar|\.safetensors)")
        files = sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []
        found = {int(match[1]): file for file in files if (match := pattern.fullmatch(file.name))}
        if not found:
            where = f"none in {folder}" if folder is not None else "give their folder as compressai_weights="
            raise InputError(
                f"{self.name} needs the zoo's checkpoints {self._architecture}-QUALITY-HASH.pth.tar: {where}"
            )
        self._files = found
        self.steps = self.qualities = tuple(sorted(found))
        self.settings = ", ".join(found[q].name.split(".")[0] for q in self.qualities)

    def check(self, quality: float) -> None:
        if quality not in self.qualities:
            raise InputError(f"{self.name}={quality}: expected one of {list(self.qualities)}, which have a checkpoint")

    @torch.inference_mode()
    def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
        model = self._model(int(quality))
        inputs = [self._padded(frame) for frame in frames]
        if self._architecture == _VIDEO:
            strings, shapes = model.compress(inputs)
        else:
            coded = [model.compress(x) for x in inputs]
            strings, shapes = [c["strings"] for c in coded], [c["shape"] for c in coded]
        told = {"quality": int(quality), "strings": _without_bytes(strings), "shapes": _plain(shapes)}
        head = zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 9)
        parts = [len(head).to_bytes(_LENGTH, "big"), head]
        for leaf in _leaves(strings):
            parts += [len(leaf).to_bytes(_LENGTH, "big"), leaf]
        return b"".join(parts)

    @torch.inference_mode()
    def decode(self, data: bytes, height: int | None = None, width: int | None = None) -> np.ndarray:
        pieces = _pieces(data)
        told = json.loads(zlib.decompress(next(pieces)))
        strings, model = _with_bytes(told["strings"], pieces), self._model(told["quality"])
        if self._architecture == _VIDEO:
            pictures = model.decompress(strings, told["shapes"])
        else:
            both = zip(strings, told["shapes"], strict=True)
            pictures = [model.decompress(string, shape)["x_hat"] for string, shape in both]
        whole = torch.cat(list(pictures))[:, :, :height, :width].clamp(0, 1).mul(255).round().byte()
        return np.ascontiguousarray(whole.permute(0, 2, 3, 1).cpu().numpy())

    def _padded(self, frame: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None].float() / 255
        multiple = 128 if self._architecture == _VIDEO else 64
        return F.pad(x, (0, -frame.shape[1] % multiple, 0, -frame.shape[0] % multiple), mode="replicate")

    def _model(self, quality: int) -> Any:
        """The last one used is kept."""
        if self._loaded is None or self._loaded[0] != quality:
            self.check(quality)
            model = self._read(self._files[quality]) if self._files else self._random(quality)
            model.update(force=True)  # tables of the entropy coder
            self._loaded = quality, model.eval().to(self._device)
        return self._loaded[1]

    def _read(self, file: Path) -> Any:
        try:
            return self._class.from_state_dict(read_checkpoint(file))
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0][:120]
            raise InputError(f"{file}: no checkpoint of {self._architecture} ({reason})") from None

    def _random(self, quality: int) -> Any:
        zoo = import_compressai().zoo
        models = zoo.video_models if self._architecture == _VIDEO else zoo.image_models
        return models[self._architecture](quality=quality, pretrained=False)


def _leaves(strings: Any) -> Iterator[bytes]:
    if isinstance(strings, bytes):
        yield strings
        return
    for part in strings.values() if isinstance(strings, dict) else strings:
        yield from _leaves(part)


def _without_bytes(strings: Any) -> Any:
    """The same lists and dictionaries with 0 for every string."""
    if isinstance(strings, bytes):
        return 0
    if isinstance(strings, dict):
        return {key: _without_bytes(part) for key, part in strings.items()}
    return [_without_bytes(part) for part in strings]


def _with_bytes(shape: Any, pieces: Iterator[bytes]) -> Any:
    if isinstance(shape, dict):
        return {key: _with_bytes(part, pieces) for key, part in shape.items()}
    return [_with_bytes(part, pieces) for part in shape] if isinstance(shape, list) else next(pieces)


def _plain(shapes: Any) -> Any:
    if isinstance(shapes, dict):
        return {key: _plain(part) for key, part in shapes.items()}
    return [_plain(part) for part in shapes] if isinstance(shapes, list | tuple) else int(shapes)


def _pieces(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + _LENGTH], "big")
        yield data[at + _LENGTH : at + _LENGTH + length]
        at += _LENGTH + length
