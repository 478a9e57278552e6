"""Heads: classifiers that read latents, never pixels.

    latents: one (B, T, C_l, H_l, W_l) a level          any subset of levels, any size, any T >= 1
        |  TokenGrid      no parameters: three statistics of every channel in every cell of a small grid
        v
    tokens (B, T, 3 * sum C_l, g, g)                     what a probe caches: computed once a view
        |  normalise      shift and scale from the training split
        v
    linear | attentive | lstm  -->  logits (B, classes)

`Head.forward` takes latents; `Head.classify` takes cached tokens; both give the same logits.
"""

from vidlbc.heads.attentive import AttentiveHead
from vidlbc.heads.base import Head
from vidlbc.heads.build import HEAD_KINDS, build_head
from vidlbc.heads.linear import LinearHead
from vidlbc.heads.lstm import LSTMHead
from vidlbc.heads.tokens import TokenGrid

__all__ = ["HEAD_KINDS", "AttentiveHead", "Head", "LSTMHead", "LinearHead", "TokenGrid", "build_head"]
