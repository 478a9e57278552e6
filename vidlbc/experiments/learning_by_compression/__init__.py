"""Learning by compression (Xie et al., "What is considered complete for visual recognition?", arXiv 2105.13978).

evaluator.py    r(x, x') of Eq. 2 over pluggable proxies; its weights lean from patch statistics to semantics
recogniser.py   the network behind the semantic proxy, trained from the labels at hand, then frozen
losses.py       L_enc and L_corr of Eq. 3
objective.py    Eq. 3 with the rate that true coding needs
degradation.py  blur, noise, grey: as augmentation, or to recover from
ratio.py        CR and RQ of Eq. 1, in elements and in bytes; Table 1
two_step.py     hold CR and raise RQ, then hold RQ and raise CR, variant after variant
"""

from vidlbc.experiments.learning_by_compression.evaluator import Evaluator, PatchStatistics, Pixels, Proxy, Semantics
from vidlbc.experiments.learning_by_compression.ratio import compression_ratio, element_table, recovery_quality

__all__ = [
    "Evaluator",
    "PatchStatistics",
    "Pixels",
    "Proxy",
    "Semantics",
    "compression_ratio",
    "element_table",
    "recovery_quality",
]
