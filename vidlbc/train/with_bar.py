"""The loop of both stages with a progress bar and one-line errors."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vidlbc.errors import VidlbcError
from vidlbc.run.progress import progress_bar
from vidlbc.train.loop import LoopSettings, Outcome, fit
from vidlbc.train.precision import training_precision
from vidlbc.train.step import Loss


def train(
    title: str,
    module: nn.Module,
    objective: Loss,
    batches: Callable[[int], Any],
    settings: LoopSettings,
    folder: Path,
    on_figures: Callable[[dict[str, float]], None] | None = None,
    silent: bool | None = None,
    validate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
) -> Outcome:
    """`vidlbc.train.loop.fit` shown as a bar; `folder` holds the checkpoint, so the same call resumes.

    `on_figures` gets every log line with its step; `silent` shows no bar, as on ranks other than 0. Raises VidlbcError
    where training diverges.
    """
    shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
    with progress_bar(desc=title, total=100, bar_format=shape, disable=silent) as meter:
        last = (0, time.monotonic())

        def on_log(step: int, progress: float, figures: dict[str, float]) -> None:
            nonlocal last
            now = time.monotonic()
            rate, last = (step - last[0]) / max(now - last[1], 1e-9) if last[0] else 0.0, (step, now)
            if progress > 0.001:  # before that, the time left is a wild guess
                meter.update(100 * progress - meter.n)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if name not in ("seconds", "lr"))
            meter.set_postfix_str(f"step {step}, {rate:.1f} steps/s, {shown}")
            if on_figures is not None:
                on_figures({"step": step, **figures})

        try:
            with training_precision(settings.tf32):
                outcome = fit(module, objective, batches, settings, folder, on_log, validate)
        except FloatingPointError as error:
            raise VidlbcError(f"{title}: training diverged: {error}; lower train.lr (now {settings.lr})") from None
        meter.update(100 - meter.n)
    return outcome
