"""What a result was made with: versions, machine, command."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vidlbc import __version__

# Distributions that decide bits, pixels or speed, by the names people know them by.
_PACKAGES = {
    "numpy": "numpy",
    "constriction": "constriction",
    "compressai": "compressai",
    "PyAV": "av",
    "decord": "decord",
}


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device, threads, command; `commit` is None but for a working copy of this package's own repository."""
    return {
        "vidlbc": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: _version(package) for name, package in _PACKAGES.items()},
        "system": platform.platform(),
        "device": str(device),
        "device_name": _device_name(device),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["python", *sys.argv]),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of the repository that tracks this very file, marked where its files were changed since."""
    try:
        here = Path(__file__).parent
        subprocess.run(["git", "ls-files", "--error-unmatch", Path(__file__).name], cwd=here, **_QUIET)
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"], cwd=here, **_QUIET
        )
        return told.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


_QUIET: dict[str, Any] = {"check": True, "capture_output": True, "text": True, "timeout": 10}
