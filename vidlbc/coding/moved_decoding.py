"""Symbols from packets of frames that are predicted from moved pictures."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from vidlbc.bitstream import Header, Packet, Reader, unpack_kinds
from vidlbc.coding.moved_priors import MovedPriors
from vidlbc.coding.moving import FrameKind, Look, Past, PastBuilder, look, no_motion
from vidlbc.coding.packet_decoder import OnLevel, PacketDecoder
from vidlbc.entropy import coder
from vidlbc.errors import BitstreamError
from vidlbc.motion.prior import Asked
from vidlbc.prior.grid import require_exact_products

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

    `on_frame`, `on_level`: as of vidlbc.coding.decoding.decode. `on_reference`: called with the reference picture of
    each frame, uint8 (1, H, W, 3), padded, which is made beside what follows. Raises BitstreamError where checksums
    fail or there is no key frame.
    """
    require_exact_products()
    header = reader.header
    qp = torch.tensor([header.qp], device=priors.pool.device)
    gains, still = priors.image.gains(qp), no_motion(priors, header)
    past: Past | None = None
    done = 0
    for packet in reader.packets():
        source = _Packet(header, packet, done, on_level)
        frames = []
        for t, kind in enumerate(source.kinds):
            given: Look | None = None
            vectors: Tensor | None = None
            if kind is not FrameKind.KEY:
                if past is None or not header.context:
                    raise BitstreamError(f"damaged bitstream: frame {done + t} has a past, and no frame is before it")
                if kind is FrameKind.MOVED:
                    vectors = priors.vectors(qp, past.field, source.vectors)
                given = look(priors, past, still if vectors is None else vectors)
            wanted = header.context or on_reference is not None
            builder = PastBuilder(priors, gains, qp, given, still) if wanted else None
            symbols = _decode_frame(priors, source, header, qp, given, builder)
            levels = [q[..., :count] for q, count in zip(symbols, header.coded, strict=True)]
            source.check(t, [*([] if vectors is None else [vectors]), *reversed(levels)])
            frames.append(symbols)
            if on_frame is not None:
                on_frame(symbols)
            if builder is not None:
                past = builder.past()
                if on_reference is not None:
                    on_reference(past.picture)
        done += len(source.kinds)
        yield [torch.cat(level) for level in zip(*frames, strict=True)]


def _decode_frame(
    priors: MovedPriors,
    source: "_Packet",
    header: Header,
    qp: Tensor,
    given: Look | None,
    builder: PastBuilder | None,
) -> list[Tensor]:
    by_intra, gains = given is None, priors.image.gains(qp)
    hidden = priors.hidden(by_intra, qp, header)
    symbols: list[Tensor] = [torch.empty(0)] * len(priors.levels)
    for index in reversed(range(len(priors.levels))):
        read = () if given is None else given.read(index)
        hidden, quantised = priors.predict(by_intra, index, hidden, gains[index], read)
        symbols[index] = source.level(index, quantised)
        if builder is not None:
            builder.add(index, symbols[index])
        if index:
            hidden = priors.absorb(by_intra, index, hidden, symbols[index], gains[index], qp)
    return symbols


class _Packet(PacketDecoder):
    """A packet being decoded, which begins with what kinds its frames are of."""

    def __init__(self, header: Header, packet: Packet, before: int, on_level: OnLevel | None):
        super().__init__(header, packet, before, on_level)
        self.kinds = [FrameKind(kind) for kind in unpack_kinds(packet.modes, packet.frames)]

    def vectors(self, asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
        """For `MovedPriors.vectors`."""
        assert asked.quantised is not None
        quantised = asked.quantised[:, 0, :, kind].cpu().numpy()
        here = slice(None) if mask is None else np.flatnonzero(mask[0].cpu().numpy())
        values = np.zeros(quantised.shape[1], np.int32)
        values[here] = self.symbols.decode(coder.CodedParameters(*quantised[:, here]))
        return torch.from_numpy(values)[None].to(asked.mean.device)
