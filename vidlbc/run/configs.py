"""Where configs/ is: beside the package in a checkout, inside it where vidlbc is installed."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_MARK = "experiment/demo.yaml"  # of any folder called configs, ours has it


def configs_folder() -> Path:
    """The project's configs."""
    beside = _PACKAGE.parent / "configs"
    return beside if (beside / _MARK).is_file() else _PACKAGE / "configs"


def checkout() -> Path | None:
    """The folder that holds tools/, configs/ and the package; None where vidlbc is installed without them."""
    repo = _PACKAGE.parent
    return repo if (repo / "pyproject.toml").is_file() and (repo / "configs" / _MARK).is_file() else None
