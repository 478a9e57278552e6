"""tools/fuzz.py: a case is a function of (seed, number); every way to end is told apart; and nothing is found here."""

from __future__ import annotations

import gc
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.codec.small_models import kinds_of
from vidlbc.codec.bitstream import Reader, unpack_brightness
from vidlbc.errors import InputError, ShardError, VidlbcError
from vidlbc.qa.fuzz import FuzzSettings, guided, run, run_fuzz, run_guided, targets
from vidlbc.qa.fuzz.corpus import EXTREME, STREAMS, Corpus, make_corpus
from vidlbc.qa.fuzz.mutate_stream import mutate_stream
from vidlbc.qa.fuzz.process import Worker
from vidlbc.qa.fuzz.records import join, mended, parse
from vidlbc.qa.fuzz.targets import SHARES, make_case, run_case, valid_cases
from vidlbc.qa.fuzz.worker import Outcome, judged

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_the_corpus_is_of_every_kind_and_version_and_passes(corpus: Corpus, tmp_path: Path) -> None:
    assert {kind for _, kind, _ in STREAMS.values()} == {"none", "lstm", "transformer"}
    assert {data[4] for data in corpus.streams.values()} == {2, 3, 4, 5, 6}
    moved = {"moved_transformer": [0, 2, 2, 2, 2], "moved_extreme": [0, 2], "moved_no_context": [0] * 5}
    header, fading = Reader(corpus.streams["copies_transformer"]), []
    for packet in header.packets():
        fading += [light is not None for light in unpack_brightness(packet, header.header)]
    assert fading == [False, True, False, False, False]
    moved |= {"copies_lstm": [0, 2, 3, 2, 2], "copies_transformer": [0, 2, 2, 2, 2]}
    for name, kinds in moved.items():
        assert kinds_of(corpus.streams[name]) == kinds
    assert len(corpus.streams) == len(STREAMS) + len(EXTREME)
    assert make_corpus(corpus.folder).streams == corpus.streams
    for case in valid_cases(corpus):
        run_case(corpus, case, tmp_path)


@pytest.mark.slow
def test_records_are_the_bytes_and_mending_mends(corpus: Corpus) -> None:
    for data in corpus.streams.values():
        records, rest = parse(data)
        assert not rest and records[0].tag == b"" and join(records, mend=False) == data == mended(data)
    damaged = bytearray(corpus.streams["lstm_variant"])
    damaged[7] ^= 1  # the height, behind the header's checksum
    assert mended(bytes(damaged)) != bytes(damaged)
    assert parse(mended(bytes(damaged)))[0][0].crc != parse(bytes(damaged))[0][0].crc


@pytest.mark.slow
def test_a_case_is_a_function_of_seed_and_number(corpus: Corpus) -> None:
    one = [make_case(corpus, 3, number) for number in range(200)]
    again = [make_case(Corpus(corpus.folder), 3, number) for number in reversed(range(200))]
    assert one == again[::-1]
    assert {case.target for case in one} == set(SHARES)
    assert one != [make_case(corpus, 4, number) for number in range(200)]
    streams = [mutate_stream(np.random.Generator(np.random.Philox(n)), corpus.streams) for n in range(300)]
    changed = [parse(data)[0] for name, data in streams if name.startswith("moved")]
    assert len({record.get("kinds") for records in changed for record in records}) > 5
    assert sum(data == corpus.streams[name] for name, data in streams) < 30
    assert sum(data == mended(data) for _, data in streams) > 150  # whose checksums hold, as far as there are any


@pytest.mark.slow
def test_how_a_case_ends() -> None:
    def raises(error: Exception) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    def verdict(work: Callable[[], object]) -> str:
        return judged(0, "target", lambda: work() and None).verdict

    assert verdict(lambda: None) == "decoded"
    assert verdict(raises(ShardError("one line"))) == "refused"
    assert verdict(raises(ShardError("two\nlines"))) == verdict(raises(ShardError(""))) == "traceback"
    assert verdict(raises(ShardError("\ud800"))) == verdict(raises(KeyError("x"))) == "traceback"
    assert verdict(raises(MemoryError())) == "memory"
    assert verdict(raises(RuntimeError("DefaultCPUAllocator: can't allocate memory"))) == "memory"
    kept: list[mmap.mmap] = []

    def take() -> None:
        # From the system: a block of the heap may be one that earlier tests gave back, which the codec has kept.
        kept.append(mmap.mmap(-1, 256 << 20))
        for _ in range(256):
            kept[-1].write(os.urandom(1 << 20))

    gc.collect()  # or what earlier tests have left is freed within the case
    # Much beside the tens of MB of libraries, mapped into this process, that the system takes back at any time.
    taken = judged(0, "target", take)
    assert 240 << 20 < taken.bytes < 560 << 20 and taken.seconds > 0


def test_what_a_case_may_take(tmp_path: Path) -> None:
    settings = FuzzSettings(tmp_path, 1, floor=100)
    valid = Outcome(-1, "", "decoded", "", 0.5, 1000)
    refused = Outcome(0, "shards", "refused", "why", 0.9, 1999)
    assert run.judge(refused, valid, settings) == refused
    assert run.judge(replace(refused, seconds=1.1), valid, settings).verdict == "slow"
    assert run.judge(replace(refused, bytes=2001), valid, settings).verdict == "memory"
    assert run.judge(replace(refused, bytes=2001), valid, replace(settings, floor=3000)).verdict == "refused"
    assert run.judge(replace(refused, seconds=1.1), replace(valid, seconds=1.2), settings).verdict == "refused"


FAKE = """
    import ctypes, json, sys, time
    def tell(number, verdict="decoded"):
        print(json.dumps(dict(number=number, target="t", verdict=verdict, text="", seconds=0, bytes=0)), flush=True)
    tell(-1)
    for line in sys.stdin:
        number = int(line)
        if number == 1: ctypes.string_at(0)
        if number == 2: time.sleep(600)
        while number == 3: pass
        tell(number)
"""


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_is_begun_anew(tmp_path: Path) -> None:
    limits = FuzzSettings(tmp_path, 1, seconds=0.2, hang=120.0)
    command = [sys.executable, "-c", textwrap.dedent(FAKE)]
    with Worker(tmp_path, limits, command) as worker:
        ends = {number: worker.run(number) for number in (0, 1, 4, 3, 5)}
    with Worker(tmp_path, replace(limits, hang=2.0), command) as worker:
        ends |= {number: worker.run(number) for number in (2, 6)}
    assert [ends[n].verdict for n in (0, 4, 5, 6)] == ["decoded"] * 4
    assert ends[1].verdict == "crash" and f"exit status {-signal.SIGSEGV}" in ends[1].text
    assert ends[2].verdict == "slow" and "by the clock" in ends[2].text
    assert ends[3].verdict == "slow" and float(ends[3].text.split()[2]) >= 0.4


def test_a_process_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)"]
    with pytest.raises(VidlbcError, match="did not start: exit status 3: no"):
        Worker(tmp_path, FuzzSettings(tmp_path, 1), command)


def test_findings_are_kept_counted_and_replayed(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        valid = Outcome(-1, "", "decoded", "", 0.0, 0)

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None: ...

        def run(self, number: int) -> Outcome:
            target = make_case(corpus, 0, number).target
            return Outcome(number, target, "crash" if number == 150 else "refused", "why", 0.0, 0)

    monkeypatch.setattr(run, "Worker", Fake)
    monkeypatch.setattr(run, "make_corpus", lambda folder: corpus)
    settings = FuzzSettings(tmp_path, 250)
    tallies = run_fuzz(replace(settings, count=200))
    assert run_fuzz(settings) != tallies  # goes on, and counts nothing twice
    tallies = run_fuzz(settings)
    assert sum(tally.cases for tally in tallies.values()) == 250
    assert sum(tally.findings for tally in tallies.values()) == 1
    (kept,) = (tmp_path / "failures").iterdir()
    case = make_case(corpus, 0, 150)
    assert kept.name == f"000000150-{case.target}-crash"
    assert all((kept / name).read_bytes() == (data or b"") for name, data in case.files.items())
    assert "first=150 count=1 seed=0" in (kept / "finding.txt").read_text()
    with pytest.raises(InputError, match="holds a run of other settings"):
        run_fuzz(replace(settings, seed=1))


@pytest.mark.slow
def test_200_cases_and_nothing_found(run_tool: Tool, corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.folder, tmp_path / "out" / "corpus")
    done = run_tool("fuzz", f"out={tmp_path / 'out'}", "count=200", "seed=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 cases of seed 1: 0 findings" in done.stdout
    told = json.loads((tmp_path / "out" / "fuzz.json").read_text())
    assert told["done"] == 200 and set(told["targets"]) == set(SHARES)
    ends = [target["verdicts"] for target in told["targets"].values()]
    assert sum(end["decoded"] + end["refused"] for end in ends) == 200
    assert min(sum(end[name] for end in ends) for name in ("decoded", "refused")) > 30


def test_guidance_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"engine=atheris: it is not installed; pip install 'vidlbc\[fuzz\]'"):
        run_guided(FuzzSettings(tmp_path, 1))


@pytest.mark.slow
def test_what_is_guided_ends_as_cases_do(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = list(guided.seeds(corpus, tuple(SHARES)))[::7]
    assert {data[0] for data in inputs} >= {0, 1, 2, 3, guided._STREAM}  # every kind of file, and bitstreams
    for number, data in enumerate(inputs):
        guided.take(corpus, data, tmp_path)
        changed = guided.mutate(corpus, data, number)
        assert changed[:2] == data[:2] and changed == guided.mutate(corpus, data, number)
        guided.take(corpus, changed, tmp_path)

    def fails(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setitem(targets.TARGETS, "container", fails)
    with pytest.raises(AssertionError, match="container: traceback: (?s:.*)KeyError"):
        guided.take(corpus, bytes([guided._STREAM, 0]), tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 0}, "count=0: expected at least 1"),
        ({"seconds": 0.0}, "seconds=0.0: expected more than 0"),
        ({"targets": ("network",)}, r"targets=\['network'\]: expected some of container, decoder, shards, cache"),
    ],
)
def test_bad_values(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(FuzzSettings(tmp_path, 1), **changed)  # type: ignore[arg-type]
