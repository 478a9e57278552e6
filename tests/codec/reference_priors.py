"""The priors of docs/bitstream.md in numpy; with `reference_stream` a second decoder, bytes and weights to symbols.

Sums of products are taken in float64 and must come out as float32 numbers; all else is one float32 operation after
another.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from tests.codec.reference_stream import Array, RangeDecoder, Stream, digest, parse

F = np.float32
ACTIVATION = 8  # fractional bits of activations; they reach to 16


def snap(x: Array, bits: int = ACTIVATION, limit: float = 16) -> Array:
    return F(np.rint(np.clip(x, -limit, limit).astype(np.float64) * 2.0**bits) / 2.0**bits)


def exactly(x: Array) -> Array:
    """float64 -> float32, which must hold it."""
    out = F(x)
    assert np.array_equal(out.astype(np.float64), x)
    return out


def unfold(x: Array, r: int) -> Array:
    h, w, c = x.shape
    return x.reshape(h // r, r, w // r, r, c).transpose(0, 2, 1, 3, 4).reshape(h // r, w // r, r * r * c)


def fold(x: Array, r: int) -> Array:
    h, w, c = x.shape
    return x.reshape(h, w, r, r, c // r**2).transpose(0, 2, 1, 3, 4).reshape(h * r, w * r, c // r**2)


class Network:
    """Layers by name; `x` is (H, W, C), float32."""

    def __init__(self, tensors: dict[str, Array], prefix: str = ""):
        self.w = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        for name in [n.removesuffix(".weight") for n in self.w if n.endswith(".weight")]:
            weight, bias = self.w[f"{name}.weight"].astype(np.float64), self.w.get(f"{name}.bias")
            for row in range(len(weight)):
                b = np.float64(0 if bias is None else bias[row])
                bits = next(k for k in range(20, -9, -1) if self.reach(weight[row], b, k) <= 2**24)
                weight[row] = np.rint(weight[row] * 2.0**bits) / 2.0**bits
                if bias is not None:
                    self.w[f"{name}.bias"] = self.w[f"{name}.bias"].astype(np.float64)
                    self.w[f"{name}.bias"][row] = np.rint(b * 2.0 ** (bits + ACTIVATION)) / 2.0 ** (bits + ACTIVATION)
            self.w[f"{name}.weight"] = weight

    @staticmethod
    def reach(row: Array, bias: np.float64, k: int) -> float:
        return float(np.abs(np.rint(row * 2.0**k)).sum() * 2**12 + abs(np.rint(bias * 2.0 ** (k + ACTIVATION))))

    @staticmethod
    def on_grid(x: Array) -> Array:
        """float64 of activations, which must be whole units in range: else no sum would be sure to be exact."""
        units = x.astype(np.float64) * 2.0**ACTIVATION
        assert np.array_equal(units, np.rint(units)) and (units.size == 0 or np.abs(units).max() <= 2**12)
        return x.astype(np.float64)

    def linear(self, name: str, x: Array) -> Array:
        bias = self.w.get(f"{name}.bias", np.float64(0))
        return exactly(self.on_grid(x) @ self.w[f"{name}.weight"].T + bias)

    def depthwise(self, name: str, x: Array) -> Array:
        weight = self.w[f"{name}.weight"][:, 0]
        k, (h, w, _) = weight.shape[1], x.shape
        padded = np.pad(self.on_grid(x), ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        taps = (padded[i : i + h, j : j + w] * weight[:, i, j] for i in range(k) for j in range(k))
        return exactly(sum(taps) + self.w[f"{name}.bias"])

    def block(self, name: str, x: Array) -> Array:
        y = self.linear(f"{name}.expand", snap(self.depthwise(f"{name}.depthwise", x)))
        y = snap(np.where(y < 0, y * F(0.125), y))
        return snap(x + self.linear(f"{name}.reduce", y))

    def qp_vector(self, name: str, qp: int) -> Array:
        low, t = qp // 8, F(qp % 8 / 8)
        anchors = self.w[name]
        return anchors[low] * (F(1) - t) + anchors[low + 1] * t


def rms_norm(x: Array) -> Array:
    energy = (x.astype(np.float64) ** 2).sum(-1, keepdims=True) * (1 / x.shape[-1])
    return snap(x / F(np.sqrt(energy + 2.0**-10)))


# -- priors ------------------------------------------------------------------------------------------------------------


class Prior:
    def __init__(self, image: dict[str, Array], temporal: dict[str, Array] | None, stream: Stream, margin: int = 4):
        self.levels, self.margin = stream.levels, margin
        self.work = sorted({max(s, 8) for s, _ in self.levels})
        self.trunk = Network(image, "prior.") if temporal is None else Network(temporal, "trunk.")
        self.rest = Network(temporal or {})
        self.at(image, stream.qp)

    def at(self, image: dict[str, Array], qp: int) -> None:
        """Set the QP of the frames to come."""
        self.qp = qp
        # Rows gain, step, log2 gain of this QP.
        self.coding = [image[f"coding.{i}"][:, qp] for i in range(len(self.levels))]

    def frame(self, height: int, width: int, past: dict[int, Any]) -> Generator[tuple[Array, Array], Array, None]:
        """Yields the distribution of each level, coarse to fine, and is sent its latents; `past`: the memory."""
        t, top = self.trunk, self.work[-1]
        start = snap(t.w["start_vector"] + t.qp_vector(f"qp_vector.{top}.anchors", self.qp))
        hidden = np.broadcast_to(start, (height // top, width // top, start.size))
        for i in reversed(range(len(self.levels))):
            stride, work = self.levels[i][0], max(self.levels[i][0], 8)
            r, (gain, _, log2_gain) = work // stride, self.coding[i]
            if past:
                hidden = self.read(i, hidden, past[work])
            j = 0
            while f"blocks.{i}.{j}.expand.weight" in t.w:
                hidden = t.block(f"blocks.{i}.{j}", hidden)
                j += 1
            head = t.linear(f"heads.{i}", hidden)
            mean, scale = np.split(head, 2, axis=-1)
            if past:
                mean = self.expected(i, hidden, mean, past[work])
            mean, scale = fold(mean, r), fold(scale, r)
            latent = yield mean * gain, scale + (F(-3) + log2_gain)
            if i:
                hidden = snap(hidden + t.linear(f"embed.{i}", unfold(latent, r)))
                finer = max(self.levels[i - 1][0], 8)
                if finer != work:
                    hidden = fold(t.linear(f"up.{finer}", hidden), work // finer)
                    hidden = snap(hidden + t.qp_vector(f"qp_vector.{finer}.anchors", self.qp))

    def features(self, latents: list[Array]) -> dict[int, Array]:
        maps: dict[int, Array] = {}
        for work in reversed(self.work):
            x: Array | None = None
            for i, (stride, _) in enumerate(self.levels):
                if max(stride, 8) == work:
                    y = self.rest.linear(f"features.embed.{i}", unfold(latents[i], work // stride))
                    x = y if x is None else x + y
            assert x is not None
            if f"features.up.{work}.weight" in self.rest.w:
                coarse = self.work[self.work.index(work) + 1]
                x = x + fold(self.rest.linear(f"features.up.{work}", maps[coarse]), coarse // work)
            maps[work] = self.rest.block(f"features.blocks.{work}", snap(x))
        return maps

    def null(self, height: int, width: int) -> dict[int, Array]:
        nulls = {s: snap(self.rest.w[f"null.{s}"]) for s in self.work}
        return {s: np.broadcast_to(v, (height // s, width // s, v.size)) for s, v in nulls.items()}

    def read(self, i: int, hidden: Array, memory: Any) -> Array:
        return snap(hidden + self.rest.linear(f"readers.{i}", memory))

    def expected(self, i: int, hidden: Array, mean: Array, memory: Any) -> Array:
        return mean


class NonePrior(Prior):
    def start(self, height: int, width: int) -> Any:
        return None

    def memory(self, state: Any) -> dict[int, Array]:
        return {}

    def update(self, state: Any, latents: list[Array]) -> Any:
        return None


class LSTMPrior(Prior):
    def start(self, height: int, width: int) -> Any:
        return {s: tuple(np.split(v, 2, axis=-1)) for s, v in self.null(height, width).items()}

    def memory(self, state: Any) -> dict[int, Array]:
        return {s: self.rest.block(f"refine.{s}", hidden) for s, (hidden, _) in state.items()}

    def update(self, state: Any, latents: list[Array]) -> Any:
        return {s: lstm_cell(self.rest, f"cells.{s}", x, *state[s]) for s, x in self.features(latents).items()}


def lstm_cell(net: Network, name: str, x: Array, hidden: Array, cell: Array) -> tuple[Array, Array]:
    def ramp(z: Array) -> Array:
        return np.clip(F(0.5) + F(0.25) * z, 0, 1)

    joined = np.concatenate([x, hidden], -1)
    gates = net.linear(f"{name}.gates", snap(joined + net.depthwise(f"{name}.spread", joined)))
    into, keep, show, candidate = np.split(gates, 4, axis=-1)
    cell = snap(ramp(keep) * cell + ramp(into) * np.clip(candidate, -4, 4))
    return snap(ramp(show) * np.clip(cell, -8, 8)), cell


class TransformerPrior(Prior):
    CONTEXT = 2

    def start(self, height: int, width: int) -> Any:
        return [self.null(height, width)] * self.CONTEXT

    def memory(self, state: Any) -> dict[int, Array]:
        fused = {s: snap(self.rest.linear(f"fuse.{s}.0", np.concatenate([m[s] for m in state], -1))) for s in self.work}
        return {s: self.rest.block(f"fuse.{s}.1", x) for s, x in fused.items()}

    def update(self, state: Any, latents: list[Array]) -> Any:
        return [self.features(latents), *state[:-1]]

    def read(self, i: int, hidden: Array, memory: Array) -> Array:
        if f"readers.{i}.query.weight" not in self.rest.w:
            return super().read(i, hidden, memory)
        net, name, m = self.rest, f"readers.{i}", self.margin
        height, width, channels = hidden.shape
        bottom, right = -height % 4, -width % 4
        bias = snap(net.w[f"{name}.bias"] * F(1 / 16), 19, 1)
        heads, reach, size = bias.shape[0], 4 + m - 1, 4 + 2 * m
        query = snap(net.linear(f"{name}.query", rms_norm(hidden)), 6, 8) * F(1 / 128)
        query = np.pad(query, ((0, bottom), (0, right), (0, 0)))
        normed, around = rms_norm(memory), ((m, m + bottom), (m, m + right), (0, 0))
        key = np.pad(snap(net.linear(f"{name}.key", normed), 6, 8), around).astype(np.float64)
        value = np.pad(snap(net.linear(f"{name}.value", normed), 6, 4), around).astype(np.float64)
        mixed = np.zeros((height + bottom, width + right, channels), F)
        bits = next(b for b in range(16, 0, -1) if size * size <= 2 ** (16 - b))
        for y, x, h in np.ndindex((height + bottom) // 4, (width + right) // 4, heads):
            part = slice(h * channels // heads, (h + 1) * channels // heads)
            k, v = (z[4 * y : 4 * y + size, 4 * x : 4 * x + size, part].reshape(size * size, -1) for z in (key, value))
            for dy, dx in np.ndindex(4, 4):
                q = query[4 * y + dy, 4 * x + dx, part]
                rows = np.arange(size) - m - dy + reach
                columns = np.arange(size) - m - dx + reach
                place = (rows[:, None] * (2 * reach + 1) + columns[None]).reshape(-1)
                logits = exactly(k @ q.astype(np.float64) + bias[h, place])  # in sixteenths
                weight = np.maximum(logits - (logits.max() - F(1)), F(0))
                for _ in range(4):
                    weight = weight * weight
                weight = snap(weight, bits, 1).astype(np.float64)
                mixed[4 * y + dy, 4 * x + dx, part] = snap(exactly(weight @ v) / exactly(weight.sum()))
        seen = net.linear(f"{name}.out", mixed[:height, :width])
        return snap(hidden + seen + net.linear(f"{name}.same_place", memory))


KINDS: dict[str, type[Any]] = {
    "none": NonePrior,
    "lstm": LSTMPrior,
    "transformer": TransformerPrior,
}


def read(data: bytes, model: Path) -> tuple[Stream, dict[str, Array], dict[str, Array] | None, dict[str, Any]]:
    """The stream; tensors of its image and temporal stage, which must be those that wrote it; the latter's options."""
    stream = parse(data)
    image_digest, image, _ = digest(model / "image_stage")
    temporal_digest, temporal, options = b"", None, {}
    if stream.kind != "none":
        temporal_digest, temporal, config = digest(model / "temporal" / stream.kind)
        options = config["options"]
        assert config["image_stage"] == image_digest.hex()
    assert hashlib.sha256(image_digest + temporal_digest).digest()[:16] == stream.fingerprint
    return stream, image, temporal, options


def decode(data: bytes, model: Path) -> list[list[Array]]:
    """Symbols (H_l, W_l, C_l) of every frame and level (fine to coarse) of the padded picture. Versions 2 to 4."""
    stream, image, temporal, options = read(data, model)
    multiple = max(s for s, _ in stream.levels)
    prior = KINDS[stream.kind](image, temporal, stream, **{k: v for k, v in options.items() if k == "margin"})
    height, width = (side + -side % multiple for side in (stream.height, stream.width))
    frames, null = [], prior.start(height, width)
    state = null
    alone = NonePrior(image, None, stream)
    for packets in zip(*[packets for _, packets in stream.sections], strict=True):
        decoders: dict[int, RangeDecoder] = {}
        for packet, (levels, _) in zip(packets, stream.sections, strict=True):
            decoders |= dict.fromkeys(levels, RangeDecoder(packet[4]))
        crcs = [0] * len(packets)
        for t in range(packets[0][0]):
            mode = sum(packet[3][t] for packet in packets)
            memory = prior.memory(state if stream.context else null)
            both = prior.frame(height, width, memory), alone.frame(height, width, {})
            symbols: list[Array] = [np.zeros(0)] * len(stream.levels)
            latents: list[Array] = [np.zeros(0)] * len(stream.levels)
            said = [next(one) for one in both]
            for i in reversed(range(len(stream.levels))):
                mean, scale = said[mode >> i & 1]
                kept = stream.kept[i]
                coded = decoders[i].level(mean[..., :kept], scale[..., :kept], stream.skip)
                symbols[i] = np.pad(coded, ((0, 0), (0, 0), (0, stream.levels[i][1] - kept)))
                latents[i] = snap(F(symbols[i]) * prior.coding[i][1])
                if i:
                    said = [one.send(latents[i]) for one in both]
            state = prior.update(state, latents)
            for s, (packet, (levels, _)) in enumerate(zip(packets, stream.sections, strict=True)):
                for i in reversed(levels):
                    crcs[s] = zlib.crc32(symbols[i][..., : stream.kept[i]].astype("<i2").tobytes(), crcs[s])
                assert crcs[s] & 255 == packet[2][t]
            frames.append(symbols)
        assert crcs == [packet[1] for packet in packets]
    return frames
