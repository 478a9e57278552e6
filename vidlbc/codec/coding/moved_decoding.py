"""Symbols from packets of frames that are predicted from moved pictures."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header, Packet, Reader, unpack_brightness, unpack_kinds, unpack_qps
from vidlbc.codec.coding.moved_priors import MovedPriors
from vidlbc.codec.coding.moving import FrameKind, Look, Past, PastBuilder, left_out, look, no_motion
from vidlbc.codec.coding.packet_decoder import OnLevel, PacketDecoder
from vidlbc.codec.entropy import coder
from vidlbc.codec.motion.brightness import Brightness
from vidlbc.codec.motion.prior import Asked
from vidlbc.codec.prior.grid import require_exact_products
from vidlbc.codec.prior.topdown import Gains
from vidlbc.errors import BitstreamError

OnReference = Callable[["Future[Tensor]"], None]


@torch.inference_mode()
def decode_moved(
    priors: MovedPriors,
    reader: Reader,
    on_frame: Callable[[list[Tensor]], None] | None = None,
    on_level: OnLevel | None = None,
    on_reference: OnReference | None = None,
) -> Iterator[list[Tensor]]:
    """Symbols of one packet after another, int32 (n, H_l, W_l, C_l).

    `on_frame`, `on_level`: as of vidlbc.codec.coding.decoding.decode. `on_reference`: called with the reference picture
    of each frame, uint8 (1, H, W, 3), padded, which is made beside what follows. Raises BitstreamError where checksums
    fail or there is no key frame.
    """
    require_exact_products()
    header = reader.header
    if header.copies and not priors.copies:
        raise BitstreamError("damaged bitstream: its weights know of no copied blocks")
    still = no_motion(priors, header)
    past: Past | None = None
    last: list[Tensor] = []
    done = 0
    for packet in reader.packets():
        source = _Packet(header, packet, done, on_level)
        frames = []
        for t, kind in enumerate(source.kinds):
            if kind is not FrameKind.KEY and (past is None or not header.context):
                raise BitstreamError(f"damaged bitstream: frame {done + t} has a past, and no frame is before it")
            light = source.brightness[t]
            if light is not None and kind in (FrameKind.KEY, FrameKind.REPEATED):
                raise BitstreamError(f"damaged bitstream: frame {done + t} has a brightness, and is not predicted")
            if kind is FrameKind.REPEATED:
                symbols = last
                source.repeat(symbols)
                source.check(t, [])
            else:
                qp = torch.tensor([source.qps[t]], device=priors.pool.device)
                gains = priors.image.gains(qp)
                given: Look | None = None
                told: list[Tensor] = []  # before the levels
                if kind is not FrameKind.KEY:
                    assert past is not None
                    given, told = _look(priors, source, qp, past.brightened(light), kind, still)
                wanted = header.context or on_reference is not None
                builder = PastBuilder(priors, gains, qp, given, still) if wanted else None
                symbols = _decode_frame(priors, source, gains, qp, given, builder)
                levels = [q[..., :count] for q, count in zip(symbols, header.coded, strict=True)]
                source.check(t, [*told, *reversed(levels)])
                if builder is not None:
                    past = builder.past()
            frames.append(symbols)
            last = symbols
            if on_frame is not None:
                on_frame(symbols)
            if on_reference is not None and past is not None:
                on_reference(past.picture)
        done += len(source.kinds)
        yield [torch.cat(level) for level in zip(*frames, strict=True)]


def _look(
    priors: MovedPriors, source: "_Packet", qp: Tensor, past: Past, kind: FrameKind, still: Tensor
) -> tuple[Look, list[Tensor]]:
    """What a frame is given, and what was decoded for it: its field and flags, where it has them."""
    told = []
    field = still
    if kind is FrameKind.MOVED:
        field = priors.vectors(qp, past.field, source.symbols_of)
        told.append(field)
    if not source.header.copies:
        return look(priors, past, field), told
    copied = priors.flags(qp, past.copied, field, source.symbols_of)
    return look(priors, past, field, copied), [*told, copied]


def _decode_frame(
    priors: MovedPriors,
    source: "_Packet",
    gains: Sequence[Gains],
    qp: Tensor,
    given: Look | None,
    builder: PastBuilder | None,
) -> list[Tensor]:
    by_intra = given is None
    hidden = priors.hidden(by_intra, qp, source.header)
    symbols: list[Tensor] = [torch.empty(0)] * len(priors.levels)
    for index in reversed(range(len(priors.levels))):
        read = () if given is None else given.read(index)
        hidden, quantised = priors.predict(by_intra, index, hidden, gains[index], read)
        left = left_out(priors, index, gains[index], given, source.coded[index])
        symbols[index] = source.level(index, quantised, left)
        if builder is not None:
            builder.add(index, symbols[index])
        if index:
            hidden = priors.absorb(by_intra, index, hidden, symbols[index], gains[index], qp)
    return symbols


class _Packet(PacketDecoder):
    """A packet being decoded, which begins with what kinds its frames are of."""

    def __init__(self, header: Header, packet: Packet, before: int, on_level: OnLevel | None):
        super().__init__(header, packet, before, on_level)
        self.header = header
        self.kinds = [FrameKind(kind) for kind in unpack_kinds(packet, header)]
        self.qps = unpack_qps(packet, header)
        found = unpack_brightness(packet, header)
        self.brightness = [None if light is None else Brightness.from_bytes(light) for light in found]

    def symbols_of(self, asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
        """For `MovedPriors.vectors` and `flags`."""
        assert asked.quantised is not None
        quantised = asked.quantised[:, 0, :, kind].cpu().numpy()
        here = slice(None) if mask is None else np.flatnonzero(mask[0].cpu().numpy())
        values = np.zeros(quantised.shape[1], np.int32)
        values[here] = self.symbols.decode(coder.CodedParameters(*quantised[:, here]))
        return torch.from_numpy(values)[None].to(asked.mean.device)

    def repeat(self, symbols: Sequence[Tensor]) -> None:
        """Of a frame that is the one before, whose symbols these are, nothing is coded."""
        if self._on_level is not None:
            for index in reversed(range(len(symbols))):
                self._on_level(index, torch.zeros(*symbols[index].shape[1:3], self.coded[index]))
