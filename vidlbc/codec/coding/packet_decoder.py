"""The range decoder and the checksums of one packet."""

import zlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.bitstream import Header, Packet
from vidlbc.codec.coding.encoding import LeftOut, crc_bytes
from vidlbc.codec.coding.priors import Quantised
from vidlbc.codec.entropy import coder
from vidlbc.errors import BitstreamError

OnLevel = Callable[[int, Tensor], None]


class PacketDecoder:
    """A packet being decoded; `before`: frames decoded before it. `on_level`: as of
    vidlbc.codec.coding.decoding.decode."""

    def __init__(self, header: Header, packet: Packet, before: int, on_level: OnLevel | None):
        self.coded, self.symbols = header.coded, coder.Decoder(packet.payload, header.skip)
        self._skip, self._packet, self._before, self._on_level = header.skip, packet, before, on_level
        self._crc = 0

    def level(self, index: int, quantised: Quantised, left: LeftOut | None = None) -> Tensor:
        """Symbols of level `index` of the next frame, int32 (..., H_l, W_l, C_l), as large as what is given; those of
        channels that are not coded are 0. `left`: cells that are not coded."""
        count, shape = self.coded[index], quantised[0].shape
        levels = [x[..., :count] for x in quantised]
        coded = None if left is None else ~left.cells
        parameters = coder.CodedParameters.of(*(levels if coded is None else [x[coded] for x in levels]))
        found = self.symbols.decode(parameters)
        if self._on_level is not None:
            bits = torch.from_numpy(coder.code_lengths(found, parameters, self._skip))
            whole = _placed(bits, coded, torch.zeros(*shape[:-1], count), (*shape[:-1], count))
            self._on_level(index, whole.view(*shape[-3:-1], count))
        others = torch.empty(0) if left is None else left.symbols[..., :count]
        symbols = _placed(torch.from_numpy(found), coded, others.cpu(), (*shape[:-1], count))
        return symbols if count == shape[-1] else F.pad(symbols, (0, shape[-1] - count))

    def check(self, t: int, decoded: Iterable[Tensor]) -> None:
        """Compare with the checksums after frame t, of which this was decoded, in its order. Raises BitstreamError."""
        self._crc = zlib.crc32(b"".join(map(crc_bytes, decoded)), self._crc)
        if self._crc & 0xFF != self._packet.checks[t]:
            raise BitstreamError(
                f"decoded symbols of frame {self._before + t} fail their checksum: "
                "the bitstream was altered, or the weights differ from those that wrote it"
            )
        if t == self._packet.frames - 1 and self._crc != self._packet.symbol_crc:
            raise BitstreamError(f"decoded symbols fail their checksum before frame {self._before + t + 1}")


def _placed(values: Tensor, coded: Tensor | None, others: Tensor, shape: Sequence[int]) -> Tensor:
    """Values of the coded cells, None: of all, among those of the others, as one map (..., H_l, W_l, C)."""
    if coded is None:
        return values.view(*shape)
    out = others.clone()
    out[coded.cpu()] = values.view(int(coded.sum()), shape[-1])
    return out
