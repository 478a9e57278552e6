"""Reconstruction that knows time: refines decoded frames from the ones before them, at no bits."""

from vidlbc.video_decoder.network import State, VideoDecoder
from vidlbc.video_decoder.refining import RefinedClip, Refiner

__all__ = ["RefinedClip", "Refiner", "State", "VideoDecoder"]
