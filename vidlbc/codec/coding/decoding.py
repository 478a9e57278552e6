"""Symbols from packets: frame by frame, level by level, from coarse to fine."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header, Packet, Reader, end_bytes, unpack_modes
from vidlbc.codec.coding.encoding import SPOOLED
from vidlbc.codec.coding.packet_decoder import OnLevel, PacketDecoder
from vidlbc.codec.coding.priors import Priors, Quantised
from vidlbc.codec.prior.grid import require_exact_products
from vidlbc.codec.prior.topdown import Gains
from vidlbc.codec.temporal_stage import Memory, State
from vidlbc.errors import BitstreamError, InputError


@torch.inference_mode()
def decode(
    priors: Priors,
    readers: Sequence[Reader],
    on_frame: Callable[[list[Tensor]], None] | None = None,
    base: bool = False,
    on_level: OnLevel | None = None,
) -> Iterator[list[Tensor]]:
    """Symbols of one packet after another, int32 (B * n, H_l, W_l, C_l), frame index fastest.

    `on_frame` is called with the symbols of each frame, (B, H_l, W_l, C_l), as soon as they are there. `base`: only the
    base layer's levels, from its bytes alone; the enhancement is not read. `on_level` is called with the index of each
    level that was read and the bits that each of its symbols took, float32 (H_l, W_l, channels coded).
    Raises BitstreamError where checksums fail, InputError where the clips do not go together or have no base.
    """
    require_exact_products()
    first = readers[0].header
    if len({(r.header.height, r.header.width, r.header.context, r.header.base) for r in readers}) > 1:
        raise InputError("clips decoded as one batch must have the same size, layers and context flag")
    if base and not first.base:
        raise InputError("the bitstream has no base layer: its model has none")
    qp = torch.tensor([r.header.qp for r in readers], device=priors.pool.device)
    gains = priors.image.gains(qp)
    finest = len(first.levels) - first.base if base else 0
    past = _Past(priors, priors.start(len(readers), first), finest)
    done = 0
    for maybe in zip_longest(*[_side_by_side(r, base) for r in readers]):
        packets = [_Packets(r.header, p, done, on_level) for r, p in zip(readers, maybe, strict=True) if p is not None]
        if len(packets) < len(readers) or len({p.frames for p in packets}) > 1:
            raise InputError("clips decoded as one batch must have the same number of frames")
        frames: list[list[Tensor]] = []
        for t in range(packets[0].frames):
            symbols = _decode_frame(priors, packets, t, qp, gains, past, first, finest)
            for b, packet in enumerate(packets):
                packet.check(t, symbols[finest:], b)
            frames.append(symbols[finest:])
            if on_frame is not None:
                on_frame(symbols[finest:])
            if first.context:
                past.update(symbols, gains)
        done += packets[0].frames
        yield [torch.stack(level, 1).flatten(0, 1) for level in zip(*frames, strict=True)]


def _side_by_side(reader: Reader, base: bool) -> Iterator[tuple[Packet, ...]]:
    """The packets of the same frames, one of each section to decode. A base waits in a temporary file, where it is
    large, while its enhancement is read.

    Raises BitstreamError where the sections do not go together.
    """
    if base or not reader.header.base:
        yield from ((packet,) for packet in reader.packets())
        return
    header = reader.header
    with cast(BinaryIO, SpooledTemporaryFile(SPOOLED)) as held:
        held.write(header.to_bytes())
        held.writelines(packet.to_bytes() for packet in reader.packets())
        held.write(end_bytes(reader.frames, header.version))
        held.seek(0)
        for of_base, other in zip_longest(Reader(held).packets(), reader.packets()):
            if of_base is None or other is None or of_base.frames != other.frames:
                raise BitstreamError("damaged bitstream: the packets of base and enhancement hold different frames")
            yield of_base, other


class _Packets:
    """One clip's packets of the same frames, one a section, being decoded; `before`: frames decoded before them."""

    def __init__(self, header: Header, packets: Sequence[Packet], before: int, on_level: OnLevel | None):
        self.frames, self._coded = packets[0].frames, header.coded
        decoders = [PacketDecoder(header, packet, before, on_level) for packet in packets]
        self._sections = list(zip(decoders, header.sections[: len(packets)], strict=True))
        self._decoders = {index: decoder for decoder, levels in self._sections for index in levels}
        self.intra = [0] * self.frames  # masks of the levels that the intra prior codes
        for packet, (_, levels) in zip(packets, self._sections, strict=True):
            for t, mask in enumerate(unpack_modes(packet.modes, packet.frames, len(levels))):
                self.intra[t] |= mask << levels.start

    def decode(self, index: int, quantised: Quantised) -> Tensor:
        """Symbols of level `index` of the next frame, (H_l, W_l, C_l)."""
        return self._decoders[index].level(index, quantised)

    def check(self, t: int, symbols: Sequence[Tensor], row: int) -> None:
        """Compare with the checksums after frame t; the clip is `row` of the levels decoded. Raises BitstreamError."""
        finest = len(self._coded) - len(symbols)
        for decoder, levels in self._sections:
            decoder.check(t, [symbols[i - finest][row, ..., : self._coded[i]] for i in reversed(levels)])


class _Past:
    """The state of every working stride, and what the next frame may read of it.

    The finest stride takes longest and is read last: it is made on a thread of its own, while the next frame's coarse
    levels are decoded.
    """

    def __init__(self, priors: Priors, state: State, finest: int):
        """`finest`: the finest level that is decoded; strides below its own are left as they are."""
        self._priors = priors
        self._strides = [s for s in priors.strides if s >= priors.levels[finest].work_stride]
        self._state: dict[int, tuple[Tensor, ...]] = dict(state)
        self._memory: Memory = {}
        self._coming: Future[tuple[Tensor, tuple[Tensor, ...], Memory]] | None = None

    def read(self, index: int) -> tuple[Tensor, ...]:
        """The memory of level `index`."""
        stride = self._priors.levels[index].work_stride
        if stride not in self._state:
            return ()
        if stride == self._strides[0]:
            self._finish()
        if index not in self._memory:
            self._memory |= self._priors.memory_at(stride, self._state[stride])
        return self._memory[index]

    def update(self, symbols: Sequence[Tensor], gains: Sequence[Gains]) -> None:
        """One more frame was decoded."""
        self._finish()
        coarser: Tensor | None = None
        for stride in reversed(self._strides):
            work = partial(self._priors.update_at, stride, self._state[stride], symbols, gains, coarser)
            if stride == self._strides[0]:
                self._coming = self._priors.pool.beside(work)
            else:
                coarser, self._state[stride], memory = work()
                self._memory |= memory

    def _finish(self) -> None:
        if self._coming is not None:
            _, self._state[self._strides[0]], memory = self._coming.result()
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
    packets: Sequence[_Packets],
    t: int,
    qp: Tensor,
    gains: Sequence[Gains],
    past: _Past,
    header: Header,
    finest: int,
) -> list[Tensor]:
    """Symbols of frame t of every clip's packets, int32 (B, H_l, W_l, C_l); nothing below level `finest`.

    Where the intra prior codes some levels and the temporal stage others, both run, each down to the finest level that
    needs it.
    """
    count = len(priors.levels)
    intra = [packet.intra[t] for packet in packets]
    paths = []
    for by_intra in (False, True):
        used = [i for i in range(finest, count) if any(bool(mask >> i & 1) == by_intra for mask in intra)]
        if used:
            paths.append(_Path(by_intra, priors.hidden(by_intra, qp, header), used[0]))
    symbols: list[Tensor] = [torch.empty(0)] * count
    for index in reversed(range(finest, count)):
        paths = [path for path in paths if path.finest <= index]
        found: dict[bool, Quantised] = {}
        for path in paths:
            read = () if path.by_intra else past.read(index)
            path.hidden, found[path.by_intra] = priors.predict(path.by_intra, index, path.hidden, gains[index], read)
        decoded = []
        for b, packet in enumerate(packets):
            quantised = found[bool(intra[b] >> index & 1)]
            table, centre, flip = (x[b] for x in quantised)
            decoded.append(packet.decode(index, (table, centre, flip)))
        symbols[index] = torch.stack(decoded)
        if index > finest:
            for path in paths:
                path.hidden = priors.absorb(path.by_intra, index, path.hidden, symbols[index], gains[index], qp)
    return symbols
