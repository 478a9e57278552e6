"""Symbols a second of the range coders alone, on the same symbols: no network in the way.

    vidlbc            Encoder and Decoder of vidlbc.codec.entropy (constriction), parameters already quantised
    CompressAI rANS   its C++ coder with Python lists already built: the coder itself
    CompressAI        as its entropy models call it: tensors to lists, and the table to lists, at every call

The symbols are logistic, vidlbc's own family; CompressAI codes round(y - mean) under the Gaussian of the same variance,
which costs it a few percent of bits here and nothing in speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

CHUNK = 40 * 32 * 32  # symbols of one call: a 40-channel level at stride 8 of a 256x256 frame


@dataclass(frozen=True)
class CoderSpeed:
    """Million symbols a second; `bits_per_symbol` from the bytes written. Ratios: vidlbc's speed over this one's."""

    name: str
    encode_msps: float
    decode_msps: float
    bits_per_symbol: float
    encode_ratio: float = 1.0
    decode_ratio: float = 1.0


@dataclass(frozen=True)
class _Symbols:
    """Chunks of (values, means, log2 of scales), the values rounded draws of those logistic distributions."""

    chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    @property
    def count(self) -> int:
        return sum(len(values) for values, _, _ in self.chunks)


def draw_symbols(count: int, seed: int = 0) -> _Symbols:
    """`count` symbols (rounded up to whole chunks) with scales log-uniform from 1/16 to 4."""
    rng = np.random.default_rng(seed)
    chunks = []
    for _ in range(-(-count // CHUNK)):
        log2_scale = rng.uniform(-4, 2, CHUNK)
        mean = rng.normal(0, 2, CHUNK)
        values = np.round(rng.logistic(mean, 2**log2_scale)).astype(np.int32)
        chunks.append((values, mean, log2_scale))
    return _Symbols(chunks)


def race_coders(count: int, rounds: int) -> list[CoderSpeed]:
    """Every coder on the same symbols; decoded symbols are checked against what was encoded."""
    symbols = draw_symbols(count)
    makers: list[Callable[[_Symbols], tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]]] = [
        _vidlbc,
        _compressai_coder,
        _compressai_as_called,
    ]
    found: list[tuple[str, float, float, float]] = []
    for make in makers:
        name, encode, decode = make(symbols)
        decode(encode())  # builds tables, once a process
        encode_times, decode_times, size = [], [], 0
        for _ in range(rounds):
            start = time.perf_counter()
            coded = encode()
            middle = time.perf_counter()
            decoded = decode(coded)
            decode_times.append(time.perf_counter() - middle)
            encode_times.append(middle - start)
            size = sum(len(part) for part in coded)
            expected = _expected(symbols, name)
            if not all(np.array_equal(np.asarray(a), b) for a, b in zip(decoded, expected, strict=True)):
                raise RuntimeError(f"{name} did not decode what it encoded")
        rates = (symbols.count / median(encode_times) / 1e6, symbols.count / median(decode_times) / 1e6)
        found.append((name, *rates, 8 * size / symbols.count))
    ours = found[0]
    return [CoderSpeed(*row, ours[1] / row[1], ours[2] / row[2]) for row in found]


def _expected(symbols: _Symbols, name: str) -> list[np.ndarray]:
    if name == "vidlbc":
        return [values for values, _, _ in symbols.chunks]
    return [_residual(values, mean) for values, mean, _ in symbols.chunks]


def _residual(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """CompressAI codes round(y - mean) under the scale alone."""
    return np.round(values - mean).astype(np.int32)


def _vidlbc(symbols: _Symbols) -> tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]:
    import torch

    from vidlbc.codec.entropy import coder
    from vidlbc.codec.entropy.distribution import Distribution

    parameters = [
        coder.quantise(Distribution(torch.from_numpy(mean), torch.from_numpy(log2_scale)))
        for _, mean, log2_scale in symbols.chunks
    ]

    def encode() -> list[bytes]:
        out = []
        for (values, _, _), p in zip(symbols.chunks, parameters, strict=True):
            encoder = coder.Encoder()
            encoder.encode(values, p)
            out.append(encoder.finish())
        return out

    def decode(coded: list[bytes]) -> list[Any]:
        return [coder.Decoder(data).decode(p) for data, p in zip(coded, parameters, strict=True)]

    return "vidlbc", encode, decode


def _gaussian() -> Any:
    from vidlbc.codec.image_stage.compressai_families import import_compressai

    table = np.exp(np.linspace(np.log(0.11), np.log(256), 64)).tolist()
    model = import_compressai().entropy_models.GaussianConditional(table)
    model.update()
    return model


def _compressai_coder(symbols: _Symbols) -> tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]:
    from compressai import ans

    model = _gaussian()
    tables = (model._quantized_cdf.tolist(), model._cdf_length.int().tolist(), model._offset.int().tolist())
    lists = [(_residual(v, m).tolist(), _indexes(model, s)) for v, m, s in symbols.chunks]

    def encode() -> list[bytes]:
        return [ans.RansEncoder().encode_with_indexes(values, indexes, *tables) for values, indexes in lists]

    def decode(coded: list[bytes]) -> list[Any]:
        return [
            ans.RansDecoder().decode_with_indexes(data, indexes, *tables)
            for data, (_, indexes) in zip(coded, lists, strict=True)
        ]

    return "CompressAI rANS, lists ready", encode, decode


def _compressai_as_called(symbols: _Symbols) -> tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]:
    import torch

    model = _gaussian()
    tensors = [
        (torch.from_numpy(_residual(v, m)).float()[None], torch.tensor(_indexes(model, s), dtype=torch.int32)[None])
        for v, m, s in symbols.chunks
    ]

    def encode() -> list[bytes]:
        return [model.compress(values, indexes)[0] for values, indexes in tensors]

    def decode(coded: list[bytes]) -> list[Any]:
        return [model.decompress([data], indexes)[0].numpy() for data, (_, indexes) in zip(coded, tensors, strict=True)]

    return "CompressAI, as its models call it", encode, decode


def _indexes(model: Any, log2_scale: np.ndarray) -> list[int]:
    import torch

    deviation = 2.0**log2_scale * (np.pi / np.sqrt(3))  # of a logistic distribution of this scale
    return model.build_indexes(torch.from_numpy(deviation).float()).tolist()
