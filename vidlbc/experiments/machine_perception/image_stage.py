"""The codec of Codevilla et al. (arXiv 2111.02249, Table 5) as an image stage, from CompressAI's parts.

    frame --4 x (conv 5x5 / 2, GDN)--> y (stride 16) --|y|, 3 conv, leaky ReLU--> z      levels, fine to coarse: y, z
    frame <--4 x (deconv 5x5 x 2, IGDN)-- y^                                             z only informs the prior of y

As in the other CompressAI families the exact top-down prior (vidlbc.codec.prior) takes the place of the hyper-decoder
and of the entropy model: it codes z and gives every symbol of y a mean and a scale. Frames are centred at mid-grey.

Table 5 prints stride 2 for all three convolutions of the hyper-encoder, which puts z at stride 128 (`z_stride=128`).
The models that the paper refers to (Balle et al., arXiv 1802.01436; Minnen et al., arXiv 1809.02736) have stride 1 in
the first one, which puts z at stride 64 (`z_stride=64`) and needs less padding for small frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.base import ImageStage
from vidlbc.codec.image_stage.compressai_families import import_compressai
from vidlbc.codec.image_stage.klt import principal_axes
from vidlbc.codec.prior.topdown import Level

Y_STRIDE = 16
Z_STRIDES = (64, 128)
# Of the start: a weak normalisation, so that GDN and IGDN nearly undo each other, and noise on the weights left unset.
_START_GAMMA, _START_NOISE = 0.01, 0.002


class Codevilla(ImageStage):
    """Four convolutions with GDN, y of N channels at stride 16; z of N channels at `z_stride`."""

    family = "codevilla"
    synthesis_modules = ("g_s",)

    def __init__(
        self, N: int = 256, z_stride: int = 128, prior_widths: Sequence[int] = (256, 128), prior_blocks: int = 2
    ) -> None:
        """`prior_widths` for working strides 16 and `z_stride`. Raises ValueError for another z_stride."""
        if z_stride not in Z_STRIDES:
            raise ValueError(f"z_stride={z_stride}, expected one of {', '.join(map(str, Z_STRIDES))}")
        levels = [Level(Y_STRIDE, N, view_bits=2), Level(z_stride, N, view_bits=2)]
        super().__init__(levels, prior_widths, prior_blocks)
        package: Any = import_compressai()
        parts, gdn = package.models.utils, package.layers.GDN
        conv, deconv = parts.conv, parts.deconv
        self.g_a = nn.Sequential(conv(3, N), gdn(N), conv(N, N), gdn(N), conv(N, N), gdn(N), conv(N, N))
        self.g_s = nn.Sequential(
            deconv(N, N),
            gdn(N, inverse=True),
            deconv(N, N),
            gdn(N, inverse=True),
            deconv(N, N),
            gdn(N, inverse=True),
            deconv(N, 3),
        )
        first_stride = 2 if z_stride == 128 else 1
        self.h_a = nn.Sequential(
            conv(N, N, kernel_size=3, stride=first_stride), nn.LeakyReLU(), conv(N, N), nn.LeakyReLU(), conv(N, N)
        )

    def analysis(self, x: Tensor) -> list[Tensor]:
        y = self.g_a(x - 0.5)
        return [y, self.h_a(y.abs())]

    def synthesis(self, latents: Sequence[Tensor], qp: Tensor) -> Tensor:
        return self.g_s(latents[0]) + 0.5

    @torch.no_grad()
    def start_from(self, pictures: Tensor) -> bool:
        """Set the transforms to a Karhunen-Loeve wavelet packet of `pictures` (B, 3, H, W), sides multiples of 16.

        Each convolution rotates 2x2 pixels of its input onto their principal axes and keeps the first N; each
        deconvolution is the transpose. The paper starts from random weights and trains for 70 epochs of 400,000
        pictures. From random weights 250 steps of 8 crops reach 20 dB on a CPU; this start is near 25 dB before the
        first step, and its scale is the one that the quantisation gains start with.
        """
        x = pictures - 0.5
        convs = [layer for layer in self.g_a if isinstance(layer, nn.Conv2d)]
        deconvs = [layer for layer in self.g_s if isinstance(layer, nn.ConvTranspose2d)]
        for down, up in zip(convs, reversed(deconvs), strict=True):
            channels = x.shape[1]
            axes = principal_axes(F.pixel_unshuffle(x, 2))[: down.out_channels]
            kernels = axes.unflatten(1, (channels, 2, 2))
            for layer in (down, up):
                assert layer.bias is not None
                nn.init.normal_(layer.weight, std=_START_NOISE)
                nn.init.zeros_(layer.bias)
            # A 5x5 kernel of stride 2 and padding 2 has its 2x2 cell at taps 2 and 3. Weights are (out, in, 5, 5) and,
            # transposed, (in, out, 5, 5): both are (fine to coarse) the same numbers.
            down.weight[: len(axes), :channels, 2:4, 2:4] = kernels
            up.weight[: len(axes), :channels, 2:4, 2:4] = kernels
            x = torch.einsum("oc,bchw->bohw", axes, F.pixel_unshuffle(x, 2))
        for layer in (*self.g_a, *self.g_s):
            if hasattr(layer, "gamma_reparam"):
                layer.gamma.copy_(layer.gamma_reparam.init(_START_GAMMA * torch.eye(len(layer.gamma))))
        return True
