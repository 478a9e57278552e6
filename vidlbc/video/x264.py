"""Options under which libx264 gives the same bytes for the same pictures."""


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
