"""Streams of versions 5 and 6 of docs/bitstream.md in numpy, of kinds that predict from moved pictures."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.codec.reference_motion import (
    LIMIT,
    Vectors,
    analysed,
    commonest,
    copied_blocks,
    moved_cells,
    moved_picture,
    reference_picture,
)
from tests.codec.reference_priors import F, NonePrior, Prior, exactly, lstm_cell, read, rms_norm, snap, unfold
from tests.codec.reference_stream import Array, RangeDecoder

KEY, STILL, MOVED, REPEATED = 0, 1, 2, 3


class MovedPrior(Prior):
    """Memories hold, by working stride, the token, the state moved, and predicted latents by level."""

    overlap = False

    def look(
        self, reference: Array, field: Array, copied: Array, state: dict[int, Any]
    ) -> tuple[Array, list[Array], dict[int, Any], dict[int, Any]]:
        """The moved picture, its latents, the state moved, and the memory."""
        picture = moved_picture(reference, field, self.overlap)
        latents, features = analysed(self.rest, picture)
        vectors, side, moved, memory = field, 8, {}, {}
        for s in self.work:
            while side < s:
                vectors, side = commonest(vectors), 2 * side
            here = [i for i, (stride, _) in enumerate(self.levels) if max(stride, 8) == s]
            predicted = {i: unfold(latents[i], s // self.levels[i][0]) for i in here}
            joined = np.concatenate([*predicted.values(), features[max(here)]], -1)
            if "motion.copies.passes.0.enter.weight" in self.rest.w:
                joined = np.concatenate([joined, share_copied(copied, s)[..., None]], -1)
            token = self.rest.block(f"block.{s}", snap(self.rest.linear(f"enter.{s}", joined)))
            moved[s] = tuple(moved_cells(x, vectors, s) for x in state[s])
            memory[s] = token, moved[s], predicted
        return picture, latents, moved, memory

    def expected(self, i: int, hidden: Array, mean: Array, memory: Any) -> Array:
        return mean + snap(self.rest.linear(f"gates.{i}", hidden)) * memory[2][i]


def share_copied(copied: Array, stride: int) -> Array:
    """Of each cell of a stride."""
    if stride > 16:
        rows, columns = copied.shape
        return F(copied.reshape(rows // 2, 2, columns // 2, 2).mean((1, 3)))
    return F(copied.repeat(16 // stride, 0).repeat(16 // stride, 1))


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
    """Symbols (H_l, W_l, C_l) of every frame and level (fine to coarse) of the padded picture. Versions 5 and 6."""
    return [symbols for symbols, _ in decode_shown(data, model)]


def decode_shown(data: bytes, model: Path) -> list[tuple[list[Array], Array | None]]:
    """Symbols and the reference picture of every frame, uint8 (H, W, 3), padded; None without context."""
    stream, image, temporal, options = read(data, model)
    assert stream.version in (5, 6) and [s for s, _ in stream.levels] == [4, 8, 16, 32]
    prior: Any = {"lstm": MovedLSTM, "transformer": MovedTransformer}[stream.kind](
        image, temporal, stream, **{k: v for k, v in options.items() if k == "context"}
    )
    prior.overlap = options["motion"].get("overlap", False)
    alone = NonePrior(image, None, stream)
    height, width = (side + -side % 32 for side in (stream.height, stream.width))
    still, none = np.zeros((height // 8, width // 8, 2), np.int64), np.zeros((height // 16, width // 16), bool)
    past: Any = None
    frames: list[tuple[list[Array], Array | None]] = []
    ((_, packets),) = stream.sections
    for count, packet_crc, checks, kinds, payload, own in packets:
        decoder, crc = RangeDecoder(payload), 0
        for t in range(count):
            qp, light = own[t]
            if kinds[t] == REPEATED:
                assert stream.version > 5 and past is not None and crc & 255 == checks[t]
                frames.append(frames[-1])
                continue
            for one in (prior, alone):
                one.at(image, qp)
            field, copied, picture, predicted, moved, memory = still, none, None, [], None, {}
            if kinds[t] != KEY:
                assert past is not None
                reference, before, flags, state = past
                if light:
                    gains, offsets = np.frombuffer(light[:3], np.uint8), np.frombuffer(light[3:], np.int8)
                    reference = ((reference.astype(np.int64) * gains + 32 >> 6) + offsets).clip(0, 255).astype(np.uint8)
                if kinds[t] == MOVED:
                    field = Vectors(prior.rest, qp, decoder, before).field()
                    crc = zlib.crc32(field.astype("<i2").tobytes(), crc)
                if stream.version > 5:
                    copied = copied_blocks(prior.rest, qp, decoder, flags, field)
                    crc = zlib.crc32(copied.astype("<i2").tobytes(), crc)
                picture, predicted, moved, memory = prior.look(reference, field, copied, state)
            said = (alone if kinds[t] == KEY else prior).frame(height, width, memory)
            symbols: list[Array] = [np.zeros(0)] * 4
            latents: list[Array] = [np.zeros(0)] * 4
            mean, scale = next(said)
            for i in reversed(range(4)):
                kept, (gain, step, _) = stream.kept[i], prior.coding[i]
                left = share_copied(copied, stream.levels[i][0]) == 1
                coded = np.zeros(mean[..., :kept].shape, np.int64)
                if left.any():
                    coded[left] = np.clip(np.rint(predicted[i] * gain), -LIMIT, LIMIT)[..., :kept][left]
                coded[~left] = decoder.level(mean[~left][:, :kept], scale[~left][:, :kept], 0)
                crc = zlib.crc32(coded.astype("<i2").tobytes(), crc)
                symbols[i] = np.pad(coded, ((0, 0), (0, 0), (0, stream.levels[i][1] - kept)))
                latents[i] = snap(F(symbols[i]) * step)
                if i:
                    mean, scale = said.send(latents[i])
            assert crc & 255 == checks[t]
            reference = None
            if stream.context:
                state = prior.begin(latents) if moved is None else prior.advance(moved, latents)
                reference = reference_picture(prior.rest, qp, latents, picture)
                if picture is not None:
                    shown = np.clip(np.rint(picture * F(255 / 16) + F(127.5)), 0, 255).astype(np.uint8)
                    reference = np.where(copied.repeat(16, 0).repeat(16, 1)[..., None], shown, reference)
                past = reference, field, copied, state
            frames.append((symbols, reference))
        assert crc == packet_crc
    return frames
