"""The LSTM head: every frame's grid of tokens to one vector, then an LSTM over the frames.

Cells share one projection before they are joined (C -> `cell` channels each): a direct map from all cells of a frame
would hold most of the head's parameters and fits the training persons' backgrounds first.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from vidlbc.heads.base import Head


class LSTMHead(Head):
    """Frame vectors, LSTM, mean and last state, linear. Reads any T >= 1."""

    def __init__(
        self,
        levels: Sequence[tuple[int, int]],
        num_classes: int,
        grid: int = 4,
        width: int = 64,
        cell: int = 16,
        layers: int = 1,
        dropout: float = 0.1,
        bidirectional: bool = True,
    ) -> None:
        super().__init__(levels, num_classes, grid)
        self.input_dropout = nn.Dropout(dropout)
        self.cell = nn.Linear(self.stem.channels, cell)
        self.frame = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(cell * grid * grid, width), nn.Tanh())
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, bidirectional=bidirectional)
        states = width * (2 if bidirectional else 1)
        self.norm = nn.LayerNorm(2 * states)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * states, num_classes))

    def logits(self, tokens_BTCGG: Tensor) -> Tensor:
        x = self.cell(self.input_dropout(rearrange(tokens_BTCGG, "b t c y x -> b t y x c")))  # cells last
        states, (last, _) = self.lstm(self.frame(x.flatten(2)))
        ends = last[-(2 if self.lstm.bidirectional else 1) :].transpose(0, 1).flatten(1)  # where each direction stops
        return self.classifier(self.norm(torch.cat([states.mean(dim=1), ends], dim=1)))
