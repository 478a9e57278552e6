"""Where training data lie: on the training device where they fit, else in the host's memory."""

import torch

from vidlbc.errors import InputError

CHOICES = ("auto", "true", "false")
# The rest is for weights, activations and captured graphs.
_SHARE = 0.4


def place_of(nbytes: int, device: torch.device, resident: str) -> torch.device:
    """The device for `nbytes` of pixels; `resident`: true (on the training device), false (host), auto (if they fit).

    Raises InputError for another word, and where true does not fit.
    """
    if resident not in CHOICES:
        raise InputError(f"train.resident={resident}: expected one of {', '.join(CHOICES)}")
    if resident == "false" or device.type != "cuda":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    if nbytes <= _SHARE * free:
        return device
    if resident == "true":
        raise InputError(
            f"train.resident=true: {nbytes / 2**20:.0f} MiB of training data, and {free / 2**20:.0f} MiB free on "
            f"{device}, of which {_SHARE:.0%} may hold data: set data.pool_mb or train.resident=auto"
        )
    return torch.device("cpu")
