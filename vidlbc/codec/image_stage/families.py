"""The image-stage families by name. A new family is one class and one line here."""

import importlib
from typing import Any

from vidlbc.codec.image_stage.base import ImageStage
from vidlbc.errors import InputError

FAMILIES: dict[str, tuple[str, str]] = {
    "lbc": ("vidlbc.codec.image_stage.lbc", "LBC"),
    "hyperprior": ("vidlbc.codec.image_stage.compressai_families", "Hyperprior"),
    "elic": ("vidlbc.codec.image_stage.compressai_families", "ELIC"),
    "scalable": ("vidlbc.experiments.scalable.image_stage", "Scalable"),
    "codevilla": ("vidlbc.experiments.machine_perception.image_stage", "Codevilla"),
}


def family_class(family: str) -> type[ImageStage]:
    """The class of a family. Raises InputError for an unknown one."""
    if family not in FAMILIES:
        raise InputError(f"unknown image stage family {family!r}: expected one of {', '.join(FAMILIES)}")
    module, name = FAMILIES[family]
    return getattr(importlib.import_module(module), name)


def build_image_stage(family: str, **options: Any) -> ImageStage:
    """Build a family from its options. Raises InputError for an unknown family or option, or sizes that do not fit."""
    try:
        return family_class(family)(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"image stage family {family!r}: {error}") from None
