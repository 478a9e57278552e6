"""Models at hand: those that are shipped, or one model folder; their kinds, sizes and fingerprints.

    vidlbc models                    what is shipped
    vidlbc models model=FOLDER       one folder of yours

A bitstream decodes with the weights of its fingerprint alone.
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vidlbc.codec import models
from vidlbc.codec.load import load
from vidlbc.run.options import option
from vidlbc.run.tables import format_table


@dataclass
class Options:
    """See `--help`."""

    model: str | None = option(None, "a model folder; null: the shipped ones")


def main(config: DictConfig) -> None:
    folders = [models.find_model(str(config.model))] if config.model else models.shipped()
    rows = []
    for folder in folders:
        own = models.default_kind(folder)
        for kind in models.kinds_of(folder):
            codec = load(folder, "cpu", kind)
            weights = sum(p.numel() for module in (codec.stage, codec.temporal) for p in module.parameters())
            rows.append(
                [
                    folder.name,
                    kind + (" (its own)" if kind == own else ""),
                    codec.image.config["family"],
                    f"{weights / 1e6:.2f} M",
                    f"{_bytes(folder, kind) / 1e6:.2f} MB",
                    codec.fingerprint,
                ]
            )
    print(format_table(rows, ["model", "kind", "family", "weights", "files", "fingerprint"]))


def _bytes(folder: Path, kind: str) -> int:
    """Of the files that the kind needs."""
    parts = [folder / "image_stage", folder / "temporal" / kind]
    return sum(file.stat().st_size for part in parts if part.is_dir() for file in part.rglob("*.safetensors"))
