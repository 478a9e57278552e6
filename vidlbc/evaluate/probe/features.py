"""Tokens of every view of every clip, computed once and kept: what probes are trained on.

A head's stem has no parameters, so its output is cached and the hundreds of passes over the training split read
the cache. Size: views * frames * 3 * sum C_l * grid^2 * 2 bytes a clip (float16), e.g. 100 kB a view at 64 channels,
16 frames and a 4 x 4 grid; a corpus beyond memory needs fewer views or a smaller grid.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import InputError
from vidlbc.evaluate.probe.patches import patchify, pixel_levels
from vidlbc.evaluate.probe.views import ViewPlan, view_indices
from vidlbc.heads.tokens import STATISTICS, TokenGrid

FORMAT = "vidlbc-features-1"


@dataclass(frozen=True)
class FeatureSet:
    """Views of N videos. `failed` lists (key, reason) of files that could not be read: counted, never replaced."""

    tokens: Tensor  # (N, V, T, C, g, g) float16
    labels: Tensor  # (N,) int64
    keys: tuple[str, ...]
    groups: tuple[str, ...]  # "" where a video's group is unknown: such a video is a group of its own
    levels: tuple[tuple[int, int], ...]  # (channels, stride), fine to coarse
    failed: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.keys)
        if self.tokens.ndim != 6 or not n == len(self.tokens) == len(self.labels) == len(self.groups):
            raise InputError(
                f"features of {n} videos need tokens (N, V, T, C, g, g), N labels and N groups, got "
                f"{tuple(self.tokens.shape)}, {len(self.labels)} and {len(self.groups)}"
            )
        if len(set(self.keys)) != n:
            raise InputError("features hold a video twice: keys must be unique")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def views(self) -> int:
        return self.tokens.shape[1]

    @property
    def grid(self) -> int:
        return self.tokens.shape[-1]

    def subset(self, indices: Sequence[int]) -> "FeatureSet":
        """The videos at `indices`, in that order; failures stay with the whole set."""
        at = list(indices)
        return replace(
            self,
            tokens=self.tokens[at],
            labels=self.labels[at],
            keys=tuple(self.keys[i] for i in at),
            groups=tuple(self.groups[i] for i in at),
            failed=(),
        )

    def joined(self, other: "FeatureSet") -> "FeatureSet":
        """Both sets' videos. Raises InputError where views or levels differ."""
        if self.levels != other.levels or self.tokens.shape[1:] != other.tokens.shape[1:]:
            raise InputError(
                f"features with different views or levels cannot be joined: "
                f"{tuple(self.tokens.shape[1:])} and {tuple(other.tokens.shape[1:])}"
            )
        return FeatureSet(
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.labels, other.labels]),
            self.keys + other.keys,
            self.groups + other.groups,
            self.levels,
            self.failed + other.failed,
        )

    def save(self, path: str | Path) -> None:
        """One safetensors file, written under a temporary name first."""
        from safetensors.torch import save_file

        meta = dict(keys=self.keys, groups=self.groups, levels=self.levels, failed=self.failed)
        part = Path(path).with_name(Path(path).name + ".part")
        save_file(
            {"tokens": self.tokens.contiguous(), "labels": self.labels},
            part,
            metadata={"format": FORMAT, "meta": json.dumps(meta)},
        )
        part.replace(path)

    @staticmethod
    def load(path: str | Path) -> "FeatureSet":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise InputError(f"{path}: not a features file of format {FORMAT}")
                tokens, labels = file.get_tensor("tokens"), file.get_tensor("labels")
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot read features: {error}") from error
        meta = json.loads(header["meta"])
        levels = tuple((int(c), int(s)) for c, s in meta["levels"])
        failed = tuple((str(k), str(r)) for k, r in meta["failed"])
        return FeatureSet(tokens, labels, tuple(meta["keys"]), tuple(meta["groups"]), levels, failed)


class FeatureBuilder:
    """Collects a FeatureSet clip by clip; only the tokens stay in memory.

    `levels` are those of the codec, (channels, stride). With `pixels=True` the builder takes frames and cuts them into
    levels of the same strides and channels; else it takes latents.
    """

    def __init__(
        self, levels: Sequence[tuple[int, int]], plan: ViewPlan, *, grid: int = 4, pixels: bool = False
    ) -> None:
        self.levels = tuple(pixel_levels(levels) if pixels else levels)
        self.plan = plan
        self.pixels = pixels
        self.stem = TokenGrid(self.levels, grid)
        self._rows: list[tuple[str, str, int]] = []
        self._tokens: list[Tensor] = []
        self._failed: list[tuple[str, str]] = []

    def add(
        self,
        key: str,
        label: int,
        clip: Sequence[Tensor] | Tensor | np.ndarray,
        group: str | None = None,
        total: int | None = None,
    ) -> None:
        """One video, as `tokens` takes it."""
        self.keep(key, label, self.tokens(key, clip, total), group)

    def keep(self, key: str, label: int, tokens: Tensor, group: str | None = None) -> None:
        """One video by its `tokens`."""
        self._tokens.append(tokens)
        self._rows.append((key, group or "", int(label)))

    def tokens(self, key: str, clip: Sequence[Tensor] | Tensor | np.ndarray, total: int | None = None) -> Tensor:
        """Tokens of a video: from latents, one (T, C_l, H_l, W_l) a level, or, for pixels, uint8 frames (T, H, W, 3).

        All of its frames; or, with `total`, the number of them, only those that a view holds (`wanted`), in order.
        Changes nothing here, so that several threads may make tokens at once.
        """
        first = clip[0] if isinstance(clip, (list, tuple)) else clip
        given = len(clip) if self.pixels else len(first)
        chosen, inverse = np.unique(view_indices(total or given, self.plan, key), return_inverse=True)
        if total is not None:
            if given != len(chosen):
                raise InputError(f"video '{key}': {given} frames given, its views hold {len(chosen)} of {total}")
            chosen = np.arange(given)
        if self.pixels:
            latents = patchify(torch.as_tensor(clip)[chosen], self.levels)  # only frames that a view holds
        else:
            latents = [torch.as_tensor(y)[chosen] for y in clip]
        at = torch.as_tensor(inverse.reshape(self.plan.views, self.plan.frames))
        with torch.no_grad():
            tokens: Tensor = self.stem([y[at] for y in latents])
        return tokens.half().cpu()

    def wanted(self, key: str, total: int) -> np.ndarray:
        """Indices of the frames that the views of a video of `total` frames hold, rising."""
        return np.unique(view_indices(total, self.plan, key))

    def fail(self, key: str, reason: str) -> None:
        """A file that could not be read. It is counted in every result and replaced by nothing."""
        self._failed.append((key, reason))

    def build(self) -> FeatureSet:
        """What was kept. Raises InputError where nothing was."""
        if not self._tokens:
            raise InputError(f"no clip could be read ({len(self._failed)} failed)")
        return self.part()

    def part(self) -> FeatureSet:
        """What was kept, even if that is nothing: to be joined with other parts."""
        channels = STATISTICS * sum(channels for channels, _ in self.levels)
        shape = self.plan.views, self.plan.frames, channels, self.stem.grid, self.stem.grid
        tokens = torch.stack(self._tokens) if self._tokens else torch.empty(0, *shape, dtype=torch.half)
        keys, groups = tuple(key for key, _, _ in self._rows), tuple(group for _, group, _ in self._rows)
        labels = torch.tensor([label for _, _, label in self._rows], dtype=torch.int64)
        return FeatureSet(tokens, labels, keys, groups, self.levels, tuple(self._failed))
