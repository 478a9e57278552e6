"""What mutated input once did to the readers: reserve memory, run for minutes, end in a stack trace."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save

import vidlbc
from vidlbc.codec.bitstream import Header, Packet, Reader, end_bytes
from vidlbc.codec.bitstream.container import varint
from vidlbc.errors import BitstreamError, InputError, ShardError
from vidlbc.qa.fuzz.corpus import FRAMES, HEIGHT, WIDTH, Corpus
from vidlbc.qa.fuzz.records import join, parse
from vidlbc.shards import LatentShards, decode_shards, gather
from vidlbc.shards.decode import clip_rate, videos_of
from vidlbc.shards.plan import Plan
from vidlbc.shards.symbol_cache import SymbolCache


def forged(data: bytes, **fields: int) -> bytes:
    """Header fields changed, its checksum mended."""
    records, _ = parse(data)
    for name, value in fields.items():
        records[0].set(name, varint(value))
    return join(records)


# -- bitstreams ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "lstm", "transformer_layers"])
@pytest.mark.parametrize("read", ["symbols", "latents", "padded_symbols", "decompress"])
def test_a_forged_size_is_refused_before_anything_is_reserved(corpus: Corpus, name: str, read: str) -> None:
    codec, data = corpus.codecs[name], forged(corpus.streams[name], height=65536, width=65535)
    tracemalloc.start()
    with pytest.raises(BitstreamError, match=r"frames of 65535x65536, 4294967296 pixels .* max_pixels=67108864$"):
        getattr(codec, read)(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.slow
def test_the_limit_is_of_padded_frames_and_can_be_set(corpus: Corpus) -> None:
    model, data = corpus.folder / "models" / "plain", corpus.streams["none"]
    assert (HEIGHT, WIDTH) == (20, 37)  # padded to 32 x 64
    assert len(vidlbc.load(model, "cpu", "none", max_pixels=32 * 64).decompress(data)) == FRAMES
    with pytest.raises(BitstreamError, match="37x20, 2048 pixels when padded: the limit is max_pixels=2047"):
        vidlbc.load(model, "cpu", "none", max_pixels=32 * 64 - 1).decompress(data)
    with pytest.raises(InputError, match="max_pixels=0: expected at least 1"):
        vidlbc.load(model, "cpu", "none", max_pixels=0)


def test_a_file_that_promises_a_large_packet_reserves_none_of_it(tmp_path: Path) -> None:
    """A buffered file makes room for all that is asked of it."""
    header = Header(65536, 65536, 0, bytes(16), "none", ((4, 4096),))
    start = b"\x50" + varint(255) + varint(1 << 40) + bytes(4 + 255 + 32)
    (tmp_path / "a.vlbc").write_bytes(header.to_bytes() + start + bytes(3 << 20))
    tracemalloc.start()
    with (
        open(tmp_path / "a.vlbc", "rb") as file,
        pytest.raises(BitstreamError, match=r"the packet needs 1099511627776 bytes at offset \d+, 3145728 are left"),
    ):
        vidlbc.inspect(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_packet_of_nothing_but_escapes_is_read() -> None:
    """24 bits of the escape entry and 16 plain ones: five bytes a symbol, of 2^20 symbols."""
    header = Header(1024, 1024, 0, bytes(16), "none", ((1, 1),))
    packet = Packet(1, 0, bytes(1), bytes(1), bytes(5 << 20))
    (read,) = Reader(header.to_bytes() + packet.to_bytes() + end_bytes(1)).packets()
    assert read == packet


# -- plans and stats -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(corpus: Corpus, tmp_path: Path) -> Path:
    shutil.copytree(corpus.folder / "shards", tmp_path / "shards")
    return tmp_path / "shards"


def changed(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"null", b"[]", b'"x"'])
def test_json_of_any_other_form(corpus: Corpus, folder: Path, text: bytes) -> None:
    plan, stats = folder / "manifest" / "plan.json", folder / "00000_stats.json"
    whole = plan.read_bytes()
    plan.write_bytes(text)
    with pytest.raises(ShardError, match="damaged plan|plan format"):
        LatentShards(folder)
    plan.write_bytes(whole)
    stats.write_bytes(text)
    with pytest.raises(ShardError, match="00000.tar: the tar or its table is missing"):
        LatentShards(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p.update(fingerprint=7), "fingerprint and classes: expected text"),
        (lambda p: p.update(classes=[None]), "classes: expected text"),
        (lambda p: p.update(classes=3), "not iterable"),
        (lambda p: p.update(sources=["x"]), "must be a mapping"),
        (lambda p: p["sources"][0].update(size="1"), "size='1'"),
        (lambda p: p["sources"][0].update(path="a\0b"), "text that holds a zero"),
        (lambda p: p["sources"][0].update(path="\ud800"), "surrogates not allowed"),
        (lambda p: p["sources"][0].update({"\ud800": 1}), r"\\ud800"),
        (lambda p: p["settings"].update(qp=64), "qp=64"),
        (lambda p: p["settings"].update(qp="32"), "qp='32'"),
        (lambda p: p["shards"][0].update(last=10**6), "shard of sources 2 to 3: expected one from 1000000 on"),
        (lambda p: p["shards"][0].update(first=True), "first=True"),
        (lambda p: p["shards"][0].update(split="x" * 10**5), "a shard's split is none of train, val, test"),
        (lambda p: p.update(fingerprint="\n" * 32), "the fingerprint is none"),
    ],
)
def test_a_plan_of_other_types(folder: Path, change: Callable[[Any], object], reason: str) -> None:
    changed(folder / "manifest" / "plan.json", change)
    with pytest.raises(ShardError, match=f"plan.json: damaged plan .*{reason}") as error:
        LatentShards(folder)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("n_failed"),
        lambda s: s.update(frames="7"),
        lambda s: s.update(files=3),
        lambda s: s["files"][0].update(label=99),
        lambda s: s["files"][0].update(label=-1),
        lambda s: s["files"].append("x"),
    ],
)
def test_stats_of_other_types(folder: Path, change: Callable[[Any], object]) -> None:
    changed(folder / "00000_stats.json", change)
    with pytest.raises(ShardError, match=r"00000_stats.json: damaged stats \("):
        gather(Plan.load(folder))


# -- tables ----------------------------------------------------------------------------------------------------------


def with_table(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / "00000.parquet"
    buffer = io.BytesIO()
    pq.write_table(change(pq.read_table(path)), buffer, compression="zstd")
    path.write_bytes(buffer.getvalue())
    changed(folder / "00000_stats.json", lambda stats: stats.update(parquet_bytes=path.stat().st_size))


def column(name: str, value: Any, kind: Any = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, pa.array([value] * len(table), kind or table.schema.field(name).type))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (column("offset", -1), "offset=-1, expected 0 to 10240"),
        (column("bytes", 2**62), "bytes=4611686018427387904, expected 1 to 10240"),
        (column("bytes", 10240), "a bitstream ends at"),
        (column("base_bytes", 2**62), "base_bytes=4611686018427387904"),
        (column("tar", "../00001.tar"), "a row lies in another tar than 00000.tar"),
        (column("tar", "/dev/zero"), "a row lies in another tar than 00000.tar"),
        (column("sha256", None), "a row has no sha256"),
        (column("bytes", "1", pa.string()), "bytes is string, expected int64"),
        (column("qp", 64), "qp=64, expected 0 to 63"),
        (column("label", 2), "label=2, expected 0 to 1"),
        (column("sha256", "../" * 21 + "x"), "sha256 is not 64 hexadecimal digits"),
        (column("base_sha256", "../" * 21 + "x"), "base_sha256 is not 64 hexadecimal digits"),
        (column("key", "x" * 5000), "key is not 32 hexadecimal digits"),
        (lambda table: pa.concat_tables([table] * 50), r"\d+ rows of \d+ bytes for a tar of 10240"),
        (column("source", "x" * (1 << 21)), r"rows of 2\d+ bytes for a tar of 10240"),
        (lambda table: table.drop_columns(["key"]), "key"),
    ],
)
def test_a_table_that_the_shard_cannot_have(folder: Path, change: Callable[..., pa.Table], reason: str) -> None:
    with_table(folder, change)
    with pytest.raises(ShardError, match=f"00000.parquet: damaged table .*{reason}"):
        LatentShards(folder)


def test_text_that_is_no_text(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        offsets, data = pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")
        one = pa.StringArray.from_buffers(1, offsets, data)
        place = table.schema.get_field_index("key")
        return table.set_column(place, "key", pa.concat_arrays([one] * len(table)))

    with_table(folder, change)
    with pytest.raises(ShardError, match="00000.parquet: damaged table .*UTF8"):
        LatentShards(folder)


@pytest.mark.parametrize("fps", ["1e999999999", "1/0", "-25", "", "x"])
def test_a_frame_rate_that_is_none(corpus: Corpus, folder: Path, tmp_path: Path, fps: str) -> None:
    with_table(folder, column("fps", fps))
    shards = LatentShards(folder, codec=corpus.shard_codec)
    with pytest.raises(ShardError, match=f"clip 0: fps='{fps}', expected a fraction"):
        clip_rate(shards, 0)
    problems = [video.problem for video in decode_shards(shards, tmp_path / "out", "png")]
    assert sum("expected a fraction" in problem for problem in problems) == len(pq.read_table(folder / "00000.parquet"))


@pytest.mark.parametrize("form", ["x" * 10**5, "\ud800", "a\nb", None, [1]])
def test_a_plan_of_another_format(folder: Path, form: object) -> None:
    changed(folder / "manifest" / "plan.json", lambda plan: plan.update(format=form))
    with pytest.raises(ShardError, match="plan format .{,40}, this version reads 1") as error:
        LatentShards(folder)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("source", ["", "/", "..", "../..", ".tar::", "a\0b", "é" * 3000 + "/" + "x" * 3000])
def test_a_source_without_a_name(folder: Path, source: str) -> None:
    with_table(folder, column("source", source))
    names = [name for name, _ in videos_of(LatentShards(folder))]
    assert all(name and ".." not in name.split("/") and not name.startswith("/") for name in names)
    assert all(len(part.encode()) < 220 and "\0" not in part for name in names for part in name.split("/"))


# -- cache -----------------------------------------------------------------------------------------------------------


def entry_of(raw: bytes, size: int | None = None) -> bytes:
    body = struct.pack("<Q", len(raw) if size is None else size) + pa.compress(raw, "lz4", asbytes=True)
    return struct.pack("<4sI", b"vls1", zlib.crc32(body)) + body


@pytest.mark.parametrize(
    "entry",
    [
        entry_of(b"no tensors"),
        entry_of(bytes(100), 2**62),
        entry_of(save({"0": torch.zeros(1, dtype=torch.int8)}), 10**4),
        entry_of(save({"1": torch.zeros(1, dtype=torch.int8)})),
        entry_of(save({"0": torch.zeros(1)})),
        entry_of(b"\xff" * 8 + b"{}"),
    ],
)
def test_an_entry_whose_checksum_is_good_but_nothing_else(tmp_path: Path, entry: bytes) -> None:
    cache = SymbolCache(tmp_path)
    path = cache.path("ab" * 32)
    path.parent.mkdir()
    path.write_bytes(entry)
    assert cache.get("ab" * 32) is None


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symbols", "latents"])
def test_an_entry_of_other_shapes_is_decoded_again(corpus: Corpus, tmp_path: Path, mode: str) -> None:
    folder, codec = corpus.folder / "shards", corpus.shard_codec
    plain = LatentShards(folder, mode=mode, codec=codec)  # type: ignore[arg-type]
    cached = LatentShards(folder, mode=mode, codec=codec, cache=tmp_path)  # type: ignore[arg-type]
    name, wanted = cached.meta(0)["sha256"], plain[0][mode]
    whole = codec.padded_symbols(cached.bitstream(0))
    for other in ([], whole[:2], [q[:1] for q in whole], [q[..., :1] for q in whole], [q[0] for q in whole]):
        SymbolCache(tmp_path).put(name, other)
        assert all(torch.equal(a, b) for a, b in zip(cached[0][mode], wanted, strict=True))


def test_rows_that_say_something_else_than_their_bitstreams(corpus: Corpus, folder: Path, tmp_path: Path) -> None:
    with_table(folder, column("frames", 2**40))
    cached = LatentShards(folder, mode="latents", codec=corpus.shard_codec, cache=tmp_path / "cache")
    with pytest.raises(ShardError, match="holds not 1099511627776 frames"):
        cached[0]


@pytest.mark.parametrize("kind", ["none\x04", "transf\x7frmer", "\n"])
def test_a_kind_that_cannot_be_printed_is_refused(corpus: Corpus, kind: str) -> None:
    """With good checks it would be part of an error's text."""
    header = replace(Reader(corpus.streams["none"]).header, kind=kind)
    with pytest.raises(BitstreamError, match="the header holds impossible values"):
        Reader(header.to_bytes())
