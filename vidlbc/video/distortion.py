"""How far decoded frames are from the source: PSNR and MS-SSIM, per frame, on 8-bit RGB."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidlbc.errors import InputError

# A frame without any error would count as infinite and take every mean with it.
PSNR_CEILING = 100.0
# pytorch-msssim needs a side above (window - 1) * 2^4, as MS-SSIM halves the picture four times.
_WINDOW, _SCALES = 11, 5
_BLOCK = 8


def psnr(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> NDArray[np.float64]:
    """uint8 (T, H, W, 3) twice -> (T,) dB: 10 log10(255^2 / MSE), MSE over all pixels and RGB, at most 100 dB.

    A clip's PSNR is the mean of its frames' values.
    """
    out = []
    for x, y in _blocks(a, b):
        mse = (x.double() - y.double()).square().flatten(1).mean(1)
        out.append((10.0 * torch.log10(255.0**2 / mse)).clamp(max=PSNR_CEILING))
    return torch.cat(out).numpy()


def ms_ssim(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> NDArray[np.float64]:
    """uint8 (T, H, W, 3) twice -> (T,) MS-SSIM in [0, 1], of RGB (pytorch-msssim; Wang et al., 2003).

    The standard 11-tap window needs a shorter side of at least 161 pixels. Below that the largest odd window that fits
    is used (3 taps from 33 pixels on), and below 33 pixels single-scale SSIM: such values compare with each
    other at the same size, not with those of large pictures.
    """
    from pytorch_msssim import ms_ssim as multi_scale
    from pytorch_msssim import ssim as single_scale

    out = []
    for x, y in _blocks(a, b):
        x, y = (z.permute(0, 3, 1, 2).float() for z in (x, y))
        side = min(x.shape[-2:])
        window = _odd_at_most(min(_WINDOW, (side - 1) // 2 ** (_SCALES - 1) + 1))
        if window >= 3:
            out.append(multi_scale(x, y, data_range=255.0, size_average=False, win_size=window))
        else:
            window = _odd_at_most(min(_WINDOW, side))
            out.append(single_scale(x, y, data_range=255.0, size_average=False, win_size=window, nonnegative_ssim=True))
    return torch.cat(out).double().numpy()


def _odd_at_most(n: int) -> int:
    return n - 1 + n % 2


def _as_tensor(clip: Tensor | np.ndarray) -> Tensor:
    # Pillow's arrays are read-only, which torch warns of.
    return torch.as_tensor(clip if isinstance(clip, Tensor) or clip.flags.writeable else clip.copy())


def _blocks(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """A few frames at a time: a long clip in double precision would not fit."""
    x, y = _as_tensor(a), _as_tensor(b)
    for name, z in (("first", x), ("second", y)):
        if z.ndim != 4 or z.shape[-1] != 3 or z.dtype != torch.uint8 or not len(z):
            raise InputError(f"the {name} clip must be uint8 (T, H, W, 3), got {z.dtype} {tuple(z.shape)}")
    if x.shape != y.shape:
        raise InputError(f"clips of different shapes cannot be compared: {tuple(x.shape)} and {tuple(y.shape)}")
    for start in range(0, len(x), _BLOCK):
        yield x[start : start + _BLOCK], y[start : start + _BLOCK]
