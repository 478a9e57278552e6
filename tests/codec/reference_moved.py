"""Streams of version 5 of docs/bitstream.md in numpy: the kinds that predict from moved pictures; bytes to symbols."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.codec.reference_motion import Vectors, analysed, clipped, commonest, moved_picture, reference_picture
from tests.codec.reference_priors import F, NonePrior, Prior, exactly, lstm_cell, read, rms_norm, snap, unfold
from tests.codec.reference_stream import Array, RangeDecoder

KEY, STILL, MOVED = 0, 1, 2


class MovedPrior(Prior):
    """Memories hold, by working stride, the token, the state moved, and predicted latents by level."""

    def look(
        self, reference: Array, field: Array, state: dict[int, Any]
    ) -> tuple[Array, dict[int, Any], dict[int, Any]]:
        """The moved picture, the state moved, and the memory."""
        picture = moved_picture(reference, field)
        latents, features = analysed(self.rest, picture)
        vectors, side, moved, memory = field, 8, {}, {}
        for s in self.work:
            while side < s:
                vectors, side = commonest(vectors), 2 * side
            here = [i for i, (stride, _) in enumerate(self.levels) if max(stride, 8) == s]
            predicted = {i: unfold(latents[i], s // self.levels[i][0]) for i in here}
            joined = np.concatenate([*predicted.values(), features[max(here)]], -1)
            token = self.rest.block(f"block.{s}", snap(self.rest.linear(f"enter.{s}", joined)))
            moved[s] = tuple(moved_cells(x, vectors, s) for x in state[s])
            memory[s] = token, moved[s], predicted
        return picture, moved, memory

    def expected(self, i: int, hidden: Array, mean: Array, memory: Any) -> Array:
        return mean + snap(self.rest.linear(f"gates.{i}", hidden)) * memory[2][i]


def moved_cells(x: Array, vectors: Array, stride: int) -> Array:
    out = np.zeros_like(x)
    for y, c in np.ndindex(*x.shape[:2]):
        down, across = ((int(v) + 2 * stride) // (4 * stride) for v in vectors[y, c])
        out[y, c] = x[clipped(y + down, x.shape[0]), clipped(c + across, x.shape[1])]
    return out


class MovedLSTM(MovedPrior):
    def begin(self, latents: list[Array]) -> dict[int, Any]:
        maps = self.features(latents)
        return {s: lstm_cell(self.rest, f"cells.{s}", x, np.zeros_like(x), np.zeros_like(x)) for s, x in maps.items()}

    def advance(self, state: dict[int, Any], latents: list[Array]) -> dict[int, Any]:
        return {s: lstm_cell(self.rest, f"cells.{s}", x, *state[s]) for s, x in self.features(latents).items()}

    def read(self, i: int, hidden: Array, memory: Any) -> Array:
        token, (state, _), _ = memory
        past = self.rest.block(f"refine.{max(self.levels[i][0], 8)}", state)
        direct = snap(self.rest.linear(f"readers.{i}", past) + self.rest.linear(f"leave.{i}", token))
        return snap(hidden + direct)


class MovedTransformer(MovedPrior):
    def __init__(self, *arguments: Any, context: int = 2):
        super().__init__(*arguments)
        self.context = context

    def begin(self, latents: list[Array]) -> dict[int, Any]:
        return {s: (x,) * self.context for s, x in self.features(latents).items()}

    def advance(self, state: dict[int, Any], latents: list[Array]) -> dict[int, Any]:
        return {s: (x, *state[s][:-1]) for s, x in self.features(latents).items()}

    def read(self, i: int, hidden: Array, memory: Any) -> Array:
        net, name, (token, state, _) = self.rest, f"readers.{i}", memory
        hidden = snap(hidden + net.linear(f"leave.{i}", token))
        query = snap(net.linear(f"{name}.query", rms_norm(hidden)), 6, 8) * F(1 / 128)
        past = [rms_norm(x) for x in (token, *state)]
        keys = [snap(net.linear(f"{name}.key", x), 6, 8) for x in past]
        values = [snap(net.linear(f"{name}.value", x), 6, 4) for x in past]
        age = snap(net.w[f"{name}.age"] * F(1 / 16), 19, 1)
        bits = 16 - next(b for b in range(16) if len(past) <= 2**b)
        mixed = np.zeros_like(hidden)
        size = hidden.shape[-1] // age.shape[1]
        for head in range(age.shape[1]):
            part = slice(size * head, size * head + size)
            q = query[..., part].astype(np.float64)
            logits = [exactly((q * k[..., part]).sum(-1) + age[t, head]) for t, k in enumerate(keys)]
            least = np.max(logits, 0) - F(1)
            weights = [np.maximum(logit - least, F(0)) for logit in logits]
            for _ in range(4):
                weights = [w * w for w in weights]
            weights = [snap(w, bits, 1).astype(np.float64)[..., None] for w in weights]
            top = exactly(sum(w * v[..., part] for w, v in zip(weights, values, strict=True)))
            mixed[..., part] = snap(top / exactly(sum(weights)))
        return snap(hidden + net.linear(f"{name}.out", mixed))


def decode(data: bytes, model: Path) -> list[list[Array]]:
    """Symbols (H_l, W_l, C_l) of every frame and level (fine to coarse) of the padded picture. Version 5."""
    stream, image, temporal, options = read(data, model)
    assert stream.version == 5 and [s for s, _ in stream.levels] == [4, 8, 16, 32]
    prior: Any = {"lstm": MovedLSTM, "transformer": MovedTransformer}[stream.kind](
        image, temporal, stream, **{k: v for k, v in options.items() if k == "context"}
    )
    alone = NonePrior(image, None, stream)
    height, width = (side + -side % 32 for side in (stream.height, stream.width))
    still, past, frames = np.zeros((height // 8, width // 8, 2), np.int64), None, []
    ((_, packets),) = stream.sections
    for count, packet_crc, checks, kinds, payload in packets:
        decoder, crc = RangeDecoder(payload), 0
        for t in range(count):
            field, picture, moved, memory = still, None, None, {}
            if kinds[t] != KEY:
                assert kinds[t] in (STILL, MOVED) and past is not None
                reference, before, state = past
                if kinds[t] == MOVED:
                    field = Vectors(prior.rest, stream.qp, decoder, before).field()
                    crc = zlib.crc32(field.astype("<i2").tobytes(), crc)
                picture, moved, memory = prior.look(reference, field, state)
            said = (alone if kinds[t] == KEY else prior).frame(height, width, memory)
            symbols: list[Array] = [np.zeros(0)] * 4
            latents: list[Array] = [np.zeros(0)] * 4
            mean, scale = next(said)
            for i in reversed(range(4)):
                kept = stream.kept[i]
                coded = decoder.level(mean[..., :kept], scale[..., :kept], 0)
                crc = zlib.crc32(coded.astype("<i2").tobytes(), crc)
                symbols[i] = np.pad(coded, ((0, 0), (0, 0), (0, stream.levels[i][1] - kept)))
                latents[i] = snap(F(symbols[i]) * prior.coding[i][1])
                if i:
                    mean, scale = said.send(latents[i])
            assert crc & 255 == checks[t]
            if stream.context:
                state = prior.begin(latents) if moved is None else prior.advance(moved, latents)
                past = reference_picture(prior.rest, stream.qp, latents, picture), field, state
            frames.append(symbols)
        assert crc == packet_crc
    return frames
