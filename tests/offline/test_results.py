"""Generations: at every instant of the writing, what lies in the folder is whole and fits; what is damaged is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vidlbc.errors import InputError
from vidlbc.offline import results
from vidlbc.offline.results import Entry, Group, Limits, newest, write_generation

LIMITS = Limits(part=1 << 20, parts=8, total=8 << 20)


def entries(number: int, size: int = 1 << 20) -> list[Group]:
    """State, weights at work, and those of a step that has ended: every second generation another one."""
    finished = Group([Entry("finished", bytes([number // 2]) * (1 << 19))], final=True)
    return [Group([Entry("state.json", b"%d" % number)]), Group([Entry("weights", bytes([number]) * size)]), finished]


def write(folder: Path, number: int, limits: Limits = LIMITS, size: int = 1 << 20) -> None:
    write_generation(folder, "1700000000", number, entries(number, size), limits)


def whole(folder: Path) -> int:
    """The number of the newest generation, its bytes checked."""
    found = newest(folder)
    number = int(found.files["state.json"])
    assert found.number == number and found.files["weights"] == bytes([number]) * (1 << 20)
    assert found.files["finished"] == bytes([number // 2]) * (1 << 19) and not found.left_out
    return number


def test_a_copy_at_any_instant_is_whole_and_within_the_limits(tmp_path, monkeypatch):
    """Every operation on a file is an instant, before it, after it, and in the middle of a write."""
    folder, instants = tmp_path / "results", []
    write(folder, 1)

    def copy() -> None:
        there = tmp_path / "copy"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(folder, there)
        sizes = [path.stat().st_size for path in there.iterdir()]
        assert len(sizes) <= LIMITS.parts and max(sizes) <= LIMITS.part and sum(sizes) <= LIMITS.total
        instants.append(whole(there))

    write_bytes, unlink, write_atomic = Path.write_bytes, Path.unlink, results.write_atomic

    def slow_write(path: Path, data: bytes) -> int:
        write_bytes(path, data[: len(data) // 2])
        copy()
        done = write_bytes(path, data)
        copy()
        return done

    def watched_unlink(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.parent == folder:
            copy()

    def watched_atomic(path: Path, data: bytes) -> None:
        write_atomic(path, data)
        copy()

    monkeypatch.setattr(Path, "write_bytes", slow_write)
    monkeypatch.setattr(Path, "unlink", watched_unlink)
    monkeypatch.setattr(results, "write_atomic", watched_atomic)
    for number in range(2, 6):
        write(folder, number)
    assert instants == sorted(instants) and set(instants) == {1, 2, 3, 4, 5} and len(instants) > 30


def test_what_does_not_fit_is_left_out_by_importance_and_named(tmp_path):
    write(tmp_path, 1, size=4 << 20)
    found = newest(tmp_path)
    assert set(found.files) == {"state.json", "finished"} and found.left_out == ("weights",)


def test_what_does_not_change_takes_its_room_once(tmp_path):
    """Over four of the eight MiB are of a finished step: two of it would not fit."""
    limits = Limits(part=1 << 20, parts=9, total=8 << 20)
    finished = Group([Entry("finished", b"9" * (4 << 20))], final=True)
    for number in (1, 2, 3):
        groups = [Group([Entry("state.json", b"%d" % number)]), finished, Group([Entry("weights", b"w" * (1 << 19))])]
        write_generation(tmp_path, "1700000000", number, groups, limits)
        found = newest(tmp_path)
        assert found.number == number and set(found.files) == {"state.json", "finished", "weights"}
    assert len(list(tmp_path.glob("results-x*"))) == 5  # 4 MiB and their headers


@pytest.mark.parametrize("limits", [(1 << 20, 3, 8 << 20), (1 << 20, 8, 1 << 17), (1 << 10, 4, 8 << 20)])
def test_limits_too_small_for_two_generations_are_refused(limits):
    with pytest.raises(InputError, match="expected at least 4 parts, and room for two generations"):
        Limits(*limits)


def test_a_damaged_generation_is_passed_over_and_told(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    piece = tmp_path / "results-0002.1"
    data = bytearray(piece.read_bytes())
    data[7] ^= 1
    piece.write_bytes(data)
    found = newest(tmp_path)
    assert found.number == 1 and "results-0002.1: damaged" in found.passed_over
    (tmp_path / "results-0001.0").unlink()
    with pytest.raises(InputError, match=r"results-0002.1: damaged, its size or SHA-256 is not that of its index"):
        newest(tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "results-0001.0").unlink(), "results-0001.0: missing; it is a piece of generation 1"),
        (lambda folder: (folder / "results-0001.json").write_text("{"), "results-0001.json: no index of results"),
        (lambda folder: (folder / "results-0001.json").write_text('{"format": 2}'), "results of format 2"),
        (lambda folder: (folder / "results-0001.json").write_text('{"format": 1}'), "without generation"),
        (lambda folder: (folder / "results-0001.json").unlink(), "holds no results-NNNN.json"),
    ],
)
def test_what_is_missing_is_told_in_one_line(tmp_path, damage, told):
    write(tmp_path, 1)
    damage(tmp_path)
    with pytest.raises(InputError) as caught:
        newest(tmp_path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_the_run_that_began_last_counts_whatever_its_number(tmp_path):
    write_generation(tmp_path / "old", "1700000000", 9, entries(9), LIMITS)
    write_generation(tmp_path / "new", "1700009999", 2, entries(2), LIMITS)
    assert newest(tmp_path).number == 2
    with pytest.raises(InputError, match="no such folder"):
        newest(tmp_path / "nowhere")


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for number in range(1, 4):
        write(tmp_path, number)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "results-0003.json").read_text())["generation"] == 3
    assert not (tmp_path / "results-0001.json").exists()
