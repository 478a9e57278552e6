"""What the training of an image stage starts from, and which part of it is trained.

    family and options ------------> a fresh stage, set to a transform of the pictures (lbc, codevilla, scalable)
    init=MODEL --------------------> an existing model's stage
    init=MODEL grow=true ----------> a stage of the given family and options, with the model's weights where they fit
    checkpoint=FILE ---------------> a family whose transforms come from a CompressAI checkpoint; its prior is fresh

The family then sets what it can before the first step; `train_only` freezes the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidlbc.codec import models
from vidlbc.codec.image_stage import ImageStage, build_image_stage
from vidlbc.codec.image_stage.families import family_class
from vidlbc.errors import InputError

PARTS = ("all", "synthesis", "prior")


@dataclass(frozen=True)
class Start:
    """A stage to train and the config that rebuilds it.

    `fresh`: nothing in it was trained before. `model`: the folder and image model it comes from, if any.
    """

    stage: ImageStage
    config: dict[str, Any]
    fresh: bool = False
    model: tuple[Path, models.ImageModel] | None = None


def start_from(
    family: str,
    options: dict[str, Any],
    init: str | None,
    checkpoint: str | None,
    seed: int,
    grow: bool = False,
) -> Start:
    """Build the stage. Raises InputError where the options, the model or the checkpoint are no such thing."""
    torch.manual_seed(seed)
    if init and checkpoint:
        raise InputError("init= and checkpoint= are both given: a stage starts from one of them")
    if grow and not init:
        raise InputError("grow=true adds blocks to an existing stage: give that one as init=MODEL")
    if init:
        folder = models.find_model(init)
        image = models.load_image_stage(folder / "image_stage")
        if grow:
            return Start(_grown(image.stage, family, options), {"family": family, "options": options})
        config = {"family": image.config["family"], "options": image.config.get("options", {})}
        return Start(image.stage, config, model=(folder, image))
    if checkpoint:
        cls = family_class(family)
        load: Callable[..., tuple[ImageStage, dict[str, Any]]] | None = getattr(cls, "from_checkpoint", None)
        if load is None:
            raise InputError(
                f"checkpoint={checkpoint}: family {family} has none; choose image_stage=hyperprior or elic"
            )
        stage, options = load(checkpoint, **options)
        return Start(stage, {"family": family, "options": options})
    return Start(build_image_stage(family, **options), {"family": family, "options": options}, fresh=True)


def _grown(stage: ImageStage, family: str, options: dict[str, Any]) -> ImageStage:
    """A new stage with the weights of `stage`; what `stage` has not is as built, which for blocks is the identity.

    Raises InputError where a tensor of `stage` finds no place: growing adds, it replaces nothing.
    """
    larger = build_image_stage(family, **options)
    own, wanted = stage.state_dict(), larger.state_dict()
    for name, tensor in own.items():
        if name not in wanted or wanted[name].shape != tensor.shape:
            found = "is missing" if name not in wanted else f"has shape {tuple(wanted[name].shape)}"
            raise InputError(
                f"grow=true: in image_stage={family} tensor {name!r} {found}; init= has {tuple(tensor.shape)}"
            )
    larger.load_state_dict({**wanted, **own})
    return larger


def train_only(stage: ImageStage, part: str) -> None:
    """Freeze all but one part: `synthesis` leaves symbols and bits as they are, `prior` leaves symbols and pictures."""
    if part not in PARTS:
        raise InputError(f"train_only={part}: expected one of {', '.join(PARTS)}")
    names = {"all": ("",), "synthesis": tuple(f"{n}." for n in stage.synthesis_modules), "prior": ("prior.",)}[part]
    for name, parameter in stage.named_parameters():
        parameter.requires_grad_(name.startswith(names))
