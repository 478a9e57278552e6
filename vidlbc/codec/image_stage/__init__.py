"""Image stages: frames to integer symbols and back. See `vidlbc.codec.image_stage.base` for the contract."""

from vidlbc.codec.image_stage.base import ImageStage
from vidlbc.codec.image_stage.families import FAMILIES, build_image_stage

__all__ = ["FAMILIES", "ImageStage", "build_image_stage"]
