"""Encode and decode under ever other conditions and count symbols: none may differ.

Devices, threads, instruction sets, precisions of the analysis and batch sizes are drawn at random; every encoder and
every decoder is a process of its own. Exit status 1 where a symbol differs; its bitstream is then kept.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig

from vidlbc.cli import run
from vidlbc.errors import VidlbcError
from vidlbc.evaluation.report import format_table
from vidlbc.models import find_model, kinds_of
from vidlbc.progress import progress_bar
from vidlbc.soak import SoakSettings, all_conditions, run_soak


def main(config: DictConfig) -> None:
    devices = list(config.devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]))
    encoding, decoding = all_conditions(devices, list(config.precisions), list(config.threads), list(config.batches))
    kinds = tuple(config.temporal or kinds_of(find_model(config.model)))
    settings = SoakSettings(
        Path(config.data), Path(config.out), config.model, kinds, int(config.symbols), encoding, decoding,
        config.frames, config.length, config.seed,
    )  # fmt: skip
    with progress_bar(desc="soak", unit="symbol", unit_scale=True, total=settings.symbols) as meter:
        tallies = run_soak(settings, meter.update)
    rows = [[name, t.clips, f"{t.symbols:,}", t.mismatches] for name, t in sorted(tallies.items())]
    print(format_table(rows, ["encoder -> decoder", "clips", "symbols", "mismatches"]))
    symbols, wrong = (sum(getattr(t, name) for t in tallies.values()) for name in ("symbols", "mismatches"))
    print(f"\n{symbols:,} symbols of {', '.join(kinds)} under {len(tallies)} pairs of conditions: {wrong} mismatches")
    if wrong:
        raise VidlbcError(f"{wrong} symbols differ: the bitstreams are in {settings.out / 'mismatches'}")


if __name__ == "__main__":
    run(main, "soak")
