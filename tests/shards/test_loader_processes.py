"""Batches by worker processes of every start method, with a real codec that was used here before."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import save_small_model
from vidlbc.errors import InputError
from vidlbc.shards import LatentShards

CLIPS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model"), kinds=("lstm",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Path, make_clip: Callable[..., Path]) -> Path:
    from vidlbc.shards import EncodingSettings, encode_corpus, make_plan, read_annotations

    place = tmp_path_factory.mktemp("shards")
    for number in range(CLIPS):
        make_clip(place / "videos" / "ab"[number % 2] / f"{number}.mp4", frames=3, size=(48, 48), seed=number)
    codec = vidlbc.load(model, "cpu")
    settings = EncodingSettings(model=str(model), temporal="lstm")
    plan = make_plan(read_annotations(place / "videos"), place / "out", codec, settings)
    encode_corpus(plan, codec=codec, bar=False)
    return place / "out"


def same(one: dict, other: dict) -> bool:
    pairs = zip(one["latents"], other["latents"], strict=True)
    return one["key"] == other["key"] and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "workers", "stay"),
    [("fork", 0, False), ("fork", 1, True), ("fork", 2, False), ("spawn", 1, True), ("forkserver", 1, True)],
)
def test_workers_decode_what_is_decoded_here(folder: Path, method: str, workers: int, stay: bool) -> None:
    shards = LatentShards(folder, mode="latents", seed=1)
    expected = [list(shards), list(shards)]  # threads of the codec are at work here from now on
    options = {"multiprocessing_context": method, "persistent_workers": stay} if workers else {}
    loaders = [
        LatentShards(folder, mode="latents", seed=1, codec=shards.codec).loader(size, workers, **options)
        for size in (2, 3)
    ]
    for epoch in expected:
        runs = [iter(loader) for loader in loaders]
        seen: list[list[dict]] = [[], []]
        for _ in range(CLIPS):  # two at once
            for place, run in enumerate(runs):
                seen[place] += next(run, [])
        for samples in seen:
            assert len(samples) == CLIPS and all(map(same, samples, epoch))


@pytest.mark.slow
def test_workers_that_stay_take_the_next_epoch(folder: Path) -> None:
    shards = LatentShards(folder, mode="latents", seed=1)
    expected = [[sample["key"] for sample in shards] for _ in range(3)]
    loader = LatentShards(folder, mode="latents", seed=1).loader(2, 2, persistent_workers=True)
    first = iter(loader)
    assert [sample["key"] for sample in next(first)] == expected[0][:2]
    del first  # left in the middle; what is left of the epoch comes next
    seen = [[sample["key"] for batch in loader for sample in batch] for _ in range(3)]
    assert seen == [expected[0][2:], expected[1], expected[2]]


@pytest.mark.slow
def test_a_killed_parent_leaves_no_worker(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys, vidlbc\n"
        "shards = vidlbc.LatentShards(sys.argv[1], mode='latents'); shards[0]\n"
        "from torch.multiprocessing import active_children\n"
        "while True:\n"
        "    for batch in shards.loader(1, 2): print(*(child.pid for child in active_children()), flush=True)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    workers = [int(number) for number in run.stdout.readline().split()]
    assert len(workers) == 2
    run.send_signal(signal.SIGKILL)
    run.communicate()
    until = time.monotonic() + 30  # torch's workers look for their parent every five seconds
    while time.monotonic() < until and any(_lives(pid) for pid in workers):
        time.sleep(0.1)
    assert not any(_lives(pid) for pid in workers)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_used_codec_is_copied_and_forked(model: Path) -> None:
    codec = vidlbc.load(model, "cpu")
    frames = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    data = codec.compress(frames, rdo=False)
    shown = codec.decompress(data)  # long enough for graphs
    copy = pickle.loads(pickle.dumps(codec))
    assert copy.compress(frames, rdo=False) == data and np.array_equal(copy.decompress(data), shown)
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        signal.alarm(60)
        os._exit(0 if np.array_equal(codec.decompress(data), shown) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_gpus_codec_is_not_forked(folder: Path) -> None:
    class OnGpu:
        def __init__(self, fingerprint: str) -> None:
            self.fingerprint, self.device = fingerprint, torch.device("cuda")

    shards = LatentShards(folder, mode="latents", codec=OnGpu(LatentShards(folder).plan.fingerprint))
    with pytest.raises(InputError, match=r"num_workers=2: a codec on a GPU .* multiprocessing_context='spawn'"):
        next(iter(shards.loader(2, 2, multiprocessing_context="fork")))
