"""Bitstream version 4 in the container alone: symbols that are left out; and temporal=chunk, which is read no more."""

import io
import json
import subprocess
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vidlbc
from tests.codec.retired import CHUNK_HEADER, RETIRED
from tests.codec.small_models import save_small_model
from vidlbc.codec.bitstream import Header, Packet, Reader, end_bytes, inspect, pack_modes
from vidlbc.codec.bitstream.container import varint
from vidlbc.errors import BitstreamError, InputError
from vidlbc.qa.fuzz.records import join, parse

LEVELS = ((8, 3), (16, 2))


def stream(skip: int, frames: int, told: bytes | None = None) -> bytes:
    """`told`: the end record, where it is another one."""
    header = Header(40, 56, 7, bytes(16), "lstm", LEVELS, skip=skip)
    packet = Packet(frames, 0, bytes(frames), pack_modes([0] * frames, 2), b"")
    return header.to_bytes() + packet.to_bytes() + (end_bytes(frames, header.version) if told is None else told)


def message(data: bytes) -> str:
    with pytest.raises(BitstreamError) as error:
        inspect(data)
    return str(error.value)


@given(st.integers(1, 89), st.integers(1, 99))
def test_what_is_skipped_and_the_length_of_the_clip_are_read_as_written(skip, frames):
    written = stream(skip, frames)
    reader = Reader(io.BytesIO(written))
    assert (reader.header.version, reader.header.skip) == (4, skip)
    assert [p.frames for p in reader.packets()] == [frames] and reader.frames == frames
    info = inspect(written)
    assert (info.frames, info.skip) == (frames, skip)


@pytest.mark.parametrize("again", [0, 1, 3, 8])
def test_both_lengths_of_the_end_record_are_those_of_the_packets(again):
    for told in (varint(2) + varint(again), varint(again) + varint(2)):
        end = b"\x45" + told + zlib.crc32(told).to_bytes(4, "little")
        assert message(stream(9, 2, end)) == f"damaged bitstream: 2 frames found, the end record says {again}"


def test_streams_that_skip_nothing_keep_the_older_versions():
    assert Header(40, 56, 7, bytes(16), "none", LEVELS).version == 2
    assert Header(40, 56, 7, bytes(16), "none", LEVELS, kept=(1, 2)).version == 3
    assert Header(40, 56, 7, bytes(16), "none", LEVELS, skip=1).version == 4


# -- temporal=chunk ----------------------------------------------------------------------------------------------------


def test_a_stream_of_temporal_chunk_names_the_last_version_that_reads_it():
    assert message(CHUNK_HEADER) == message(CHUNK_HEADER + bytes(99)) == f"bitstream was written with {RETIRED}"
    damaged = bytearray(CHUNK_HEADER)
    damaged[10] ^= 1
    assert message(bytes(damaged)).startswith("damaged bitstream: checksum of the header does not match")


@pytest.mark.parametrize("frames", [0, 1, 2, 64, 65])
def test_frames_that_are_coded_as_one_are_refused_under_any_name(frames):
    records, rest = parse(stream(9, 2))
    records[0].set("one", varint(frames))
    forged = join(records, rest)
    if frames == 1:
        assert forged == stream(9, 2) and inspect(forged).frames == 2
        return
    impossible = {0: "the header holds impossible values", 65: "the frames of a unit is over 64, at offset 41"}
    damaged = f"damaged bitstream: {impossible.get(frames)}"
    assert message(forged) == (damaged if frames in impossible else f"bitstream was written with {RETIRED}")


def test_the_tools_say_so_too(call_tool: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "a.vlbc").write_bytes(CHUNK_HEADER)
    done = call_tool("decode", f"input={tmp_path / 'a.vlbc'}", f"output={tmp_path / 'out'}", "device=cpu")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'a.vlbc'}: bitstream was written with {RETIRED}\n"


def test_a_model_that_was_trained_for_it_names_the_version(tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model", kinds=("lstm",))
    (model / "temporal" / "lstm").rename(model / "temporal" / "chunk")
    config = model / "temporal" / "chunk" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"kind": "chunk"}))
    (model / "config.json").write_text(json.dumps({"format": 1, "temporal": "chunk"}))
    with pytest.raises(InputError) as error:
        vidlbc.load(model, device="cpu")
    assert str(error.value) == f"{config.parent} was trained with {RETIRED}"
    assert vidlbc.load(model, device="cpu", temporal="none").kind == "none"
    with pytest.raises(InputError, match="model default has no temporal stage 'chunk': it has none, lstm, transformer"):
        vidlbc.load("default", device="cpu", temporal="chunk")


def test_this_version_is_a_later_one() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == vidlbc.__version__
    assert tuple(map(int, vidlbc.__version__.split("."))) > (0, 1, 0)
