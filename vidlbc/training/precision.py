"""How a GPU multiplies while it trains; a codec needs plain float32 again afterwards (vidlbc.prior.grid)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def training_precision(tf32: bool) -> Iterator[None]:
    """Within, matrix products and convolutions on a GPU round their float32 inputs to TF32's 11 bits, or do not, and
    cuDNN looks for the fastest way; without effect on a CPU."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
