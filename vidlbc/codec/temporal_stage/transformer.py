"""Kind `transformer`: window attention from the frame being coded onto the frames before it.

    hidden state of frame t (what is known of it so far, 4x4 blocks)  --queries-->  12x12 windows of the past's map

After VCT (Mentzer et al., arXiv 2206.07307; windows of the past wider than those of the present), with three
differences: attention at every stride from coarse to fine, so that a match found at stride 32 spans 128 pixels; the
present frame's coarser levels are part of the query, so that motion shows before the fine level is coded; and one pass
a level in place of autoregression within windows. The last `context` frames are fused into one map first. Exact on the
grid (vidlbc.codec.prior.grid): softmax weights are (1 - d/16)^16 of the logit gap d, which needs only IEEE products.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.prior.grid import Block, Fixable, Linear, RMSNorm, snap
from vidlbc.codec.prior.topdown import Context, Level
from vidlbc.codec.temporal_stage.base import Features, Memory, State, TemporalStage
from vidlbc.errors import InputError

_BLOCK = 4
_MAX_MARGIN = 13
# Products of queries and keys (9 bits each, 32 channels) and of weights and values (8 bits each, 144 keys) are summed
# exactly in 24 bits: multiples of 2^-6, queries and keys to +-8, values to +-4.
_OPERAND_BITS, _LOGIT_LIMIT, _VALUE_LIMIT = 6, 8.0, 4.0
# Scale of the logits (about 32^-1/2), over 16: a power of two, so that queries stay exact.
_SIXTEENTH = 0.125 / 16
_BIAS_BITS = 2 * _OPERAND_BITS + 7


def attention_weights(sixteenths: Tensor) -> Tensor:
    """Unnormalised softmax-like weights over the last axis, in [0, 1], from logits / 16.

    Exact to sum: multiples of 2^-8 for up to 256 keys. In place where no gradient is wanted.
    """
    lowest = sixteenths.amax(-1, keepdim=True) - 1
    if sixteenths.requires_grad:
        return (sixteenths - lowest).clamp_min(0) ** 16
    weights = sixteenths.sub_(lowest).clamp_min_(0)
    for _ in range(4):
        weights.mul_(weights)
    return snap(weights, 16 - math.ceil(math.log2(weights.shape[-1])), 1.0)


class WindowReader(Fixable):
    """Adds to the hidden state what the past's map holds around each 4x4 block, and at the same place."""

    index: Tensor
    fixed_bias: Tensor | None

    def __init__(self, channels: int, head_channels: int = 32, margin: int = 4):
        super().__init__()
        self.heads, self.margin = channels // head_channels, margin
        if not self.heads or channels % self.heads:
            raise InputError(f"prior width {channels}: attention needs {head_channels} or more, in equal heads")
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
        self.register_buffer("fixed_bias", None, persistent=False)

    def prepare(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the past alone: keys and values of every window, (B * rows * columns, keys, 2C), and what the
        map holds at the same place, (B, H, W, C).
        """
        bottom, right, margin = -memory.shape[1] % _BLOCK, -memory.shape[2] % _BLOCK, self.margin
        normed = self.norm_memory(memory)
        key = snap(self.key(normed), _OPERAND_BITS, _LOGIT_LIMIT)
        value = snap(self.value(normed), _OPERAND_BITS, _VALUE_LIMIT)
        around = (0, 0, margin, margin + right, margin, margin + bottom)
        both = _windows(F.pad(torch.cat([key, value], -1), around), _BLOCK + 2 * margin)
        return both, self.same_place(memory)

    def forward(self, hidden: Tensor, windows: Tensor, same_place: Tensor) -> Tensor:
        batch, height, width, channels = hidden.shape
        bottom, right = -height % _BLOCK, -width % _BLOCK
        rows, columns = (height + bottom) // _BLOCK, (width + right) // _BLOCK
        query = snap(self.query(self.norm_hidden(hidden)), _OPERAND_BITS, _LOGIT_LIMIT) * _SIXTEENTH
        query = _windows(F.pad(query, (0, 0, 0, right, 0, bottom)), _BLOCK)
        key, value = windows.chunk(2, -1)
        mixed = []
        for q, k, v, bias in zip(*[x.chunk(self.heads, -1) for x in (query, key, value)], self._bias(), strict=True):
            weights = attention_weights(torch.baddbmm(bias, q, k.transpose(1, 2)))
            mixed.append(weights @ v / weights.sum(-1, keepdim=True))
        out = snap(torch.cat(mixed, -1)).reshape(batch, rows, columns, _BLOCK, _BLOCK, channels)
        out = out.permute(0, 1, 3, 2, 4, 5).reshape(batch, height + bottom, width + right, channels)
        return snap(hidden + self.out(out[:, :height, :width]) + same_place)

    def fix(self) -> None:
        self.fixed_bias = self._bias()

    def _bias(self) -> Tensor:
        """(heads, 16, keys), in sixteenths, on the grid of the products that it is summed with."""
        if self.fixed_bias is not None:
            return self.fixed_bias
        return snap(self.bias[:, self.index] * 0.0625, _BIAS_BITS, 1.0)


def _windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B * rows * columns, size * size, C), a window every 4 cells; copies whole rows."""
    windows = x.unfold(1, size, _BLOCK).unfold(2, size, _BLOCK).permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(-1, size * size, x.shape[-1])


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
        state: State = {}
        for stride in self.strides:
            null = snap(self.null[str(stride)].clone())[None, None, None]
            state[stride] = (null.expand(batch, height // stride, width // stride, -1),) * self.context
        return state

    def advance_at(self, stride: int, state: Sequence[Tensor], observed: Tensor) -> tuple[Tensor, ...]:
        """Newest first."""
        return (observed, *state[: self.context - 1])

    def memory_at(self, stride: int, state: Sequence[Tensor]) -> Memory:
        fuse = self.fuse[str(stride)]
        assert isinstance(fuse, nn.Sequential)
        memory: Memory = {}
        past = fuse[1](snap(fuse[0](torch.cat(list(state), -1))))
        for index in self.levels_at(stride):
            reader = self.readers[index]
            memory[index] = reader.prepare(past) if isinstance(reader, WindowReader) else (reader(past),)
        return memory

    def tensors_read(self, index: int) -> int:
        return 2 if isinstance(self.readers[index], WindowReader) else 1

    def reader(self, memory: Memory) -> Context:
        def read(index: int, hidden: Tensor) -> Tensor:
            reader, prepared = self.readers[index], memory[index]
            return reader(hidden, *prepared) if isinstance(reader, WindowReader) else snap(hidden + prepared[0])

        return read
