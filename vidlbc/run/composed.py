"""A walk through a composed config: its dotted keys, and the choices that configs/ has for a group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def options_of(folder: Path, group: str) -> list[str]:
    place = folder / group.partition("@")[0]
    return sorted(file.stem for file in place.glob("*.yaml")) if place != folder and place.is_dir() else []


def parent_of(config: DictConfig, key: str) -> tuple[Any, str]:
    above, _, last = key.rpartition(".")
    return (OmegaConf.select(config, above) if above else config), last


def keys_of(config: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted key, sections included, in the order of the config."""
    found: list[str] = []
    for name in map(str, config):
        key = f"{prefix}{name}"
        found.append(key)
        child = config._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            found += keys_of(child, key + ".")
    return found


def has(config: DictConfig, key: str) -> bool:
    parent, last = parent_of(config, key)
    return isinstance(parent, DictConfig) and last in parent.keys()


def current(config: DictConfig, key: str) -> Any:
    parent, last = parent_of(config, key)
    if OmegaConf.is_missing(parent, last):
        return "???"
    # An interpolation that needs a value not given yet accepts anything, like null.
    return OmegaConf.select(config, key, throw_on_resolution_failure=False)
