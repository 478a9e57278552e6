"""How a GPU multiplies while it trains; a codec needs plain float32 again afterwards (vidlbc.codec.prior.grid)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vidlbc.errors import InputError


@contextmanager
def training_precision(tf32: bool) -> Iterator[None]:
    """Within, matrix products and convolutions on a GPU round their float32 inputs to TF32's 11 bits, or do not, and
    cuDNN looks for the fastest way; without effect on a CPU.

    Raises InputError where the process uses torch's newer settings: torch refuses the two beside each other.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    except RuntimeError:
        raise InputError(
            "torch's fp32_precision settings are in use here, expected allow_tf32: training sets it by train.tf32"
        ) from None
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
