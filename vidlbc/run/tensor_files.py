"""Tensors in one safetensors file, the rest in its JSON header: no pickle."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vidlbc.errors import InputError
from vidlbc.run.atomic_files import publish


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """A reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, temporary, metadata={"vidlbc": json.dumps(meta, sort_keys=True)})
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta of a file written by `save_tensors`.

    Raises InputError where the file is missing or is not a safetensors file.
    """
    if not path.is_file():
        raise InputError(f"weights file {path} does not exist")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            meta = json.loads((file.metadata() or {}).get("vidlbc", "{}"))
    except (SafetensorError, ValueError) as error:
        raise InputError(f"weights file {path} is damaged or not safetensors: {error}") from None
    return tensors, meta
