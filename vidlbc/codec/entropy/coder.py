"""Range coding of symbols under quantised distributions, with constriction's range coder (32-bit words, 64-bit state).

The symbols of one level of one frame are coded bucket by bucket: all that share a table, in ascending table order, in
raster order within. A bucket is one call on an array (5 ns a symbol to encode, 20 to decode, and 1 us a call,
measured), where a call with a distribution a symbol takes 58 and 147 ns. Symbols outside their table send the escape
entry, and then, after the last bucket of the level, 16 plain bits each.

Where a bitstream skips the smallest scales, symbols that have one are not coded: they are their centres.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from vidlbc.codec.entropy import tables as t
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.errors import BitstreamError

SYMBOL_LIMIT = 2**15 - 1
_PLAIN = 1 << 16


@cache
def _models() -> tuple[Any, ...]:
    import constriction

    # Handing over counts - 1 makes constriction's own quantisation the identity: it reserves one count an entry and
    # shares out the other 2^24 - n in proportion, here exactly (the weights sum to 2^24 - n). Tested in
    # tests/codec/entropy.
    return tuple(
        constriction.stream.model.Categorical((table.counts - 1).astype(np.float64), perfect=False)
        for table in t.tables()
    )


@cache
def _plain_model() -> Any:
    import constriction

    return constriction.stream.model.Uniform(_PLAIN)


@cache
def _radii() -> np.ndarray:
    return np.array([table.radius for table in t.tables()], dtype=np.int32)


@cache
def _lengths() -> tuple[np.ndarray, np.ndarray]:
    """Bits of every entry of every table, one table after another; and where each begins."""
    counts = [table.counts for table in t.tables()]
    starts = np.cumsum([0, *map(len, counts[:-1])])
    bits = t.PRECISION - np.log2(np.concatenate(counts))
    bits[[start + len(count) - 1 for start, count in zip(starts, counts, strict=True)]] += np.log2(_PLAIN)
    return bits.astype(np.float32), starts


@dataclass(frozen=True)
class CodedParameters:
    """What is left of a level's distributions after quantisation; all flat, raster order (H, W, C)."""

    table: np.ndarray  # int16 index into tables()
    centre: np.ndarray  # int32 n
    flip: np.ndarray  # int32 +1 or -1

    @classmethod
    def of(cls, table: torch.Tensor, centre: torch.Tensor, flip: torch.Tensor) -> "CodedParameters":
        """From what `quantise_tensors` gives for one frame, (H, W, C)."""
        return cls(*[x.reshape(-1).cpu().numpy() for x in (table, centre, flip)])

    def at(self, places: np.ndarray) -> "CodedParameters":
        return CodedParameters(self.table[places], self.centre[places], self.flip[places])


def first_table(skip: int) -> int:
    """The first table that is coded, where scale indices below `skip` are not."""
    return skip * t.NUM_FRACTIONS


def quantise(distribution: Distribution) -> CodedParameters:
    """Quantise exact distributions (one frame, (H, W, C)) to tables, centres and signs."""
    return CodedParameters.of(*quantise_tensors(distribution))


def quantise_tensors(distribution: Distribution) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tables, centres and signs of distributions of any shape."""
    scale = (distribution.log2_scale - t.MIN_LOG2_SCALE).mul_(t.SCALE_STEPS).round_().clamp_(0, t.NUM_SCALES - 1)
    limit = SYMBOL_LIMIT * t.MEAN_STEPS
    steps = (distribution.mean * t.MEAN_STEPS).round_().clamp_(-limit, limit)
    centre = (steps * (1 / t.MEAN_STEPS)).round_()
    fraction = steps.sub_(centre, alpha=t.MEAN_STEPS)
    table = scale.mul_(t.NUM_FRACTIONS).add_(fraction.abs())
    flip = (fraction < 0).to(torch.int32).mul_(-2).add_(1)  # half the time of torch.where
    return table.to(torch.int16), centre.to(torch.int32), flip


def code_lengths(symbols: np.ndarray, parameters: CodedParameters, skip: int = 0) -> np.ndarray:
    """Bits of each symbol, float32, flat, under the very tables that code it, an escape's plain bits included.

    `skip`: scale indices below it are not coded, and take none. The range coder's bytes are the sum but for its
    rounding and its end: under 8 bytes a run.
    """
    bits, starts = _lengths()
    entry, _ = _entries(symbols, parameters.table, parameters.centre, parameters.flip)
    return np.where(parameters.table < first_table(skip), np.float32(0), bits[starts[parameters.table] + entry])


def _entries(
    symbols: np.ndarray, table: np.ndarray, centre: np.ndarray, flip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The entry of each symbol in its table, and whether it is the escape."""
    radius = _radii()[table]
    entry = (symbols - centre) * flip + radius
    escaped = (entry < 0) | (entry > 2 * radius)
    return np.where(escaped, 2 * radius + 1, entry).astype(np.int32), escaped


class _Buckets:
    """Order of coding: positions sorted by table, and the run of each table that occurs."""

    def __init__(self, table: np.ndarray):
        self.order = np.argsort(table, kind="stable")
        counts = np.bincount(table, minlength=1)
        self.tables = np.flatnonzero(counts)
        ends = np.cumsum(counts[self.tables])
        self.runs = list(zip(self.tables.tolist(), (ends - counts[self.tables]).tolist(), ends.tolist(), strict=True))


class Encoder:
    """Codes levels one after another into one run of bytes. `skip`: scale indices below it are not coded."""

    def __init__(self, skip: int = 0) -> None:
        import constriction

        self._encoder = constriction.stream.queue.RangeEncoder()
        self._first = first_table(skip)

    def encode(self, symbols: np.ndarray, parameters: CodedParameters) -> None:
        """symbols int32, flat. Raises ValueError where one exceeds +-32767, or should be skipped and is no centre."""
        if self._first:
            coded = parameters.table >= self._first
            if (symbols != parameters.centre)[~coded].any():
                raise ValueError("a symbol whose scale is not coded differs from the centre of its distribution")
            symbols, parameters = symbols[coded], parameters.at(np.flatnonzero(coded))
        if symbols.size and int(np.abs(symbols).max()) > SYMBOL_LIMIT:
            raise ValueError(f"symbol {int(np.abs(symbols).max())} exceeds {SYMBOL_LIMIT}")
        buckets, models = _Buckets(parameters.table), _models()
        order = buckets.order
        ordered = symbols[order]
        entry, escaped = _entries(ordered, parameters.table[order], parameters.centre[order], parameters.flip[order])
        encode = self._encoder.encode
        for table, start, stop in buckets.runs:
            encode(entry[start:stop], models[table])
        if escaped.any():
            encode((ordered[escaped] + (SYMBOL_LIMIT + 1)).astype(np.int32), _plain_model())

    def finish(self) -> bytes:
        """The bytes; trailing zero bytes are left out (the decoder reads zeros past the end)."""
        words = self._encoder.get_compressed()
        return words.astype("<u4").view(np.uint8).reshape(-1, 4)[:, ::-1].tobytes().rstrip(b"\0")


class Decoder:
    """Reads levels back in the order they were encoded; `skip` as they were."""

    def __init__(self, payload: bytes, skip: int = 0):
        import constriction

        self._first = first_table(skip)
        padded = payload + b"\0" * (-len(payload) % 4 + 8)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, parameters: CodedParameters) -> np.ndarray:
        """int32 symbols, flat. Raises BitstreamError where the bytes are no valid code."""
        if not self._first:
            return self._decode(parameters)
        coded = np.flatnonzero(parameters.table >= self._first)
        symbols = parameters.centre.astype(np.int32)
        symbols[coded] = self._decode(parameters.at(coded))
        return symbols

    def _decode(self, parameters: CodedParameters) -> np.ndarray:
        buckets, models = _Buckets(parameters.table), _models()
        decode = self._decoder.decode
        entry = np.empty(parameters.table.size, dtype=np.int32)
        order = buckets.order
        try:
            if buckets.runs:
                np.concatenate([decode(models[table], stop - start) for table, start, stop in buckets.runs], out=entry)
            symbols = np.empty_like(entry)
            symbols[order] = entry
            radius = _radii()[parameters.table]
            escaped = symbols > 2 * radius
            symbols = (symbols - radius) * parameters.flip + parameters.centre
            if escaped.any():
                place = order[escaped[order]]
                symbols[place] = decode(_plain_model(), len(place)) - (SYMBOL_LIMIT + 1)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f"range coder: invalid data ({error})") from None
        return symbols
