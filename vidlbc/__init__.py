"""vidlbc: video learning-by-compression.

    videos -> image stage (frozen) -> symbols -> temporal prior + range coder -> bitstream -> shards
                                                                 bitstream -> frames | latents -> action classes

Names are resolved on first use, so that a video worker that imports `vidlbc.video` never loads torch.
"""

import importlib

__version__ = "0.2.0"

_PUBLIC = {
    "load": "vidlbc.codec.load",
    "Codec": "vidlbc.codec.codec",
    "EncodeReport": "vidlbc.codec.codec",
    "inspect": "vidlbc.codec.bitstream",
    "cut": "vidlbc.codec.bitstream",
    "BitstreamInfo": "vidlbc.codec.bitstream",
    "LatentShards": "vidlbc.shards",
    "VidlbcError": "vidlbc.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vidlbc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
