"""A decoder that crashes, hangs with the interpreter lock held, or is killed costs one file its verdict, in time."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vidlbc.errors import InputError, VideoError
from vidlbc.video import VideoReader, examine, open_source, probe, read_blocks

DEADLINE_S = 1.5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Any file: the misbehaving back ends do not look into it."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not read")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("HoldsTheLock", "the decoder hung: no frame for 1.5 s, killed"),
        ("Spins", "the decoder hung: no frame for 1.5 s, killed"),
        ("Segfaults", "the decoder crashed (SIGSEGV)"),
        ("IsKilled", "the decoder was killed (SIGKILL)"),
        ("Exits", "the decoder process ended with status 3"),
        ("RaisesOddly", "ZeroDivisionError: in the"),
    ],
)
def test_misbehaviour_in_the_middle_leaves_the_frames_before_it(file: Path, backend: str, reason: str) -> None:
    reader = VideoReader(file, backend=f"misbehaving:{backend}", deadline_s=DEADLINE_S, block=8)
    frames = np.concatenate(list(reader.blocks()))
    verdict = reader.verdict
    assert verdict is not None and verdict.status == "damaged" and verdict.reason == reason
    assert str(verdict) == f"damaged (40 frames): {reason}"
    assert (frames[:, 0, 0, 0] == np.arange(40)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("HoldsTheLockOnOpen", "the decoder hung: no frame for 1.5 s, killed"),
        ("SegfaultsOnOpen", "the decoder crashed (SIGSEGV)"),
    ],
)
def test_misbehaviour_on_open_is_a_verdict_and_an_error(file: Path, backend: str, reason: str) -> None:
    info, verdict = examine(file, deadline_s=DEADLINE_S, backend=f"misbehaving:{backend}")
    assert info is None and str(verdict) == f"unreadable: {reason}"
    with pytest.raises(VideoError) as caught:
        probe(file, f"misbehaving:{backend}", DEADLINE_S)
    assert str(caught.value) == f"{file}: unreadable: {reason}"


@pytest.mark.slow
def test_the_next_file_is_read_after_every_misbehaviour(file: Path, numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "sound.mp4")
    for backend in ("HoldsTheLock", "Segfaults", "Exits"):
        examine(file, deadline_s=DEADLINE_S, backend=f"misbehaving:{backend}")
        assert str(examine(clip)[1]) == "ok"


@pytest.mark.slow
def test_progress_restarts_the_deadline(file: Path) -> None:
    info, verdict = examine(file, deadline_s=1.5, backend="misbehaving:Slow")  # 3 s in all
    assert str(verdict) == "ok" and verdict.frames == 30


@pytest.mark.slow
def test_a_slow_consumer_is_no_hang(file: Path) -> None:
    reader = VideoReader(file, backend="misbehaving:Sound", deadline_s=1.0, block=4)
    count = 0
    for block in reader.blocks():
        if count == 0:
            time.sleep(2.0)  # longer than the deadline, with every slot full
        count += len(block)
    assert count == 100 and str(reader.verdict) == "ok"


@pytest.mark.slow
def test_sound_files_share_one_process_and_a_bad_one_ends_it(file: Path) -> None:
    def process() -> str:
        return probe(file, "misbehaving:TellsItsProcess").codec

    first = process()
    assert first != str(os.getpid()) and process() == first
    examine(file, backend="misbehaving:RaisesOddly")  # served by that process, which is then not trusted any more
    assert process() != first


def test_leaving_early_keeps_the_process_and_stops_the_decoder(file: Path) -> None:
    before = probe(file, "misbehaving:TellsItsProcess").codec
    reader = VideoReader(file, backend="misbehaving:Endless", block=4)
    blocks = reader.blocks()
    assert next(blocks).shape == (4, 24, 32, 3)
    blocks.close()
    assert reader.verdict is None
    assert probe(file, "misbehaving:TellsItsProcess").codec == before


def test_readers_at_the_same_time_do_not_mix(numbered_clip, frame_index, tmp_path: Path) -> None:
    clips = [numbered_clip(tmp_path / f"{n}.mp4", frames=n) for n in (11, 23)]
    sources = [iter(VideoReader(clip, block=1).blocks()) for clip in clips]
    seen: list[list[int]] = [[], []]
    for which in (0, 1) * 11:
        seen[which].append(frame_index(next(sources[which])[0]))
    assert seen == [list(range(11)), list(range(11))]


def test_threads_each_get_their_frames(numbered_clip, tmp_path: Path) -> None:
    clips = [numbered_clip(tmp_path / f"{n}.mp4", frames=n) for n in (5, 9, 14)]
    found: dict[Path, int] = {}

    def count(clip: Path) -> None:
        found[clip] = sum(len(block) for block in read_blocks(clip))

    threads = [threading.Thread(target=count, args=(clip,)) for clip in clips]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[clip] for clip in clips] == [5, 9, 14]


def _count_in_child(path: Path, answer: multiprocessing.SimpleQueue[tuple[int, str]]) -> None:
    frames = sum(len(block) for block in read_blocks(path, backend="misbehaving:TellsItsProcess"))
    answer.put((frames, probe(path, "misbehaving:TellsItsProcess").codec))


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_uses_a_process_of_its_own(file: Path) -> None:
    """As a DataLoader worker does; daemonic, which multiprocessing forbids to have children of its own kind."""
    context = multiprocessing.get_context("fork")
    ours = probe(file, "misbehaving:TellsItsProcess").codec
    answer: multiprocessing.SimpleQueue[tuple[int, str]] = context.SimpleQueue()
    child = context.Process(target=_count_in_child, args=(file, answer), daemon=True)
    child.start()
    child.join(60)
    frames, theirs = answer.get()
    assert child.exitcode == 0 and frames == 3 and theirs != ours
    assert probe(file, "misbehaving:TellsItsProcess").codec == ours  # the parent's process has survived the fork


@pytest.mark.slow
def test_no_torch_and_no_main_module_in_the_process(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: F401  (in the caller it is there)

    # Another import path is another process: back end torchcodec may have been tried in the one that is there.
    monkeypatch.setattr(sys, "path", [*sys.path, str(file.parent)])
    assert str(examine(file, backend="misbehaving:TellsWhatIsImported")[1]) == "ok"


@pytest.mark.slow
def test_a_process_whose_owner_was_killed_ends(file: Path) -> None:
    """Also one that hangs with the lock held, when nobody is left to kill it: its alarm does."""
    import subprocess
    import sys

    script = (
        "import sys; sys.path[:] = sys.argv[2].split('|')\n"
        "from vidlbc.video import probe\n"
        "print(probe(sys.argv[1], 'misbehaving:TellsItsProcess').codec, flush=True)\n"
        "probe(sys.argv[1], 'misbehaving:HoldsTheLockOnOpen', deadline_s=2.0)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(file), "|".join(sys.path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    decoder = int(owner.stdout.readline())
    time.sleep(1.0)  # the second probe has reached the hang
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    limit = time.monotonic() + 30
    while _alive(decoder) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not _alive(decoder)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(file: Path) -> None:
    import resource

    def peak_after(frames: int) -> int:
        for _ in read_blocks(file, backend="misbehaving:Endless", stop=frames):
            pass
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    short = peak_after(500)
    assert peak_after(20_000) - short < 8 << 10  # KiB; the frames themselves are 46 MB


@pytest.mark.slow
def test_unknown_and_missing_back_ends(file: Path) -> None:
    with pytest.raises(InputError) as caught:
        probe(file, "moviepy")
    expected = "backend='moviepy' is unknown; expected auto, pyav, decord, opencv, torchcodec or package.module:Class"
    assert str(caught.value) == expected
    with pytest.raises(InputError, match="back end no_such:Thing cannot be loaded: No module named 'no_such'"):
        probe(file, "no_such:Thing")
    with pytest.raises(InputError, match="back end torchcodec cannot be loaded: libavutil"):
        open_source(file, "misbehaving:NeedsWhatIsNotThere")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": -1}, "start=-1, stop=None: expected 0 <= start < stop"),
        ({"start": 5, "stop": 5}, "start=5, stop=5: expected 0 <= start < stop"),
        ({"block": 0}, "block=0, max_side=None: expected at least 1"),
        ({"max_side": 0}, "block=16, max_side=0: expected at least 1"),
        ({"deadline_s": 0.0}, "deadline_s=0.0: expected a positive number of seconds"),
    ],
)
def test_bad_values(file: Path, values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(VideoReader(file, **values).blocks())  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_decoder_process_does_not_import_torch() -> None:
    """It would take seconds to start instead of a quarter of one."""
    code = "import sys, vidlbc.video.worker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
