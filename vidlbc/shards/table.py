"""The Parquet tables of a shard folder: one row a clip in `00000.parquet`, one row a listed file in the manifest."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast, get_args, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa


class ClipRow(TypedDict):
    """One clip: a row of a shard's table, what `LatentShards.meta` gives, and but for its place the member KEY.json.

    `[start, stop)` are frames of the source `source`, a path under the corpus's root; `video` names what the clips of
    one video share. `fps`: coded frames a second, as "num/den". `target` and what was `reached`: dB, kbit/s or bits per
    pixel. `codec`: fingerprint of the weights. `offset` and `bytes` say where the bitstream lies in `tar`, `base_bytes`
    how many of them hold the base layer, where there is one. `verdict`: on the whole source. `times`: microseconds from
    the source's first frame that is read, of each frame of the clip, where their rate varies; `aspect`: width of a
    pixel to its height, as "num/den", where it is not 1.
    """

    key: str
    label: int | None
    label_name: str | None
    split: str | None
    group: str | None
    source: str
    source_sha256: str
    video: str
    start: int
    stop: int
    frames: int
    height: int
    width: int
    fps: str | None
    qp: int
    variant: str | None
    rdo: bool | None
    target: str | None
    reached: float | None
    codec: str
    tar: NotRequired[str]
    offset: NotRequired[int]
    bytes: int
    bits: int
    estimated_bits: int
    sha256: str
    base_bytes: int | None
    base_sha256: str | None
    verdict: str
    decoder: str
    decoder_version: str
    times: NotRequired[list[int] | None]
    aspect: NotRequired[str | None]


_ARROW = {str: "string", int: "int64", bool: "bool", float: "double", list[int]: "list"}
_HINTS = {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(ClipRow).items()}
_CLIP_COLUMNS = {name: _ARROW[kind] for name, kind in _HINTS.items()}

# Since the first shards.
_ADDED = ("variant", "rdo", "target", "reached", "base_bytes", "base_sha256", "times", "aspect")

# What a row may leave open; `tar` and `offset` are told by where it lies.
_OPEN = tuple(name for name, hint in get_type_hints(ClipRow).items() if type(None) in get_args(hint))
_PLACE = ("tar", "offset")
_RARE = ("times", "aspect")
_TYPES = {"string": (str,), "int64": (int,), "bool": (bool,), "double": (float, int), "list": (list,)}

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
    "notes": "string",
}


def shard_table(rows: Sequence[ClipRow]) -> pa.Table:
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
            table = table.append_column(name, pa.nulls(len(table), _arrow_type(_CLIP_COLUMNS[name])))
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
        values = value if kind == "list" and isinstance(value, list) else [value]
        whole = all(type(one) is int and 0 <= one < 1 << 63 for one in values if kind in ("list", "int64"))
        if type(value) not in _TYPES[kind] or not whole:
            return f"{name}={str(value)[:40]}"
    unknown = row.keys() - _CLIP_COLUMNS.keys()
    if unknown:
        return f"unknown field {min(unknown)[:40]}"
    if min(row["frames"], row["height"], row["width"]) < 1:
        return "a clip without frames"
    if row.get("times") is not None and len(row["times"]) != row["frames"]:
        return f"{len(row['times'])} times of {row['frames']} frames"
    base_bytes = row.get("base_bytes")
    if base_bytes is not None and (base_bytes > row["bytes"] or row.get("base_sha256") is None):
        return "a base layer larger than the bitstream"
    return ""


def different(one: ClipRow, other: ClipRow) -> list[str]:
    """In what two rows differ, wherever the clip lies. A column that an older version did not write is null."""
    return [name for name in _CLIP_COLUMNS if name not in _PLACE and one.get(name) != other.get(name)]


def filled(row: ClipRow) -> dict[str, str | int | float | bool]:
    """A row without None, all rows with the same names: numbers that are not known are -1 or nan, texts "", pixels
    square."""
    blank: dict[str, str | int | float | bool] = {"string": "", "int64": -1, "double": math.nan, "bool": False}
    values = {name: row.get(name) for name in _CLIP_COLUMNS if name != "times"} | {"aspect": row.get("aspect") or "1/1"}
    return {name: blank[_CLIP_COLUMNS[name]] if value is None else value for name, value in values.items()}  # type: ignore[misc]


def without_place(row: ClipRow) -> ClipRow:
    """As KEY.json has it: what most clips do not have is not named in those."""
    kept = {name: value for name, value in row.items() if name not in _PLACE}
    return cast(ClipRow, {name: value for name, value in kept.items() if value is not None or name not in _RARE})


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.int64()) if kind == "list" else pa.type_for_alias(kind)


def _table(rows: Sequence[Mapping[str, Any]], columns: dict[str, str]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
    return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows], schema=schema)
