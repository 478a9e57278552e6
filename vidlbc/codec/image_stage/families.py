"""The image-stage families by name, or as `package.module:Class`. One more of ours is a class and a line here."""

from typing import Any

from vidlbc.codec.image_stage.base import ImageStage
from vidlbc.errors import InputError
from vidlbc.run.plugins import named_class

FAMILIES: dict[str, str] = {
    "lbc": "vidlbc.codec.image_stage.lbc:LBC",
    "hyperprior": "vidlbc.codec.image_stage.compressai_families:Hyperprior",
    "elic": "vidlbc.codec.image_stage.compressai_families:ELIC",
    "scalable": "vidlbc.experiments.scalable.image_stage:Scalable",
    "codevilla": "vidlbc.experiments.machine_perception.image_stage:Codevilla",
}


def family_class(family: str) -> type[ImageStage]:
    """The class of a family. Raises InputError for an unknown one."""
    return named_class("image stage family", family, FAMILIES, ImageStage)


def build_image_stage(family: str, **options: Any) -> ImageStage:
    """Build a family from its options. Raises InputError for an unknown family or option, or sizes that do not fit."""
    built = family_class(family)
    try:
        return built(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"image stage family {family!r}: {error}") from None
