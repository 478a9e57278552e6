"""One mutated shard folder or cache entry: JSON, Parquet, tars, with and without sizes and checksums that go along."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from vidlbc.qa.fuzz.mutate_stream import Draw, damaged, mutate_stream, restructured

_HUGE = 10**30
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63),
    _HUGE,
    0.5,
    -1e308,
    1e400,
    float("nan"),
    "",
    "x",
    "0",
    "1/0",
    "1e999999999",
    "..",
    "/",
    "../../etc/passwd",
    "a\0b",
    "\ud800",
    "é" * 3000,
    "x" * 10**5,
    [],
    {},
    [None],
    [[]],
    {"a": 1},
    [1, 2],
    ["x"],
    [0] * 10**5,
    {"format": 1},
)
_INTEGERS = (-(2**63), -1, 0, 1, 511, 512, 10**4, 2**31, 2**40, 2**62, 2**63 - 1)
_TEXTS = ("", ".", "..", "/", "x" * 5000, "../00001.tar", "00001.tar", "/dev/zero", "a\0b", "1/0", "1e999999999", "-5")
_JSON = ("manifest/plan.json", "00000_stats.json", "00001_stats.json")
_PARQUET = ("00000.parquet", "00001.parquet")
_TARS = ("00000.tar", "00001.tar")

Files = dict[str, bytes | None]  # what is there instead; None: nothing


def mutate_shards(draw: Draw, files: Mapping[str, bytes], streams: Mapping[str, bytes]) -> Files:
    """Of the files of a shard folder, those that are other ones now."""
    way = draw.integers(10)
    changed: Files = {}
    if way == 0:
        name = sorted(files)[draw.integers(len(files))]
        changed[name] = None if draw.integers(3) == 0 else _bytes(draw, files[name], files)
    elif way < 4:
        name = _JSON[draw.integers(len(_JSON)) if draw.integers(2) else 0]
        changed[name] = _json(draw, files[name])
    elif way < 6:
        name = _PARQUET[draw.integers(len(_PARQUET))]
        changed[name] = _bytes(draw, files[name], files)
    elif way < 8:
        name = _PARQUET[draw.integers(len(_PARQUET))]
        changed[name] = _table(draw, files[name])
    else:
        changed = _tar(draw, files, streams)
    if draw.integers(8):
        mend_sizes(files, changed)
    return changed


def mutate_entry(draw: Draw, entry: bytes) -> bytes:
    """Of the symbol cache."""
    import pyarrow as pa

    magic, body = entry[:4], entry[8:]
    (size,) = struct.unpack("<Q", body[:8])
    way = draw.integers(4)
    if way == 0:
        return _bytes(draw, entry, {})
    if way == 1:
        raw = damaged(draw, pa.decompress(body[8:], size, "lz4", asbytes=True), entry)
        raw = _header_of_tensors(draw, raw) if draw.integers(2) else raw
        body = struct.pack("<Q", len(raw)) + pa.compress(raw, "lz4", asbytes=True)
    elif way == 2:
        body = struct.pack("<Q", min(2**64 - 1, abs(_INTEGERS[draw.integers(len(_INTEGERS))]))) + body[8:]
    else:
        body = damaged(draw, body, entry)
    return magic + struct.pack("<I", zlib.crc32(body)) + body


def _header_of_tensors(draw: Draw, raw: bytes) -> bytes:
    """safetensors: its JSON header changed, its size right."""
    (size,) = struct.unpack("<Q", raw[:8].ljust(8, b"\0"))
    try:
        header = _json(draw, raw[8 : 8 + size])
    except ValueError:
        return raw
    return struct.pack("<Q", len(header)) + header + raw[8 + size :]


def _bytes(draw: Draw, data: bytes, files: Mapping[str, bytes]) -> bytes:
    other = list(files.values())[draw.integers(len(files))] if files else data
    return damaged(draw, data, other)


# -- JSON ------------------------------------------------------------------------------------------------------------


def _json(draw: Draw, data: bytes) -> bytes:
    way = draw.integers(12)
    if way == 0:
        return damaged(draw, data, data)
    if way == 1:
        return (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xff\xfe" + data, b"", b"null")[draw.integers(6)]
    value = json.loads(data)
    for _ in range(1 + int(draw.integers(3) == 0)):
        value = _replaced(draw, value)
    return json.dumps(value).encode()


def _replaced(draw: Draw, value: Any) -> Any:
    """The value with one of its parts, at any depth, another one, gone or new."""
    other = _VALUES[draw.integers(len(_VALUES))]
    if not isinstance(value, dict | list) or not value or draw.integers(12) == 0:
        return other
    keys = sorted(value) if isinstance(value, dict) else range(len(value))
    key: Any = keys[draw.integers(len(keys))]
    made: Any = value.copy()
    way = draw.integers(10)
    if way == 0:
        del made[key]
    elif way == 1 and isinstance(made, dict):
        made["another"] = other
    elif way == 1:
        made.append(made[key])
    else:
        made[key] = _replaced(draw, made[key]) if draw.integers(4) else other
    return made


# -- tables and tars -------------------------------------------------------------------------------------------------


def _table(draw: Draw, data: bytes) -> bytes:
    """Values, types, columns and rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    way = draw.integers(10)
    if way == 0:
        table = pa.concat_tables([table] * int(draw.integers(2, 200)))
    elif way == 1:
        table = table.drop_columns([table.column_names[draw.integers(table.num_columns)]])
    elif way == 2:
        table = table.slice(0, 0)
    else:
        for _ in range(1 + int(draw.integers(3) == 0)):
            place = int(draw.integers(table.num_columns))
            kind = table.schema.field(place).type
            if draw.integers(4) == 0:
                kind = (pa.string(), pa.int64(), pa.float64(), pa.binary(), pa.list_(pa.int64()))[draw.integers(5)]
            values = [_cell(draw, kind) for _ in range(len(table))]
            table = table.set_column(place, table.column_names[place], pa.array(values, kind))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _cell(draw: Draw, kind: Any) -> Any:
    import pyarrow as pa

    if draw.integers(4) == 0:
        return None
    number = _INTEGERS[draw.integers(len(_INTEGERS))]
    text = _TEXTS[draw.integers(len(_TEXTS))]
    if pa.types.is_int64(kind):
        return number
    if pa.types.is_string(kind):
        return text
    if pa.types.is_binary(kind):
        return text.encode()
    if pa.types.is_list(kind):
        return [number]
    return bool(number) if pa.types.is_boolean(kind) else float(number)


def _tar(draw: Draw, files: Mapping[str, bytes], streams: Mapping[str, bytes]) -> Files:
    """A tar of other bytes; or another bitstream in the place of one, with the table that goes along."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = int(draw.integers(len(_TARS)))
    tar = files[_TARS[place]]
    if draw.integers(4) == 0:
        return {_TARS[place]: _bytes(draw, tar, files)}
    table = pq.read_table(io.BytesIO(files[_PARQUET[place]]))
    rows = table.to_pylist()
    row = rows[draw.integers(len(rows))]
    old = tar[row["offset"] : row["offset"] + row["bytes"]]
    if draw.integers(4) == 0:
        new = mutate_stream(draw, streams)[1]
    else:
        new = restructured(draw, old, streams["transformer_layers"])
    # Another length moves what follows: tars are not read as such, but by offset.
    tar = tar + new
    base = len(new) // 2 if draw.integers(2) else row["base_bytes"]
    row |= {"offset": len(tar) - len(new), "bytes": len(new), "sha256": hashlib.sha256(new).hexdigest()}
    row |= {"base_bytes": base, "base_sha256": hashlib.sha256(new[:base]).hexdigest()}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), buffer, compression="zstd")
    return {_TARS[place]: tar, _PARQUET[place]: buffer.getvalue()}


def mend_sizes(files: Mapping[str, bytes], changed: Files) -> None:
    """The stats of a shard say how long its tar and table are."""
    for stem in ("00000", "00001"):
        name = f"{stem}_stats.json"
        parts = [changed.get(f"{stem}{suffix}", files[f"{stem}{suffix}"]) for suffix in (".tar", ".parquet")]
        told = changed.get(name, files[name])
        if told is None or any(part is None for part in parts):
            continue
        try:
            stats = json.loads(told)
        except (ValueError, RecursionError):
            continue
        if isinstance(stats, dict):
            stats |= {"tar_bytes": len(parts[0] or b""), "parquet_bytes": len(parts[1] or b"")}
            changed[name] = json.dumps(stats).encode()
