"""What may differ between the machine that encodes and the one that decodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

# What torch's own loops, oneDNN and MKL may use: other kernels, other orders of summation. MKL ignores it on some
# processors. They are read when a process starts.
INSTRUCTIONS = {
    "all": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "sse": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}


@dataclass(frozen=True)
class Conditions:
    """`batch`: clips that are decoded at once; the encoder takes one. `instructions`: a key of INSTRUCTIONS."""

    device: str
    precision: str
    threads: int
    instructions: str
    batch: int = 1

    def __str__(self) -> str:
        parts = [self.device, f"{self.threads} threads", self.instructions]
        return ", ".join([*parts, f"batch {self.batch}"] if self.batch > 1 else [*parts, self.precision])


def all_conditions(
    devices: Sequence[str], precisions: Sequence[str], threads: Sequence[int], batches: Sequence[int]
) -> tuple[list[Conditions], list[Conditions]]:
    """Every way to encode and every way to decode; on a GPU instruction sets and threads decide nothing."""
    encoding, decoding = [], []
    for device in devices:
        places = product(threads, INSTRUCTIONS) if device == "cpu" else [(1, "all")]
        for count, instructions in places:
            encoding += [Conditions(device, precision, count, instructions) for precision in precisions]
            decoding += [Conditions(device, "fp32", count, instructions, batch) for batch in batches]
    return encoding, decoding
