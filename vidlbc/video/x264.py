"""Streams of libx264 that are the same for the same pictures, and hold no more than decoders need."""

import re

_SEI = re.compile(rb"\x00?\x00\x00\x01\x06.*?(?=\x00?\x00\x00\x01|\Z)", re.DOTALL)  # Annex B, unit type 6


def repeatable_x264() -> dict[str, str]:
    """Options of an FFmpeg codec context, to be laid over the others: empty, or no AVX-512.

    The AVX-512 version of x264's `mbtree_propagate_list` (common/x86/mc-a2.asm, builds 164 and 165) takes eight
    macroblocks at a time and, unlike all others, does not leave out those behind the end of a row. It so adds up motion
    vectors and costs of the next row and, behind the last, of memory that nobody wrote: a clip of 64x48 had 59
    different streams in 60 calls, of sizes up to 9% apart. Up to AVX2 it gives what it gives on other processors.
    """
    import torch  # not by every decoder process, which imports this package

    # Naming the level is safe only where the processor has it: x264 does not check.
    return {"x264-params": "asm=AVX2"} if torch.backends.cpu.get_cpu_capability() == "AVX512" else {}


def without_messages(stream: bytes) -> bytes:
    """A raw H.264 stream without messages to whoever looks inside: libx264 names its settings in some 700 bytes, which
    is much of a short clip at a low rate, and not asked of other codecs."""
    return _SEI.sub(b"", stream)
