"""Kind `transformer`: window attention from the frame being coded onto the frames before it.

    hidden state of frame t (what is known of it so far, 4x4 blocks)  --queries-->  12x12 windows of the past's map

After VCT (Mentzer et al., arXiv 2206.07307; windows of the past wider than those of the present), with three
differences: attention at every stride from coarse to fine, so that a match found at stride 32 spans 128 pixels; the
present frame's coarser levels are part of the query, so that motion shows before the fine level is coded; and one pass
a level in place of autoregression within windows. The last `context` frames are fused into one map first. Exact on the
grid (vidlbc.prior.grid): softmax weights are (1 - d/16)^16 of the logit gap d, which needs only IEEE products.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.errors import InputError
from vidlbc.prior.grid import Block, Linear, RMSNorm, snap
from vidlbc.prior.topdown import Context, Level
from vidlbc.temporal_stage.base import Features, Memory, State, TemporalStage

_BLOCK = 4
_MAX_MARGIN = 13
_WEIGHT_MAGIC = 1.5 * 2.0 ** (52 - 20)


def attention_weights(logits: Tensor) -> Tensor:
    """Unnormalised softmax-like weights over the last axis, in [0, 1], exact to sum in float64 (multiples of 2^-20)."""
    weights = ((logits - logits.amax(-1, keepdim=True)) * 0.0625).add_(1).clamp_min(0)
    if weights.dtype != torch.float64:
        return weights**16
    for _ in range(4):
        weights.mul_(weights)
    return weights.add_(_WEIGHT_MAGIC).sub_(_WEIGHT_MAGIC)


class WindowReader(nn.Module):
    """Adds to the hidden state what the past's map holds around each 4x4 block, and at the same place."""

    index: Tensor

    def __init__(self, channels: int, head_channels: int = 32, margin: int = 4):
        super().__init__()
        self.heads, self.margin = channels // head_channels, margin
        if not self.heads or channels % self.heads:
            raise InputError(f"prior width {channels}: attention needs {head_channels} or more, in equal heads")
        # A window's sum of weights (to 2^20) times values (to 2^23) must stay under 2^53 to be exact.
        if not 0 <= margin <= _MAX_MARGIN:
            raise InputError(f"margin={margin}: expected 0 to {_MAX_MARGIN}")
        self.norm_hidden, self.norm_memory = RMSNorm(channels), RMSNorm(channels)
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels, bias=False)
        self.value = Linear(channels, channels, bias=False)
        self.out = Linear(channels, channels)
        self.same_place = Linear(channels, channels)
        for layer in (self.out, self.same_place):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        reach = _BLOCK + margin - 1
        self.bias = nn.Parameter(torch.zeros(self.heads, (2 * reach + 1) ** 2))
        query, key = torch.arange(_BLOCK), torch.arange(_BLOCK + 2 * margin) - margin
        offset = key[None] - query[:, None] + reach  # (4, 12)
        index = offset[:, None, :, None] * (2 * reach + 1) + offset[None, :, None, :]  # (4, 4, 12, 12)
        self.register_buffer("index", index.reshape(_BLOCK**2, -1), persistent=False)

    def forward(self, hidden: Tensor, memory: Tensor) -> Tensor:
        batch, height, width, channels = hidden.shape
        bottom, right, margin = -height % _BLOCK, -width % _BLOCK, self.margin
        rows, columns = (height + bottom) // _BLOCK, (width + right) // _BLOCK
        head_channels = channels // self.heads

        def windows(x: Tensor, size: int) -> Tensor:
            """(B, H, W, C) -> (B * rows * columns, size * size, C), a window every 4 cells; copies whole rows."""
            x = x.unfold(1, size, _BLOCK).unfold(2, size, _BLOCK).permute(0, 1, 2, 4, 5, 3)
            return x.reshape(batch * rows * columns, size * size, channels)

        normed = self.norm_memory(memory)
        around = (0, 0, margin, margin + right, margin, margin + bottom)
        query = windows(F.pad(self.query(self.norm_hidden(hidden)), (0, 0, 0, right, 0, bottom)), _BLOCK)
        key = windows(F.pad(self.key(normed), around), _BLOCK + 2 * margin)
        value = windows(F.pad(self.value(normed), around), _BLOCK + 2 * margin)
        bias = self.bias[:, self.index]
        mixed = []
        for head in range(self.heads):
            part = slice(head * head_channels, (head + 1) * head_channels)
            logits = query[..., part] @ key[..., part].transpose(1, 2)
            weights = attention_weights(snap(logits * 0.125 + bias[head]))
            mixed.append(weights @ value[..., part] / weights.sum(-1, keepdim=True))
        out = snap(torch.cat(mixed, -1)).reshape(batch, rows, columns, _BLOCK, _BLOCK, channels)
        out = out.permute(0, 1, 3, 2, 4, 5).reshape(batch, height + bottom, width + right, channels)
        return snap(hidden + self.out(out[:, :height, :width]) + self.same_place(memory))


class _Reader(Context):
    def __init__(self, stage: "TransformerPrior", memory: Memory):
        self.stage, self.memory = stage, memory

    def __call__(self, index: int, hidden: Tensor) -> Tensor:
        level = self.stage.levels[index]
        read = self.stage.readers[index]
        memory = self.memory[level.work_stride]
        return read(hidden, memory) if isinstance(read, WindowReader) else snap(hidden + read(memory))


class TransformerPrior(TemporalStage):
    """The state is the feature maps of the last `context` frames; before the first frame, learned null vectors."""

    kind = "transformer"

    def __init__(
        self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2, context: int = 2, margin: int = 4
    ):
        super().__init__(levels, widths, blocks)
        self.context = context
        self.features = Features(self.trunk)
        strides = self.trunk.work_strides
        self.null = nn.ParameterDict({str(s): nn.Parameter(torch.zeros(self.trunk.widths[s])) for s in strides})
        self.fuse = nn.ModuleDict()
        for stride in strides:
            width = self.trunk.widths[stride]
            self.fuse[str(stride)] = nn.Sequential(Linear(width * context, width), Block(width, expand=2, kernel=5))
        readers: list[nn.Module] = []
        for level in self.levels:
            width = self.trunk.widths[level.work_stride]
            if level.fold == 1:
                readers.append(WindowReader(width, margin=margin))
            else:
                reader = Linear(width, width)
                nn.init.zeros_(reader.weight)
                nn.init.zeros_(reader.bias)
                readers.append(reader)
        self.readers = nn.ModuleList(readers)

    def start(self, batch: int, height: int, width: int) -> State:
        maps = [
            snap(self.null[str(s)].clone())[None, None, None].expand(batch, height // s, width // s, -1)
            for s in self.trunk.work_strides
        ]
        return maps * self.context

    def memory(self, state: State) -> Memory:
        """Newest first in the state: (context x working strides)."""
        strides = self.trunk.work_strides
        return {s: self.fuse[str(s)](torch.cat(state[i :: len(strides)], -1)) for i, s in enumerate(strides)}

    def observe(self, latents: Sequence[Tensor]) -> Memory:
        return self.features(latents)

    def advance(self, state: State, maps: Memory) -> State:
        newest = [maps[s] for s in self.trunk.work_strides]
        return [*newest, *state[: len(newest) * (self.context - 1)]]

    def reader(self, memory: Memory) -> Context:
        return _Reader(self, memory)
