"""The table of a shard as a reader may trust it: its columns, and in them nothing that leads out of the shard's tar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidlbc.codec.bitstream import MAX_SIDE
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import ShardError, one_line
from vidlbc.shards.layout import ShardFiles
from vidlbc.shards.table import shard_table, with_all_columns

if TYPE_CHECKING:
    import pyarrow as pa

_TAR_BLOCK = 512  # a clip takes several of them
_ROW_BYTES, _TABLE_BYTES = 1 << 16, 1 << 20  # uncompressed, at most: of a row, and besides
_TIME_BYTES, _MAX_TIMES = 16, 1 << 22  # of a frame's time; of a row's at most
_REQUIRED = (
    "key",
    "source",
    "video",
    "start",
    "frames",
    "height",
    "width",
    "qp",
    "tar",
    "offset",
    "bytes",
    "sha256",
)


def read_clips(files: ShardFiles, classes: int, clip_frames: int) -> pa.Table:
    """The clips of a shard, one a row, checked before memory is reserved. `classes`: how many labels there are;
    `clip_frames`: frames of a clip at most.

    Raises ShardError where the table is damaged, or says what the shard cannot hold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row_bytes = _ROW_BYTES + min(_TIME_BYTES * clip_frames, _MAX_TIMES)
    try:
        tar_bytes = files.tar.stat().st_size
        with pq.ParquetFile(files.parquet) as parquet:
            about = parquet.metadata
            size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
            if about.num_rows > tar_bytes // _TAR_BLOCK or size > about.num_rows * row_bytes + _TABLE_BYTES:
                raise ValueError(f"{about.num_rows} rows of {size} bytes for a tar of {tar_bytes}")
            table = with_all_columns(parquet.read())
        table.validate(full=True)
        _check(table, files.tar.name, tar_bytes, classes)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ShardError(f"{files.parquet}: damaged table ({one_line(error, 120)})") from None
    return table


def _check(table: pa.Table, tar: str, tar_bytes: int, classes: int) -> None:
    """Raises ValueError."""
    import pyarrow.compute as pc

    expected = shard_table([]).schema
    for name in expected.names:
        if table.schema.field(name).type != expected.field(name).type:
            raise ValueError(f"{name} is {table.schema.field(name).type}, expected {expected.field(name).type}")
    for name in _REQUIRED:
        if table[name].null_count:
            raise ValueError(f"a row has no {name}")
    if len(table) and not pc.all(pc.equal(table["tar"], tar)).as_py():
        raise ValueError(f"a row lies in another tar than {tar}")
    # A cache names its files by the hashes: they must not lead out of it.
    for name, digits in {"key": 32, "sha256": 64, "base_sha256": 64}.items():
        good = pc.match_substring_regex(table[name], f"^[0-9a-f]{{{digits}}}$")
        if pc.all(good).as_py() is False:
            raise ValueError(f"{name} is not {digits} hexadecimal digits")
    within = {
        "start": (0, 2**63 - 1),
        "frames": (1, 2**63 - 1),
        "height": (1, MAX_SIDE),
        "width": (1, MAX_SIDE),
        "qp": (0, NUM_QP - 1),
        "offset": (0, tar_bytes),
        "bytes": (1, tar_bytes),
        "base_bytes": (0, tar_bytes),
        "label": (0, classes - 1),
    }
    for name, (low, high) in within.items():
        found: Any = pc.min_max(table[name]).as_py()
        for value in found.values():
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}={value}, expected {low} to {high}")
    ends = pc.max(pc.add(table["offset"], table["bytes"])).as_py()
    if ends is not None and ends > tar_bytes:
        raise ValueError(f"a bitstream ends at {ends}, the tar at {tar_bytes}")
