"""Image stages: frames to integer symbols and back. See `vidlbc.image_stage.base` for the contract."""

from vidlbc.image_stage.base import ImageStage
from vidlbc.image_stage.families import FAMILIES, build_image_stage

__all__ = ["FAMILIES", "ImageStage", "build_image_stage"]
