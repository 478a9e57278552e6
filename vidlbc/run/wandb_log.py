"""Weights & Biases, where a run asks for it: offline unless WANDB_MODE says otherwise; nothing needs it."""

import os
from pathlib import Path
from typing import Any

from vidlbc.run import distributed


def start_wandb(wanted: bool, folder: Path) -> Any:
    """A run with `log(dict)` and `finish()`; None where it is not wanted, and on ranks other than 0."""
    if not wanted or distributed.rank() > 0:
        return None
    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(project="vidlbc", dir=folder)
