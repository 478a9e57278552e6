"""Reading shards: samples by index, one order for any number of ranks and workers, resuming, damage."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.shards.fakes import FakeCodec, fake_frames
from vidlbc.errors import InputError, ShardError, WeightsMismatch
from vidlbc.shards import LatentShards, Permutation

Open = Callable[..., LatentShards]


def keys(samples: object) -> list[str]:
    return [sample["key"] for sample in samples]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_samples_in_every_mode(fake_shards: Open) -> None:
    codec = FakeCodec()
    for index, sample in enumerate(fake_shards(mode="frames", shuffle=False)):
        meta = sample["meta"]
        frames, height, width, seed = map(int, (fake_shards().plan.root / Path(meta["source"])).read_text().split()[:4])
        assert np.array_equal(sample["frames"], fake_frames(frames, height, width, seed)[meta["start"] : meta["stop"]])
        assert fake_shards().classes[sample["label"]] == sample["label_name"] == meta["source"].split("/")[1]
        assert len(sample["bitstream"]) == meta["bytes"]
        if index < 3:
            symbols, latents = fake_shards(mode="symbols")[index], fake_shards(mode="latents")[index]
            for level, reference in zip(symbols["symbols"], codec.symbols(sample["bitstream"]), strict=True):
                assert level.dtype == torch.int32 and torch.equal(level, reference)
            assert all(level.dtype == torch.float32 for level in latents["latents"])
            assert "frames" not in symbols and symbols["key"] == sample["key"]


def test_splits_partition_the_set(fake_shards: Open) -> None:
    everything = fake_shards(shuffle=False)
    train, test = fake_shards("train", shuffle=False), fake_shards("test", shuffle=False)
    assert sorted(keys(train) + keys(test)) == sorted(keys(everything))
    assert {sample["meta"]["split"] for sample in test} == {"test"}
    assert len(train) + len(test) == len(everything) == len(list(fake_shards()))
    assert everything[-1]["key"] == everything[len(everything) - 1]["key"]
    with pytest.raises(IndexError):
        everything[len(everything)]


@pytest.mark.slow
@given(n=st.integers(0, 300), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    order = [Permutation(n, seed, epoch)[place] for place in range(n)]
    assert sorted(order) == list(range(n))
    assert order == [Permutation(n, seed, epoch)[place] for place in range(n)]
    if n > 20:
        assert order != list(range(n)) != [Permutation(n, seed, epoch + 1)[place] for place in range(n)] != order


def test_order_is_fair() -> None:
    """Over many seeds every sample comes first about equally often, and neighbours do not stay neighbours."""
    n, seeds = 10, 2000
    first = np.bincount([Permutation(n, seed, 0)[0] for seed in range(seeds)], minlength=n)
    assert abs(first - seeds / n).max() < 5 * (seeds / n) ** 0.5
    large = np.array([Permutation(1000, 0, 0)[place] for place in range(1000)])
    assert abs(np.corrcoef(large[:-1], large[1:])[0, 1]) < 0.1
    assert Permutation(10**8, 0, 0)[10**8 - 1] < 10**8


# Places 0 to 11 of the order of 12 samples, seed 0, epoch 0.
GOLDEN = [0, 4, 2, 5, 8, 7, 11, 1, 9, 6, 10, 3]


def test_golden_order() -> None:
    """The order is a promise: a state saved by an older version must continue alike."""
    assert [Permutation(12, 0, 0)[place] for place in range(12)] == GOLDEN


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_same_order_for_any_ranks_and_workers(fake_shards: Open, world: int, workers: int) -> None:
    expected = keys(fake_shards(seed=3))
    batch = 4 // world
    loaders = [fake_shards(seed=3, rank=rank, world=world).loader(batch, workers) for rank in range(world)]
    per_rank = [[keys(samples) for samples in loader] for loader in loaders]
    seen: list[str | None] = []
    for step in range(max(map(len, per_rank))):
        parts = [batches[step] if step < len(batches) else [] for batches in per_rank]
        seen += [part[place] for place in range(batch) for part in parts if place < len(part)]
    assert seen == expected


def test_plain_iteration_by_rank_and_even_ranks(fake_shards: Open) -> None:
    expected = keys(fake_shards(seed=1))
    n = len(expected)
    for world in (2, 3, 4):
        ranks = [keys(fake_shards(seed=1, rank=rank, world=world)) for rank in range(world)]
        assert [ranks[place % world][place // world] for place in range(n)] == expected
        even = [keys(fake_shards(seed=1, rank=rank, world=world, even=True)) for rank in range(world)]
        assert {len(rank) for rank in even} == {n // world}
        assert sorted(sum(even, [])) == sorted(expected[: n // world * world])


def test_a_torch_dataloader_takes_it(fake_shards: Open) -> None:
    shards = fake_shards(shuffle=False)
    loader: DataLoader[object] = DataLoader(shards, batch_size=4, num_workers=2, collate_fn=list)  # type: ignore[arg-type]
    assert [key for batch in loader for key in keys(batch)] == keys(fake_shards(shuffle=False))


def test_epochs_differ_and_come_back(fake_shards: Open) -> None:
    shards = fake_shards(seed=5)
    epochs = [keys(shards) for _ in range(3)]
    assert shards.epoch == 3 and len({tuple(epoch) for epoch in epochs}) == 3
    again = fake_shards(seed=5)
    again.load_state_dict({**again.state_dict(), "epoch": 1})
    assert keys(again) == epochs[1]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "before", "after"), [(0, 1, 1), (2, 1, 2), (2, 2, 4), (0, 4, 1)])
def test_resume_in_the_middle_of_an_epoch(fake_shards: Open, workers: int, before: int, after: int) -> None:
    """Stop after 3 global batches of 4 at `before` ranks, go on at `after` ranks: nothing twice, nothing lost."""
    expected = keys(fake_shards(seed=2))
    seen: list[list[str]] = []
    states = []
    for rank in range(before):
        loader = fake_shards(seed=2, rank=rank, world=before).loader(4 // before, workers)
        batches = iter(loader)
        seen.append([key for _ in range(3) for key in keys(next(batches))])
        states.append(json.loads(json.dumps(loader.state_dict())))
        del batches
    assert all(state == states[0] for state in states) and states[0]["position"] == 12
    assert sorted(sum(seen, [])) == sorted(expected[:12])
    rest = []
    for rank in range(after):
        loader = fake_shards(seed=99, rank=rank, world=after).loader(4 // after, workers)
        loader.load_state_dict(states[0])
        assert len(loader) == len(list(loader)) or after == 1
        fresh = fake_shards(rank=rank, world=after)
        fresh.load_state_dict(states[0])
        rest.append(keys(fresh))
    assert [rest[place % after][place // after] for place in range(len(expected) - 12)] == expected[12:]


def test_resume_plain_iteration(fake_shards: Open) -> None:
    expected = keys(fake_shards())
    shards = fake_shards()
    start = [sample["key"] for sample, _ in zip(shards, range(5), strict=False)]
    assert start == expected[:5]
    state = shards.state_dict()
    other = fake_shards()
    other.load_state_dict(state)
    assert keys(other) == expected[state["position"] :] and state["position"] in (5, 6)
    with pytest.raises(InputError, match="the state is of .* clips of split None, this is .* of test"):
        fake_shards("test").load_state_dict(state)


def test_many_tars_few_descriptors(fake_shards: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidlbc.shards.reader._OPEN_FILES", 2)
    shards = fake_shards()
    before = len(os.listdir("/proc/self/fd"))
    assert len(keys(shards)) == len(shards)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    copy = pickle.loads(pickle.dumps(fake_shards(codec=None)))  # what a spawned DataLoader worker does
    assert copy[0]["bitstream"] == shards[0]["bitstream"]


def test_damage_is_one_line(fake_shards: Open, tmp_path: Path) -> None:
    shards = fake_shards()
    meta = shards.meta(0)
    tar = shards.folder / meta["tar"]
    original = tar.read_bytes()
    flipped = bytearray(original)
    flipped[meta["offset"] + 5] ^= 1
    tar.write_bytes(flipped)
    with pytest.raises(ShardError, match=rf"00000.tar: clip {meta['key']}: damaged \(its sha256"):
        fake_shards()[0]
    assert fake_shards(verify=False)[0]["bitstream"] != shards.table
    tar.write_bytes(original[:-512])
    with pytest.raises(ShardError, match="the tar or its table is missing or not as long as recorded"):
        fake_shards()
    tar.write_bytes(original)
    opened = fake_shards()
    tar.write_bytes(original[: meta["offset"] + 1])
    with pytest.raises(ShardError, match=rf"1 of {meta['bytes']} bytes; the tar is truncated"):
        opened[0]
    tar.unlink()
    opened.close()
    with pytest.raises(ShardError, match="the tar is missing"):
        opened[0]
    tar.write_bytes(original)
    table = shards.folder / "00000.parquet"
    table.write_bytes(b"PAR1" + bytes(table.stat().st_size - 8) + b"PAR1")
    with pytest.raises(ShardError, match=r"00000.parquet: damaged table"):
        fake_shards()


def test_what_is_not_a_finished_shard_folder(fake_shards: Open, tmp_path: Path) -> None:
    folder = fake_shards().folder
    with pytest.raises(ShardError, match=r"no such folder; did you mean LatentShards\('.*shards', split='train'\)"):
        LatentShards(folder / "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="is not a folder of shards"):
        LatentShards(tmp_path / "empty")
    with pytest.raises(ShardError, match=r"no split 'val' \(splits here: test, train\)"):
        fake_shards("val")
    with pytest.raises(InputError, match="mode=pixels: expected one of bitstream, symbols, latents, frames"):
        fake_shards(mode="pixels")
    with pytest.raises(InputError, match="rank=2, world=2"):
        fake_shards(rank=2, world=2)
    with pytest.raises(WeightsMismatch, match="written with weights ffffffff, the codec at hand has 00000000"):
        fake_shards(codec=FakeCodec("0" * 32))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(folder, unfinished)
    (unfinished / "00001_stats.json").unlink()
    with pytest.raises(ShardError, match=r"1 of \d+ shards are not finished \(first 00001\)"):
        LatentShards(unfinished)
    assert 0 < len(LatentShards(unfinished, partial=True)) < len(fake_shards())


# ---- torch's own loader, transforms


def test_the_default_collate_takes_samples(fake_shards: Open) -> None:
    """No value is None, whatever is not known of a clip."""
    batches = list(DataLoader(fake_shards(mode="bitstream"), batch_size=4))  # type: ignore[arg-type]
    assert sum(len(batch["key"]) for batch in batches) == len(fake_shards())
    first = batches[0]
    assert first["label"].dtype == torch.int64 and len(first["meta"]["source"]) == 4
    assert set(first["meta"]) == set(fake_shards().table.column_names) - {"times"}
    for sample, stored in zip(fake_shards(shuffle=False), fake_shards().table.to_pylist(), strict=True):
        assert all(sample["meta"][name] == value for name, value in stored.items() if value is not None)


def test_a_transform_takes_what_the_mode_names(fake_shards: Open) -> None:
    from torchvision.transforms import v2

    crop = v2.Compose([v2.CenterCrop(16), v2.ToDtype(torch.float32, scale=True)])
    plain, cropped = fake_shards(mode="frames"), fake_shards(mode="frames", transform=crop)
    for index in (0, len(plain) - 1):
        frames, seen = plain[index]["frames"], cropped[index]["frames"]
        assert seen.shape == (len(frames), 3, 16, 16) and seen.dtype == torch.float32
        top, left = round((frames.shape[1] - 16) / 2), round((frames.shape[2] - 16) / 2)
        expected = torch.from_numpy(frames[:, top : top + 16, left : left + 16]).permute(0, 3, 1, 2) / 255
        assert torch.allclose(seen, expected)
    assert fake_shards(mode="bitstream", transform=len)[0]["bitstream"] == len(fake_shards()[0]["bitstream"])
