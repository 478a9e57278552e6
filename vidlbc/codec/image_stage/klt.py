"""Start of training: the linear layers of an LBC set to a Karhunen-Loeve wavelet packet of real pictures.

At each stride the 2x2 (first: 4x4) unshuffled features are rotated onto their principal axes. The leading axes go on to
the next stride, those after them become this level's symbols, and the synthesis gets the transposes. The whole is
orthonormal, so before the first step the network is already a transform codec near JPEG, and training refines it.
Without this, the first hour of CPU training goes into finding such a transform.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.prior.topdown import Level


def principal_axes(x: Tensor) -> Tensor:
    """(B, C, H, W) -> orthonormal rows (C, C), by falling variance; second moments, not centred (0 is mid-grey)."""
    samples = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).double()
    _, vectors = torch.linalg.eigh(samples.T @ samples / len(samples))
    return vectors.flip(1).T.float()


def _reset(layer: nn.Module, deviation: float) -> nn.Conv2d:
    """Small random weights and no bias: what the transform leaves unset."""
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)
    return layer


class LinearLayers(Protocol):
    """The layers of an LBC (vidlbc.codec.image_stage.lbc) that are set: one a level each."""

    levels: tuple[Level, ...]
    down: nn.ModuleList
    up: nn.ModuleList
    project: nn.ModuleList
    lift: nn.ModuleList


@torch.no_grad()
def initialise(stage: LinearLayers, pictures: Tensor, carry: Sequence[int] = (48, 24, 16)) -> list[Tensor]:
    """Set the linear layers of `stage`, in place.

    `pictures`: (B, 3, H, W) in [0, 1], sizes multiples of 32; `carry`: how many axes strides 4, 8, 16 pass on.
    Returns the standard deviation of every axis of each stride, by falling variance.
    """
    deviations = []
    x = F.pixel_unshuffle(pictures - 0.5, 4)
    carried = x.shape[1]
    for index, level in enumerate(stage.levels):
        axes = principal_axes(x)
        rotated = torch.einsum("oc,bchw->bohw", axes, x)
        deviations.append(rotated.std((0, 2, 3)))
        last = index == len(stage.levels) - 1
        down, up = _reset(stage.down[index], 0.02), _reset(stage.up[index], 0.005)
        keep = 0 if last else min(carry[index], down.out_channels)
        # Axis `keep + i` is symbol channel i; a level whose axes all pass on codes nothing yet (training may use it).
        coded = max(0, min(level.channels, axes.shape[0] - keep))
        used = min(keep + coded, down.out_channels)

        # Columns that read the carried channels of the finer stride: pixel_unshuffle orders (channel, 2x2 position).
        folds = 16 if index == 0 else 4
        source = 3 if index == 0 else carried
        columns = torch.arange(source * folds)
        down.weight[:used] = 0
        down.weight[:used, columns, 0, 0] = axes[:used]
        up.weight[columns] = 0
        up.weight[columns, :used, 0, 0] = axes[:used].T

        project, lift = _reset(stage.project[index], 0.002), _reset(stage.lift[index], 0.002)
        for channel in range(min(coded, used - keep)):
            project.weight[channel] = 0
            project.weight[channel, keep + channel] = 1
            lift.weight[:, channel] = 0
            lift.weight[keep + channel, channel] = 1
        if not last:
            x = F.pixel_unshuffle(rotated[:, :keep], 2)
            carried = keep
    return deviations
