"""Range coding: whatever distributions and symbols, what went in comes out; sizes are those of information theory."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlbc.codec.entropy import coder
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.entropy.tables import tables
from vidlbc.codec.prior.topdown import symbol_bits
from vidlbc.errors import BitstreamError


def quantised(mean: np.ndarray, log2_scale: np.ndarray) -> coder.CodedParameters:
    return coder.quantise(Distribution(torch.from_numpy(mean), torch.from_numpy(log2_scale)))


def on_grid(x: np.ndarray) -> np.ndarray:
    return np.round(x * 4096) / 4096


@st.composite
def levels(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Up to four levels of up to 40 symbols, with means and scales that need not fit them, ends of ranges among them.

    Drawn by a seed: Hypothesis takes most of its time for arrays of its own.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wild = draw(st.sampled_from([0.0, 0.5, 1.0]))
    out = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 40))
        far, end = rng.random(size) < wild, rng.random(size) < 0.1
        limit = coder.SYMBOL_LIMIT
        symbols = np.where(far, rng.integers(-limit, limit + 1, size), rng.integers(-6, 7, size))
        symbols = np.where(end, rng.choice([-limit, 0, limit], size), symbols).astype(np.int32)
        means = np.where(far, rng.uniform(-2048, 2048, size), rng.uniform(-8, 8, size))
        scales = np.where(end, rng.choice([-12.0, 14.0], size), rng.uniform(-12, 14, size))
        out.append((symbols, on_grid(means), on_grid(scales)))
    return out


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(levels())
def test_what_goes_in_comes_out(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    encoder = coder.Encoder()
    for symbols, mean, log2_scale in parts:
        encoder.encode(symbols, quantised(mean, log2_scale))
    payload = encoder.finish()
    decoder = coder.Decoder(payload)
    for symbols, mean, log2_scale in parts:
        np.testing.assert_array_equal(decoder.decode(quantised(mean, log2_scale)), symbols)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), levels())
def test_arbitrary_bytes_never_crash_the_decoder(
    payload: bytes, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    decoder = coder.Decoder(payload)
    for symbols, mean, log2_scale in parts:
        try:
            decoded = decoder.decode(quantised(mean, log2_scale))
        except BitstreamError as error:
            assert "range coder: invalid data" in str(error)
            return
        assert decoded.shape == symbols.shape


@settings(max_examples=200, deadline=None)
@given(st.floats(-2047, 2047), st.floats(-12, 14))
def test_parameters_are_rounded_to_the_nearest_table(mean: float, log2_scale: float) -> None:
    """The table's own mean and scale are within half a step of those asked for, unless out of the tables' range."""
    mean, log2_scale = float(on_grid(np.array(mean))), float(on_grid(np.array(log2_scale)))
    p = quantised(np.array([mean]), np.array([log2_scale]))
    scale_index, fraction = divmod(int(p.table[0]), 9)
    assert abs(int(p.centre[0]) + int(p.flip[0]) * fraction / 16 - mean) <= 1 / 32
    assert abs(scale_index / 8 - 5 - min(max(log2_scale, -5), 6)) <= 1 / 16


def test_symbols_over_sixteen_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="symbol 32768 exceeds 32767"):
        coder.Encoder().encode(np.array([32768], np.int32), quantised(np.zeros(1), np.zeros(1)))


def test_no_symbol_is_no_byte() -> None:
    empty = quantised(np.zeros(0), np.zeros(0))
    encoder = coder.Encoder()
    encoder.encode(np.zeros(0, np.int32), empty)
    assert encoder.finish() == b""
    assert coder.Decoder(b"").decode(empty).size == 0


def test_file_size_is_the_ideal_code_length() -> None:
    """200 000 symbols drawn from the distributions themselves: the bytes are within 0.5% of the estimate."""
    rng = np.random.default_rng(5)
    count = 200_000
    mean, log2_scale = on_grid(rng.normal(0, 3, count)), on_grid(rng.uniform(-4, 5, count))
    uniform = rng.uniform(1e-9, 1 - 1e-9, count)
    symbols = np.round(mean + 2**log2_scale * np.log(uniform / (1 - uniform))).astype(np.int32)
    encoder = coder.Encoder()
    encoder.encode(symbols, quantised(mean, log2_scale))
    bits = 8 * len(encoder.finish())
    distribution = Distribution(torch.from_numpy(mean).float(), torch.from_numpy(log2_scale).float())
    ideal = float(symbol_bits(torch.from_numpy(symbols).float(), distribution).double().sum())
    assert bits == pytest.approx(ideal, rel=0.005)


def test_an_outlier_costs_about_five_bytes_not_the_stream() -> None:
    """Escape entry (at most 24 bits) and 16 plain bits."""
    mean, log2_scale = np.zeros(1000), np.full(1000, -2.0)
    sizes = []
    for outlier in (0, -30_000):
        encoder, symbols = coder.Encoder(), np.zeros(1000, np.int32)
        symbols[500] = outlier
        encoder.encode(symbols, quantised(mean, log2_scale))
        sizes.append(len(encoder.finish()))
    assert sizes[1] - sizes[0] <= 9  # 5 bytes, and up to a word of the coder's last flush


# SHA-256 of the payload below: pins constriction's algorithm, the order of coding and the order of bytes in a word.
PAYLOAD_SHA256 = "e94f4070de9ff032ec1a7ee5e9c53924638023c086247601d6423ee42013ec68"


def test_payload_bytes_are_pinned() -> None:
    count = 4000
    raw = (np.random.Philox(key=77).random_raw(3 * count) >> np.uint64(44)).astype(np.int64).reshape(3, count)
    mean, log2_scale = (raw[0] % 65536 - 32768) / 4096, (raw[1] % 49152) / 4096 - 5.5
    symbols = np.where(raw[2] % 97 == 0, raw[2] % 65535 - 32767, raw[2] % 13 - 6).astype(np.int32)
    encoder, parameters = coder.Encoder(), quantised(mean, log2_scale)
    encoder.encode(symbols, parameters)
    payload = encoder.finish()
    np.testing.assert_array_equal(coder.Decoder(payload).decode(parameters), symbols)
    assert len(np.unique(parameters.table)) > 700 and len(tables()) == 801  # nearly every table is in use
    assert hashlib.sha256(payload).hexdigest() == PAYLOAD_SHA256
