"""ResNets that read pictures or latents (Codevilla et al., arXiv 2111.02249, Figure 2, Tables 2, 3 and 6, section A.3).

    rgb         picture ----7x7 / 2, max pool / 2------------------------------------> layers 2-5     ResNet (He et al.)
    subpixel    latents ----Block, pixel shuffle, Block, pixel shuffle, Block, 1x1---> layers 2-5     sResNet
    truncated   latents ----1x1--> what is left of layer 3 --------------------------> layers 4-5     cResNet
                                                                                (Torfason et al., arXiv 1803.06131)

All have the same layers. The defaults are ResNet-101's as Table 6 prints them; a CPU needs a small width and depths.

`Block(a, b)` of Table 6 is read as torchvision's `Bottleneck(inplanes, planes)`: it gives 4 b channels, which is what
makes the printed numbers fit (256 -> 4 x 64, shuffle -> 64 -> 4 x 16, shuffle -> 16 -> 4 x 16, 1x1 -> 64). Its three
convolutions are 3x3 (section A.3.4).
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vidlbc.errors import InputError

STEMS = ("rgb", "subpixel", "truncated")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "mish": nn.Mish, "silu": nn.SiLU}
NORMS = ("batch", "group")
EXPANSION = 4
_NORM_GROUPS = 8


@dataclass(frozen=True)
class ResNetSettings:
    """`width`: planes of layer 2, doubled by every later layer; `depths`: blocks of layers 2 to 5.

    `shuffles`, `residual` and `activation` are the rows of the paper's Table 2: one pixel shuffle by 4 or two by 2,
    skip connections in the stem's blocks, the activation. `norm`: batch normalisation as in the paper, or group
    normalisation, which does not depend on the other pictures of a small batch. Raises InputError.
    """

    stem: str = "subpixel"
    width: int = 64
    depths: tuple[int, ...] = (3, 4, 23, 3)
    shuffles: int = 2
    residual: bool = True
    activation: str = "silu"
    norm: str = "batch"

    def __post_init__(self) -> None:
        choices = (("stem", STEMS), ("activation", tuple(ACTIVATIONS)), ("norm", NORMS), ("shuffles", (1, 2)))
        for name, known in choices:
            if getattr(self, name) not in known:
                expected = ", ".join(map(str, known))
                raise InputError(f"head.{name}={getattr(self, name)}: expected one of {expected}")
        if not isinstance(self.width, int) or self.width < 4 or self.width % 4:
            raise InputError(f"head.width={self.width}: expected a multiple of 4")
        if len(self.depths) != 4 or not all(isinstance(n, int) and n > 0 for n in self.depths):
            raise InputError(f"head.depths={list(self.depths)}: expected four numbers of blocks, each at least 1")

    def normalisation(self, channels: int) -> nn.Module:
        if self.norm == "batch":
            return nn.BatchNorm2d(channels)
        return nn.GroupNorm(math.gcd(_NORM_GROUPS, channels), channels)


class ResNet(nn.Module):
    """(B, `channels`, H, W) pictures or latents -> features (B, `features`), averaged over places."""

    def __init__(self, channels: int, settings: ResNetSettings) -> None:
        super().__init__()
        s = settings
        self.features = 8 * s.width * EXPANSION
        if s.stem == "truncated":
            inside = 2 * s.width * EXPANSION
            self.stem: nn.Module = nn.Conv2d(channels, inside, 1)
            # Table 6 keeps the last two of layer 3's four blocks.
            first, planes, depths = inside, [2 * s.width], [max(1, s.depths[1] - 2)]
        else:
            self.stem = (rgb_stem if s.stem == "rgb" else subpixel_stem)(channels, s)
            first, planes, depths = s.width, [s.width, 2 * s.width], list(s.depths[:2])
        planes += [4 * s.width, 8 * s.width]
        depths += s.depths[2:]
        layers: list[nn.Module] = []
        for index, (wide, depth) in enumerate(zip(planes, depths, strict=True)):
            for block in range(depth):
                layers.append(Bottleneck(first, wide, s, stride=2 if index and not block else 1))
                first = EXPANSION * wide
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.stem(x)).mean((2, 3))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to 4 `planes` channels, with a skip connection (He et al., arXiv 1512.03385)."""

    def __init__(self, channels: int, planes: int, settings: ResNetSettings, stride: int = 1) -> None:
        super().__init__()
        kernels = [(channels, planes, 1, 1), (planes, planes, 3, stride), (planes, EXPANSION * planes, 1, 1)]
        self.path = convolutions(kernels, settings)
        self.skip = projection(channels, EXPANSION * planes, stride, settings)
        self.activation = ACTIVATIONS[settings.activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.path(x) + self.skip(x))


class SubPixelBlock(nn.Module):
    """Table 6's Block(channels, planes): three 3x3 convolutions to 4 `planes` channels, with a skip connection or not.

    Without the skip connection (the first row of Table 2) it is the convolutions alone.
    """

    def __init__(self, channels: int, planes: int, settings: ResNetSettings) -> None:
        super().__init__()
        kernels = [(channels, planes, 3, 1), (planes, planes, 3, 1), (planes, EXPANSION * planes, 3, 1)]
        self.path = convolutions(kernels, settings)
        self.skip = projection(channels, EXPANSION * planes, 1, settings) if settings.residual else None
        self.activation = ACTIVATIONS[settings.activation]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.path(x)
        return self.activation(y if self.skip is None else y + self.skip(x))


def convolutions(kernels: list[tuple[int, int, int, int]], settings: ResNetSettings) -> nn.Sequential:
    """(in, out, kernel, stride) each followed by a normalisation, and by an activation but for the last."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in kernels:
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
        layers.append(settings.normalisation(outputs))
        layers.append(ACTIVATIONS[settings.activation]())
    return nn.Sequential(*layers[:-1])


def projection(inputs: int, outputs: int, stride: int, settings: ResNetSettings) -> nn.Module:
    """The skip connection: the identity where shapes agree, else a strided 1x1 convolution."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), settings.normalisation(outputs))


def rgb_stem(channels: int, settings: ResNetSettings) -> nn.Module:
    """7x7 convolution and max pooling, stride 2 each: (B, 3, H, W) -> (B, width, H/4, W/4)."""
    width = settings.width
    conv = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
    return nn.Sequential(conv, settings.normalisation(width), ACTIVATIONS[settings.activation](), nn.MaxPool2d(3, 2, 1))


def subpixel_stem(channels: int, settings: ResNetSettings) -> nn.Module:
    """Latents (B, channels, H, W) -> (B, width, 4 H, 4 W)."""
    width = settings.width
    block = partial(SubPixelBlock, settings=settings)
    if settings.shuffles == 1:
        layers = [block(channels, width), nn.PixelShuffle(4)]
    else:
        layers = [block(channels, width), nn.PixelShuffle(2), block(width, width // 4), nn.PixelShuffle(2)]
    return nn.Sequential(*layers, block(width // 4, width // 4), nn.Conv2d(width, width, 1))


class LevelStack(nn.Module):
    """Latents of several levels on the grid of one stride, as one tensor.

    Finer levels are folded (space to depth), coarser ones repeated (nearest neighbour). Levels whose size is no
    multiple are padded with their last row and column, and the result is cut to the smallest of the grids.
    """

    def __init__(self, levels: tuple[tuple[int, int], ...], stride: int | None = None) -> None:
        """`levels`: (channels, stride), fine to coarse; `stride`: the grid, by default that of the finest level.

        Raises InputError where strides are no multiples of one another.
        """
        super().__init__()
        if not levels:
            raise InputError("a head needs at least one level, got none")
        self.levels = levels
        self.stride = levels[0][1] if stride is None else stride
        if any(s % self.stride and self.stride % s for _, s in levels):
            raise InputError(f"head: levels of strides {[s for _, s in levels]} do not fit a grid of {self.stride}")

    @property
    def channels(self) -> int:
        """Channels of the stacked tensor."""
        return sum(c * max(1, self.stride // s) ** 2 for c, s in self.levels)

    def forward(self, latents: list[Tensor]) -> Tensor:
        """One (B, C_l, H_l, W_l) a level -> (B, channels, H, W)."""
        grids = [self._regridded(y, stride) for y, (_, stride) in zip(latents, self.levels, strict=True)]
        height, width = (min(y.shape[d] for y in grids) for d in (2, 3))
        return torch.cat([y[:, :, :height, :width] for y in grids], 1) if len(grids) > 1 else grids[0]

    def _regridded(self, y: Tensor, stride: int) -> Tensor:
        if stride == self.stride:
            return y
        if stride > self.stride:
            times = stride // self.stride
            return y.repeat_interleave(times, 2).repeat_interleave(times, 3)
        fold = self.stride // stride
        bottom, right = -y.shape[2] % fold, -y.shape[3] % fold
        padded = nn.functional.pad(y, (0, right, 0, bottom), mode="replicate") if bottom or right else y
        return nn.functional.pixel_unshuffle(padded, fold)
