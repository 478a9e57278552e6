"""Symbols from packets: frame by frame, level by level, from coarse to fine."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from vidlbc.bitstream import Header, Reader, unpack_modes
from vidlbc.coding.encoding import crc_bytes
from vidlbc.coding.priors import Priors, Quantised
from vidlbc.entropy import coder
from vidlbc.errors import BitstreamError, InputError
from vidlbc.prior.grid import require_exact_products
from vidlbc.prior.topdown import Gains
from vidlbc.temporal_stage import Memory, State


@torch.inference_mode()
def decode(
    priors: Priors, readers: Sequence[Reader], on_frame: Callable[[list[Tensor]], None] | None = None
) -> Iterator[list[Tensor]]:
    """Symbols of one packet after another, int32 (B * n, H_l, W_l, C_l), frame index fastest.

    `on_frame` is called with the symbols of each frame, (B, H_l, W_l, C_l), as soon as they are there.
    Raises BitstreamError where checksums fail, InputError where the clips do not go together.
    """
    require_exact_products()
    first = readers[0].header
    if len({(r.header.height, r.header.width, r.header.context) for r in readers}) > 1:
        raise InputError("clips decoded as one batch must have the same size and context flag")
    qp = torch.tensor([r.header.qp for r in readers], device=priors.pool.device)
    gains = priors.image.gains(qp)
    past = _Past(priors, priors.start(len(readers), first))
    for maybe in zip_longest(*[r.packets() for r in readers]):
        packets = [p for p in maybe if p is not None]
        if len(packets) < len(readers) or len({p.frames for p in packets}) > 1:
            raise InputError("clips decoded as one batch must have the same number of frames")
        decoders = [coder.Decoder(p.payload) for p in packets]
        masks = [unpack_modes(p.modes, p.frames, len(first.levels)) for p in packets]
        crcs = [0] * len(packets)
        frames: list[list[Tensor]] = []
        for t in range(packets[0].frames):
            intra = [mask[t] for mask in masks]
            symbols = _decode_frame(priors, decoders, intra, qp, gains, past, first)
            for b, packet in enumerate(packets):
                crcs[b] = zlib.crc32(b"".join(crc_bytes(q[b]) for q in reversed(symbols)), crcs[b])
                if crcs[b] & 0xFF != packet.checks[t]:
                    raise BitstreamError(
                        f"decoded symbols of frame {readers[b].frames - packet.frames + t} fail their checksum: "
                        "the bitstream was altered, or the weights differ from those that wrote it"
                    )
            frames.append(symbols)
            if on_frame is not None:
                on_frame(symbols)
            if first.context:
                past.update(symbols, gains)
        for b, packet in enumerate(packets):
            if crcs[b] != packet.symbol_crc:
                raise BitstreamError(f"decoded symbols fail their checksum before frame {readers[b].frames}")
        yield [torch.stack(level, 1).flatten(0, 1) for level in zip(*frames, strict=True)]


class _Past:
    """The state of every working stride, and what the next frame may read of it.

    The finest stride takes longest and is read last: it is made on a thread of its own, while the next frame's coarse
    levels are decoded.
    """

    def __init__(self, priors: Priors, state: State):
        self._priors = priors
        self._state: dict[int, tuple[Tensor, ...]] = dict(state)
        self._memory: Memory = {}
        self._coming: Future[tuple[Tensor, tuple[Tensor, ...], Memory]] | None = None

    def read(self, index: int) -> tuple[Tensor, ...]:
        """The memory of level `index`."""
        stride = self._priors.levels[index].work_stride
        if stride not in self._state:
            return ()
        if stride == self._priors.strides[0]:
            self._finish()
        if index not in self._memory:
            self._memory |= self._priors.memory_at(stride, self._state[stride])
        return self._memory[index]

    def update(self, symbols: Sequence[Tensor], gains: Sequence[Gains]) -> None:
        """One more frame was decoded."""
        self._finish()
        coarser: Tensor | None = None
        for stride in reversed(self._priors.strides):
            work = partial(self._priors.update_at, stride, self._state[stride], symbols, gains, coarser)
            if stride == self._priors.strides[0]:
                self._coming = self._priors.pool.beside(work)
            else:
                coarser, self._state[stride], memory = work()
                self._memory |= memory

    def _finish(self) -> None:
        if self._coming is not None:
            _, self._state[self._priors.strides[0]], memory = self._coming.result()
            self._memory |= memory
            self._coming = None


@dataclass
class _Path:
    """One prior on its way from the coarsest level to the finest."""

    by_intra: bool
    hidden: Tensor
    finest: int  # level that it is needed for


def _decode_frame(
    priors: Priors,
    decoders: Sequence[coder.Decoder],
    intra: Sequence[int],
    qp: Tensor,
    gains: Sequence[Gains],
    past: _Past,
    header: Header,
) -> list[Tensor]:
    """Symbols of the next frame of every clip, int32 (B, H_l, W_l, C_l).

    `intra`: for each clip the mask of the levels that the intra prior codes. Where there are such and others, both
    priors run, each down to the finest level that needs it.
    """
    count = len(priors.levels)
    paths = []
    for by_intra in (False, True):
        used = [i for i in range(count) if any(bool(mask >> i & 1) == by_intra for mask in intra)]
        if used:
            paths.append(_Path(by_intra, priors.hidden(by_intra, qp, header), used[0]))
    symbols: list[Tensor] = [torch.empty(0)] * count
    for index in reversed(range(count)):
        paths = [path for path in paths if path.finest <= index]
        found: dict[bool, Quantised] = {}
        for path in paths:
            read = () if path.by_intra else past.read(index)
            path.hidden, found[path.by_intra] = priors.predict(path.by_intra, index, path.hidden, gains[index], read)
        decoded = []
        for b, decoder in enumerate(decoders):
            quantised = found[bool(intra[b] >> index & 1)]
            decoded.append(decoder.decode(coder.CodedParameters.of(*[x[b] for x in quantised])))
        shape = next(iter(found.values()))[0].shape
        symbols[index] = torch.from_numpy(np.stack(decoded)).view(shape)
        if index:
            for path in paths:
                path.hidden = priors.absorb(path.by_intra, index, path.hidden, symbols[index], gains[index], qp)
    return symbols
