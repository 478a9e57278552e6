"""Codecs to compare with: what a user would pick instead. Each writes real files and reads them back.

x264 | x265 | svtav1, each also NAME-ld    PyAV's encoders, random access and low delay
jpeg                                       every frame on its own
compressai-ARCHITECTURE                    CompressAI's models, where the user has the zoo's weights
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.base import Anchor
from vidlbc.evaluate.codecs.compressai import PREFIX, CompressAIModel
from vidlbc.evaluate.codecs.ffmpeg import LOW_DELAY, NAMES, VideoCodec
from vidlbc.evaluate.codecs.jpeg import Jpeg

__all__ = ["Anchor", "CompressAIModel", "Jpeg", "VideoCodec", "build_anchors"]


def build_anchors(
    names: Sequence[str],
    presets: Mapping[str, str] | None = None,
    threads: int = 1,
    weights: Path | None = None,
    device: str = "cpu",
) -> tuple[dict[str, Anchor], dict[str, str]]:
    """Anchors by name, and {name: why} of CompressAI's models that are left out for want of `weights`, their folder.

    `presets`: {x264, x265, svtav1: preset}. Raises InputError for an unknown name.
    """
    found: dict[str, Anchor] = {}
    left_out: dict[str, str] = {}
    for name in names:
        plain = name.removesuffix(LOW_DELAY)
        if plain in NAMES:
            found[name] = VideoCodec(plain, name.endswith(LOW_DELAY), (presets or {}).get(plain), threads)
        elif name == Jpeg.name:
            found[name] = Jpeg()
        elif name.startswith(PREFIX):
            try:
                found[name] = CompressAIModel(name, weights, device)
            except InputError as error:
                if "needs the zoo's" not in str(error):
                    raise
                left_out[name] = str(error)
        else:
            known = [*NAMES, *(n + LOW_DELAY for n in NAMES), Jpeg.name, f"{PREFIX}hyperprior", f"{PREFIX}ssf2020"]
            raise InputError(f"codecs: unknown {name!r}, expected vidlbc or some of {', '.join(known)}")
    return found, left_out
