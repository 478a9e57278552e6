"""Start of training of a scalable stage: its transforms set to a Karhunen-Loeve packet of real pictures.

ELIC's transforms are chains of 2x resamplings with residual blocks between them. Each resampling is set to the
principal axes of 2x2 neighbours, the synthesis to the transposes, and the residual blocks start near the identity. So
the first step trains a transform codec, not noise; as vidlbc.codec.image_stage.klt does for `lbc`. From random weights,
450 steps of the base on 8 persons' gestures left the task's loss where it was, and 100 of the enhancement reached 19
dB.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.klt import principal_axes

# Which taps of a 5-tap kernel of stride 2 cover an output's own 2x2 cell.
_FIRST_TAP = 2
# Gate of a fresh attention block, before the sigmoid: 5% of the attention passes.
_CLOSED = -5.0


@torch.no_grad()
def set_transforms(pictures: Tensor, analysis: nn.Sequential, synthesis: nn.Sequential | None) -> None:
    """Set f and, where there is one, g in place, for `pictures` (B, 3, H, W) in [0, 1], sides multiples of 16."""
    down = [layer for layer in analysis if isinstance(layer, nn.Conv2d)]
    up = [layer for layer in synthesis or () if isinstance(layer, nn.ConvTranspose2d)][::-1]
    x = pictures - 0.5
    for index, layer in enumerate(down):
        axes = principal_axes(F.pixel_unshuffle(x, 2))[: layer.out_channels]
        kernels = axes.unflatten(1, (x.shape[1], 2, 2))
        for resampling in (layer, *up[index : index + 1]):
            assert resampling.bias is not None
            nn.init.normal_(resampling.weight, std=0.002)
            nn.init.zeros_(resampling.bias)
            taps = resampling.weight[: len(axes), : x.shape[1]]
            taps.zero_()
            taps[:, :, _FIRST_TAP : _FIRST_TAP + 2, _FIRST_TAP : _FIRST_TAP + 2] = kernels
        x = torch.einsum("oc,bchw->bohw", axes, F.pixel_unshuffle(x, 2))
    for transform in (analysis, synthesis):
        for module in transform.modules() if transform is not None else ():
            _near_identity(module)


def _near_identity(module: nn.Module) -> None:
    last, bias = None, 0.0
    if type(module).__name__ == "ResidualBottleneckBlock":
        last = module.conv3
    elif type(module).__name__ == "AttentionBlock":
        assert isinstance(module.conv_b, nn.Sequential)
        last, bias = module.conv_b[-1], _CLOSED
    if last is not None:
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, bias)
