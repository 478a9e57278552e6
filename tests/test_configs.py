"""Every file in configs/ composes; every image stage in it builds; experiments set only what their tool knows."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.commands import spoken
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.blocks import BLOCKS
from vidlbc.codec.image_stage.families import FAMILIES, family_class
from vidlbc.commands import command_module
from vidlbc.run.compose import load_with_choices
from vidlbc.run.composed import keys_of, options_of

REPO = Path(__file__).resolve().parents[1]
FOLDER = REPO / "configs"
TOOLS = sorted(path.stem for path in (REPO / "tools").glob("*.py") if path.stem != "setup_env")
EXPERIMENTS = options_of(FOLDER, "experiment")


def choices_of(tool, arguments):
    return load_with_choices(command_module(tool).Options, tool, arguments)


@functools.cache
def groups_of(tool: str) -> frozenset[str]:
    return frozenset(choices_of(tool, [])[1])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_composes(path):
    place = path.relative_to(FOLDER).with_suffix("")
    group, choice = "/".join(place.parts[:-1]), place.name
    known = (
        [tool_of(choice)]
        if group == "experiment"
        else [name for name in TOOLS if group in {place.partition("@")[0] for place in groups_of(name)}]
    )
    if group == "offline":  # plans are read by name
        assert isinstance(OmegaConf.load(path), type(OmegaConf.create({})))
        return
    assert known, "a choice that no command has"
    for name in known:
        (typed,) = {place for place in groups_of(name) if place.partition("@")[0] == group} or {group}
        config, choices = choices_of(name, [f"{typed}={choice}"])
        assert choices[typed] == choice and len(config)


def tool_of(experiment: str) -> str:
    """The command that its comment names."""
    text = (FOLDER / "experiment" / f"{experiment}.yaml").read_text()
    named = re.search(r"vidlbc ((?:experiment |qa )?[a-z][\w-]*)", text)
    assert named is not None, f"configs/experiment/{experiment}.yaml names no command"
    return spoken(named[1].split())[0]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_changes_known_options_only(experiment):
    tool = tool_of(experiment)
    plain, _ = choices_of(tool, [])
    changed, _ = choices_of(tool, [f"experiment={experiment}"])
    added = set(keys_of(changed)) - set(keys_of(plain))
    # What an experiment asks for itself (a folder that its paths start from) is mandatory, and told by --help.
    assert [key for key in sorted(added) if not OmegaConf.is_missing(*_parent(changed, key))] == []


def _parent(config, key):
    above, _, last = key.rpartition(".")
    return (OmegaConf.select(config, above) if above else config), last


# ---- image stages


def stage_config(*overrides: str) -> dict:
    config, _ = choices_of("pretrain_image", list(overrides))
    return dict(OmegaConf.to_container(config.image_stage))


# Choices beside those that bear a family's or a block's name.
SIZES = ("large2", "custom")
MIXTURES = ("conv_gated", "gdn_gated")


def test_there_is_a_config_for_every_family_and_block():
    assert options_of(FOLDER, "image_stage") == sorted([*FAMILIES, *SIZES])
    assert options_of(FOLDER, "image_stage/block") == sorted([*BLOCKS, *MIXTURES])


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_config_builds_and_says_what_the_code_says(family):
    options = stage_config(f"image_stage={family}")
    assert options.pop("family") == family
    stage = build_image_stage(family, **options)
    assert stage.family == family and stage.synthesis_modules
    assert all(hasattr(stage, name) for name in stage.synthesis_modules)
    defaults = {name: p.default for name, p in inspect.signature(family_class(family)).parameters.items()}
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()} == options


@pytest.mark.slow
@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_a_block_config_builds(block):
    options = stage_config(f"image_stage/block={block}")
    assert options["block"] == block
    stage = build_image_stage(**options)
    kinds = {type(layer) for layer in stage.encode[1]}
    assert kinds == {BLOCKS[block]}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_mixture_names_a_block_for_each_stride(mixture):
    options = stage_config(f"image_stage/block={mixture}")
    stage = build_image_stage(**options)
    kinds = [{type(layer) for layer in blocks} for blocks in stage.encode]
    assert kinds == [{BLOCKS[name]} for name in options["block"]]


def test_the_second_large_is_what_its_experiment_trains():
    config, choices = choices_of("pretrain_image", ["experiment=large2_image", "data.folder=/data"])
    assert choices["image_stage"] == "large2"
    stage = build_image_stage(**OmegaConf.to_container(config.image_stage))
    assert sum(p.numel() for p in stage.parameters()) == 9_785_940
    train = OmegaConf.to_container(config.data.train, resolve=True)
    assert "/data/train_video" in train and not any("jhmdb" in str(source) for source in train)


def test_the_default_experiment_takes_its_folder_from_the_command_line():
    arguments = ["experiment=default_image", "data.folder=/pictures", "out=model"]
    config, _ = choices_of("pretrain_image", arguments)
    train = OmegaConf.to_container(config.data.train, resolve=True)
    assert train[0] == "/pictures/images/imagenet"
    assert train[3] == {"path": "/pictures/actions/labels.csv", "every": 8}
    assert (config.train.minutes, config.train.ema, config.train.lr) == (46.0, 0.9995, 1.5e-3)
