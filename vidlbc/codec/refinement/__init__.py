"""Reconstruction that knows time: refines decoded frames from the ones before them, at no bits."""

from vidlbc.codec.refinement.network import State, VideoDecoder
from vidlbc.codec.refinement.refining import RefinedClip, Refiner

__all__ = ["RefinedClip", "Refiner", "State", "VideoDecoder"]
