"""The Parquet tables of a shard folder: one row a clip in `00000.parquet`, one row a listed file in the manifest."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

# `offset` and `bytes` say where the bitstream lies in `tar`, `base_bytes` how many of them hold the base layer, where
# there is one; `[start, stop)` are frames of the source; `reached`: dB or kbit/s that `target` came to.
_CLIP_COLUMNS = {
    "key": "string",
    "label": "int64",
    "label_name": "string",
    "split": "string",
    "group": "string",
    "source": "string",
    "source_sha256": "string",
    "video": "string",
    "start": "int64",
    "stop": "int64",
    "frames": "int64",
    "height": "int64",
    "width": "int64",
    "fps": "string",
    "qp": "int64",
    "variant": "string",
    "rdo": "bool",
    "target": "string",
    "reached": "double",
    "codec": "string",
    "tar": "string",
    "offset": "int64",
    "bytes": "int64",
    "bits": "int64",
    "estimated_bits": "int64",
    "sha256": "string",
    "base_bytes": "int64",
    "base_sha256": "string",
    "verdict": "string",
    "decoder": "string",
    "decoder_version": "string",
}

# Since the first shards.
_ADDED = ("variant", "rdo", "target", "reached", "base_bytes", "base_sha256")

# What a row may leave open; `tar` and `offset` are told by where it lies.
_OPEN = ("label", "label_name", "split", "group", "fps", *_ADDED)
_PLACE = ("tar", "offset")
_TYPES = {"string": (str,), "int64": (int,), "bool": (bool,), "double": (float, int)}

_FILE_COLUMNS = {
    "path": "string",
    "split": "string",
    "label": "int64",
    "label_name": "string",
    "group": "string",
    "start": "int64",
    "stop": "int64",
    "sha256": "string",
    "size": "int64",
    "shard": "int64",
    "status": "string",
    "reason": "string",
    "frames": "int64",
    "clips": "int64",
    "bytes": "int64",
    "repeat_of": "string",
    "decoder": "string",
    "decoder_version": "string",
}


def shard_table(rows: list[dict[str, Any]]) -> pa.Table:
    """The clips of a shard, with a fixed schema whatever the rows hold."""
    return _table(rows, _CLIP_COLUMNS)


def manifest_table(rows: list[dict[str, Any]]) -> pa.Table:
    """The listed files of a corpus with their verdicts."""
    return _table(rows, _FILE_COLUMNS)


def table_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file; the same table gives the same bytes (for one version of pyarrow)."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def with_all_columns(table: pa.Table) -> pa.Table:
    """The clips' columns alone; those that an older version did not write are null. Raises KeyError, ArrowException."""
    import pyarrow as pa

    for name in _ADDED:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.type_for_alias(_CLIP_COLUMNS[name])))
    return table.select(list(_CLIP_COLUMNS))


def row_fault(row: Any) -> str:
    """What keeps `row` from being a clip's row, in words; empty where nothing does."""
    if not isinstance(row, dict):
        return "not a map of names to values"
    for name, kind in _CLIP_COLUMNS.items():
        if name in _PLACE:
            continue
        value = row.get(name)
        if value is None and name in _OPEN:
            continue
        if type(value) not in _TYPES[kind] or (isinstance(value, int) and not 0 <= value < 1 << 63):
            return f"{name}={str(value)[:40]}"
    unknown = row.keys() - _CLIP_COLUMNS.keys()
    if unknown:
        return f"unknown field {min(unknown)[:40]}"
    if min(row["frames"], row["height"], row["width"]) < 1:
        return "a clip without frames"
    base_bytes = row.get("base_bytes")
    if base_bytes is not None and (base_bytes > row["bytes"] or row.get("base_sha256") is None):
        return "a base layer larger than the bitstream"
    return ""


def same_row(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Do two rows tell the same, wherever the clip lies? A column that an older version did not write is null."""
    return all(one.get(name) == other.get(name) for name in _CLIP_COLUMNS if name not in _PLACE)


def _table(rows: list[dict[str, Any]], columns: dict[str, str]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows], schema=schema)
