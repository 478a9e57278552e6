"""Symbols of one clip to packets and back: exact priors, range coder, checksums. No pixels here.

    symbols -> temporal stage + intra prior (fixed-point grid) -> range coder -> packets of up to 16 frames
    packets -> range decoder + the same priors, frame by frame, level by level -> symbols

    priors.py    the networks, as functions of tensors
    encoding.py  knows all symbols, so the priors run on many frames side by side
    rdo.py       chooses symbols under the priors that will code them
    decoding.py  must go frame by frame, coarse to fine

Both are exact arithmetic (vidlbc.codec.prior.grid), hence the same distributions.
"""

from vidlbc.codec.coding.decoding import decode
from vidlbc.codec.coding.encoding import PACKET_FRAMES, CodedFrame, EncodeReport, PacketWriter
from vidlbc.codec.coding.packet_decoder import OnLevel
from vidlbc.codec.coding.priors import Priors, dequantised
from vidlbc.codec.coding.rdo import SKIP, RateDistortionQuantiser

__all__ = [
    "PACKET_FRAMES",
    "SKIP",
    "CodedFrame",
    "EncodeReport",
    "OnLevel",
    "PacketWriter",
    "Priors",
    "RateDistortionQuantiser",
    "decode",
    "dequantised",
]
