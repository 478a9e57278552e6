"""Options under which libx264 gives the same bytes for the same pictures."""

import torch


def repeatable_x264() -> dict[str, str]:
    """Options of an FFmpeg codec context, to be laid over the others: empty, or no AVX-512.

    The AVX-512 version of x264's `mbtree_propagate_list` (common/x86/mc-a2.asm, build 165) takes eight macroblocks at
    a time and, unlike the others, does not cut the last eight at the width of the picture. It so adds up motion
    vectors and costs that lie behind the arrays, which nobody wrote. One picture in thousands of a film is touched;
    of pictures of 64x48, the bytes differ between two calls in one process. Up to AVX2 x264 computes the same faster
    than without, and what it computes is what it computes on processors that have no AVX-512.
    """
    # Naming the level is safe only where the processor has it: x264 does not check.
    return {"x264-params": "asm=AVX2"} if torch.backends.cpu.get_cpu_capability() == "AVX512" else {}
