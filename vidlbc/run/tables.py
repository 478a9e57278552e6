"""Tables of plain text."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def format_table(rows: Sequence[Sequence[Any]], header: Sequence[str] | None = None, title: str | None = None) -> str:
    """A table of plain text: first column to the left, the others to the right; None prints as '-'."""
    width = max([len(r) for r in rows] + ([len(header)] if header else []), default=0)
    cells = [[_cell(v) for v in r] + [""] * (width - len(r)) for r in rows]
    head = [str(h) for h in header] + [""] * (width - len(header)) if header else None
    sizes = [max(len(r[i]) for r in cells + ([head] if head else [])) for i in range(width)]

    def line(row: Sequence[str]) -> str:
        first, *rest = (c.ljust(s) if i == 0 else c.rjust(s) for i, (c, s) in enumerate(zip(row, sizes, strict=True)))
        return "  ".join([first, *rest]).rstrip()

    rule = "-" * (sum(sizes) + 2 * max(0, width - 1))
    lines = [title] if title else []
    lines += [line(head), rule] if head else []
    return "\n".join(lines + [line(r) for r in cells])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, (float, np.floating)):
        size = abs(float(value))
        if size and (size < 0.01 or size >= 1e6):
            return f"{value:.2e}"
        return f"{value:.3f}" if size < 10 else f"{value:.1f}"
    return str(value)
