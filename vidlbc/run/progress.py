"""Progress of long steps: a live bar on a terminal, a line now and then in a log.

A bar redraws itself ten times a second with a carriage return; in a log file of a cluster job that is one endless line.
There, the same text (rate and time left included) comes as a line of its own every half minute, and a step that is over
sooner leaves nothing.
"""

import sys
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 30.0


class _Lines:
    """Takes a bar's redraws and writes each as a line."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """`tqdm(*args, **options)` on stderr, fit for where stderr goes."""
    if not sys.stderr.isatty():
        timing = {"mininterval": LOG_SECONDS, "maxinterval": 2 * LOG_SECONDS, "delay": LOG_SECONDS}
        options = {**timing, "file": _Lines(), "ascii": True, "ncols": 100, **options}
    return tqdm(*args, **options)
