"""Every file in configs/head composes and builds the head that its name says, with every option of that head."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vidlbc.heads import HEAD_KINDS, build_head

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "head"


def test_there_is_a_config_for_every_kind() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.yaml")) == sorted([*HEAD_KINDS, "custom"])


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_config_builds(kind: str) -> None:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        options = OmegaConf.to_container(compose(kind))
    assert isinstance(options, dict) and options.pop("kind") == kind
    head = build_head(kind, [(4, 8)], 3, **{str(k): v for k, v in options.items()})
    known = {n: p.default for n, p in inspect.signature(type(head)).parameters.items()}
    assert {k: v for k, v in known.items() if k not in ("levels", "num_classes")} == options  # file and code agree
