"""A second reader of .vlbc files, written from docs/bitstream.md alone: container, weights, tables, range decoder.

Nothing of vidlbc, torch or constriction is used: Python's integers, numpy and the standard library. With
`reference_priors` it decodes bytes to symbols. It is slow and short; it shows that the specification says enough, and
that what a bitstream means rests on no library's arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray


# -- container ---------------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    version: int
    height: int
    width: int
    qp: int
    context: bool
    kind: str
    fingerprint: bytes
    levels: list[tuple[int, int]]
    kept: list[int]  # channels coded of each level
    base: int  # levels of the base layer
    skip: int  # smaller scale indices are not coded
    frames: int
    sections: list[tuple[range, list[Packet]]]  # levels and packets of each section


# frames, CRC of the symbols, checks, modes (bits at the levels' own places; from version 5 on kinds of frames),
# payload, QPs of frames
Packet = tuple[int, int, bytes, list[int], bytes, list[int]]


class Bytes:
    def __init__(self, data: bytes):
        self.data, self.at, self.mark = data, 0, 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data), "truncated"
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def check(self) -> None:
        expected = zlib.crc32(self.data[self.mark : self.at])
        assert struct.unpack("<I", self.take(4))[0] == expected, "damaged"


def parse(data: bytes) -> Stream:
    b = Bytes(data)
    assert b.take(4) == b"VLBC"
    version, flags, qp = b.take(3)
    assert version in (2, 3, 4, 5, 6)
    height, width, _, _ = (b.varint() for _ in range(4))
    fingerprint = b.take(16)
    kind = b.take(b.varint()).decode()
    levels = [(b.varint(), b.varint()) for _ in range(b.varint())]
    kept, base = ([b.varint() for _ in levels], b.varint()) if version > 2 else ([c for _, c in levels], 0)
    one, skip = (b.varint(), b.varint()) if version > 3 else (1, 0)
    b.check()
    assert one == 1 and (version < 5 or base == skip == 0)
    cut = len(levels) - base
    parts = [range(cut, len(levels)), range(cut)] if base else [range(len(levels))]
    sections = [(part, section(b, part, version, qp)) for part in parts]
    (frames,) = {sum(p[0] for p in packets) for _, packets in sections}
    assert b.at == len(data)
    context = bool(flags & 1)
    return Stream(version, height, width, qp, context, kind, fingerprint, levels, kept, base, skip, frames, sections)


def section(b: Bytes, levels: range, version: int, qp: int) -> list[Packet]:
    packets: list[Packet] = []
    while True:
        tag = b.take(1)
        b.mark = b.at
        count = b.varint()
        if tag == b"E":
            again = b.varint() if version > 3 else count
            b.check()
            assert count == again == sum(p[0] for p in packets)
            return packets
        assert tag == b"P"
        size = b.varint()
        (crc,) = struct.unpack("<I", b.take(4))
        checks = b.take(count)
        modes = frame_kinds(b, count) if version > 4 else frame_modes(b, count, levels)
        own = frame_qps(b, count, qp) if version > 5 else [(qp, b"")] * count
        packets.append((count, crc, checks, modes, b.take(size), own))
        b.check()


def frame_modes(b: Bytes, count: int, levels: range) -> list[int]:
    marked = b.take((count + 7) // 8)
    flagged = [t for t in range(count) if marked[t // 8] >> t % 8 & 1]
    bits, modes = b.take((len(flagged) * len(levels) + 7) // 8), [0] * count
    for i, t in enumerate(flagged):
        for level in range(len(levels)):
            place = i * len(levels) + level
            modes[t] |= (bits[place // 8] >> place % 8 & 1) << levels[level]
    return modes


def frame_kinds(b: Bytes, count: int) -> list[int]:
    bits = b.take((count + 3) // 4)
    return [bits[t // 4] >> 2 * (t % 4) & 3 for t in range(count)]


def frame_qps(b: Bytes, count: int, qp: int) -> list[tuple[int, bytes]]:
    """QP and brightness of each frame."""
    others, found = b.take((count + 7) // 8), []
    for t in range(count):
        own = b.take(1)[0] if others[t // 8] >> t % 8 & 1 else qp
        found.append((own & 127, b.take(6) if own & 128 else b""))
    return found


# -- weights -----------------------------------------------------------------------------------------------------------

SIZES = {
    "F32": (np.float32, "torch.float32"),
    "F16": (np.float16, "torch.float16"),
    "I16": (np.int16, "torch.int16"),
    "I8": (np.int8, "torch.int8"),
}


def read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    tensors, types = {}, {}
    for name, entry in header.items():
        if name != "__metadata__":
            low, high = (8 + size + offset for offset in entry["data_offsets"])
            kind, types[name] = SIZES[entry["dtype"]]
            tensors[name] = np.frombuffer(data[low:high], kind).reshape(entry["shape"])
    return tensors, types


def digest(folder: Path) -> tuple[bytes, dict[str, Array], dict[str, Any]]:
    tensors, types = read_safetensors(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    sha = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        shape = str(tuple(tensors[name].shape))
        sha.update(f"{name}|{types[name]}|{shape}|".encode() + tensors[name].tobytes())
    for name in [n for n in tensors if n.endswith(".bits")]:
        # Stored as integers, with the fractional bits of each row.
        weight, bits = f"{name[:-5]}.weight", tensors.pop(name).astype(np.float64)
        rows = tensors[weight].astype(np.float64)
        tensors[weight] = (rows * 2.0 ** -bits.reshape(-1, *[1] * (rows.ndim - 1))).astype(np.float32)
    return sha.digest(), tensors, config


# -- tables and range decoder ------------------------------------------------------------------------------------------


def table(index: int, fraction: int) -> tuple[int, list[int]]:
    """Radius and counts of scale index 0..88 and |fraction| 0..8."""
    with localcontext(Context(prec=28)):
        scale = Decimal(2) ** (Decimal(index) / 8 - 5)
        radius = max(64, int((scale * -(Decimal(2) ** -20).ln()).to_integral_value(rounding="ROUND_CEILING")))
        step, power, f = (Decimal(-1) / (16 * scale)).exp(), Decimal(1), []
        for _ in range(16 * (radius + 1) + 1):
            f.append(1 / (1 + power))
            power *= step
        at = [16 * r - 8 - fraction for r in range(-radius, radius + 2)]
        edge = [f[k] if k >= 0 else 1 - f[-k] for k in at]
        mass = [b - a for a, b in zip(edge[:-1], edge[1:], strict=True)]
        mass.append(1 - (edge[-1] - edge[0]))
        weight = [1 / Decimal((1 + abs(r)) ** 2) for r in range(-radius, radius + 1)] + [1 / Decimal(1 + radius)]
        share, total = Decimal(2) ** -14, sum(weight)
        mass = [(1 - share) * m + share * (w / total) for m, w in zip(mass, weight, strict=True)]
        counts = [1 + int(m * (2**24 - len(mass))) for m in mass]
        counts[radius] += 2**24 - sum(counts)
        return radius, counts


class RangeDecoder:
    MASK = 2**64 - 1

    def __init__(self, payload: bytes):
        self.payload, self.at = payload, 8
        self.lower, self.range = 0, self.MASK
        self.point = int.from_bytes(payload[:8].ljust(8, b"\0"), "big")
        self.cumulative: dict[int, tuple[int, Array]] = {}

    def quantile(self) -> int:
        return ((self.point - self.lower) & self.MASK) // (self.range >> 24)

    def advance(self, start: int, count: int) -> None:
        scale = self.range >> 24
        self.lower = (self.lower + scale * start) & self.MASK
        self.range = scale * count
        if self.range < 2**32:
            self.lower = (self.lower << 32) & self.MASK
            self.range <<= 32
            word = int.from_bytes(self.payload[self.at : self.at + 4].ljust(4, b"\0"), "big")
            self.point = ((self.point << 32) & self.MASK) | word
            self.at += 4

    def residual(self, number: int) -> int | None:
        """One symbol under table `number`; None for the escape."""
        if number not in self.cumulative:
            radius, counts = table(*divmod(number, 9))
            self.cumulative[number] = radius, np.concatenate([[0], np.cumsum(counts)])
        radius, edges = self.cumulative[number]
        entry = int(np.searchsorted(edges, self.quantile(), "right")) - 1
        self.advance(int(edges[entry]), int(edges[entry + 1] - edges[entry]))
        return None if entry > 2 * radius else entry - radius

    def plain(self) -> int:
        value = self.quantile() >> 8
        self.advance(value << 8, 256)
        return value - 32768

    def level(self, mean: Array, log2_scale: Array, skip: int) -> Array:
        """Symbols of one level, (H, W, C), from its distributions, float32; scale indices < skip are not coded."""
        index = np.clip(np.rint((log2_scale + np.float32(5)) * np.float32(8)), 0, 88).reshape(-1).astype(np.int64)
        sixteenths = np.clip(np.rint(mean * np.float32(16)), -32767 * 16, 32767 * 16).reshape(-1)
        centre = np.rint(sixteenths / np.float32(16)).astype(np.int64)
        fraction = sixteenths.astype(np.int64) - 16 * centre
        number = 9 * index + np.abs(fraction)
        out, escaped = centre.copy(), []
        for i in np.lexsort((np.arange(number.size), number)):
            if index[i] < skip:
                continue
            r = self.residual(int(number[i]))
            if r is None:
                escaped.append(i)
            else:
                out[i] = centre[i] + (-r if fraction[i] < 0 else r)
        for i in escaped:
            out[i] = self.plain()
        return out.reshape(mean.shape)
