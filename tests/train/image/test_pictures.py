"""Which files are training pictures, and that a crop is a pure function of its step whatever fits in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.train.image.conftest import texture
from vidlbc.errors import InputError
from vidlbc.train.data.image_data import CropSampler, CropSettings, PooledCrops
from vidlbc.train.data.pictures import PictureSource, find_files, read_pictures

CPU = torch.device("cpu")


def names(*sources):
    return [path.name for path in find_files([PictureSource.of(source) for source in sources])]


def test_folders_files_and_patterns(corpus):
    everything = names(str(corpus / "train"))
    assert everything == ["broken.jpg", "clip.mp4", *[f"p{i}.png" for i in range(6)], "small.png"]
    assert names(str(corpus / "train" / "nested" / "p[13].png")) == ["p1.png", "p3.png"]
    assert names(str(corpus / "val" / "v1.png"), str(corpus / "val")) == ["v1.png", "v0.png"]  # each file once
    assert names({"path": str(corpus / "train" / "nested"), "every": 4}) == ["p0.png", "p4.png"]
    with pytest.raises(InputError, match="holds no picture and no video"):
        names(str(corpus / "train" / "*.mkv"))
    with pytest.raises(InputError, match="expected a path, or {path: ..., every: ...}"):
        names({"folder": "x"})


def test_a_list_gives_its_train_split(corpus):
    rows = [f"nested/p{i}.png,c{i % 2},g{i},{'test' if i > 2 else 'train'}" for i in range(5)]
    (corpus / "train" / "labels.csv").write_text("path,label,group,split\n" + "\n".join([*rows, "clip.mp4,c0,g,train"]))
    try:
        assert names(str(corpus / "train" / "labels.csv")) == ["p0.png", "p1.png", "p2.png", "clip.mp4"]
    finally:
        (corpus / "train" / "labels.csv").unlink()


def test_pictures_of_one_file(corpus):
    frames = read_pictures(corpus / "train" / "clip.mp4", 3)
    assert [frame.shape for frame in frames] == [(80, 96, 3)] * 3
    assert not np.array_equal(frames[0], frames[2])
    assert len(read_pictures(corpus / "train" / "clip.mp4", 50)) == 9
    assert read_pictures(corpus / "train" / "clip.mp4", 0) == []
    (whole,) = read_pictures(corpus / "train" / "nested" / "p0.png", 3)
    assert np.array_equal(whole, texture(96, 112, 0))
    (scaled,) = read_pictures(corpus / "train" / "nested" / "p0.png", 3, max_side=56)
    assert scaled.shape == (48, 56, 3)
    with pytest.raises(InputError, match="broken.jpg: cannot identify image file"):
        read_pictures(corpus / "train" / "broken.jpg", 3)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Nine pictures of 1 MiB."""
    folder = tmp_path_factory.mktemp("large")
    for seed in range(9):
        Image.fromarray(texture(512, 683, seed)).save(folder / f"{seed}.png")
    return find_files([PictureSource(str(folder))])


def pooled(files, rank=0, world=1, **changes):
    how = CropSettings(**{"size": 32, "batch": 2, "pool_mb": 3, "steps_per_pool": 5, **changes})
    return PooledCrops(files, how, 64, 7, rank, CPU, world=world)


@pytest.mark.slow
def test_memory_is_bounded_and_a_step_needs_no_earlier_pool(large):
    crops = pooled(large)
    first = [crops(step) for step in range(12)]
    sizes = [len(crops.sampler(step).pictures) for step in (0, 5, 10)]
    assert all(3 <= size <= 4 for size in sizes)
    late = pooled(large)
    for step in (11, 3, 5):
        assert all(torch.equal(a, b) for a, b in zip(late(step), first[step], strict=True))
    buffers = [crops.sampler(step).pictures.pixels.long() for step in (0, 5, 10, 15, 20)]
    pools = [{int(picture.sum()) for picture in pixels.split(512 * 683)} for pixels in buffers]
    assert len(set.union(*pools)) > 4  # pools differ: more pictures are seen than fit at once


@pytest.mark.slow
def test_ranks_share_the_batch_of_one_process(large):
    for step in (0, 7):
        whole = pooled(large, batch=4)(step)
        for rank in range(2):
            own = pooled(large, rank=rank, world=2)(step)
            assert all(torch.equal(a, b[2 * rank : 2 * rank + 2]) for a, b in zip(own, whole, strict=True))


@pytest.mark.slow
def test_one_pool_where_everything_fits(large):
    crops = pooled(large, pool_mb=64)
    sampler = crops.sampler(0)
    assert len(sampler.pictures) == 9 and crops.sampler(10**6) is sampler
    plain = CropSampler([read_pictures(path, 1)[0] for path in large], 32, 2, 7, range(64))
    for step in (0, 8):
        assert all(torch.equal(a, b) for a, b in zip(crops(step), plain(step), strict=True))


def test_what_is_no_use_is_named(corpus):
    crops = pooled(find_files([PictureSource(str(corpus / "train"))]), pool_mb=64)
    crops(0)
    assert [path.name for path in crops.skipped] == ["broken.jpg"]  # a smaller picture is mirrored
    crops = pooled(find_files([PictureSource(str(corpus / "train"))]), pool_mb=64, size=66)
    crops(0)
    assert sorted(path.name for path in crops.skipped) == ["broken.jpg", "small.png"]  # not to less than half a crop
    with pytest.raises(InputError, match="none of 2 files gives a picture of at least 33 pixels a side; .*broken"):
        pooled([corpus / "train" / "broken.jpg", corpus / "train" / "small.png"], size=66)(0)


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 2**40), seed=st.integers(0, 1000), size=st.integers(1, 20))
def test_a_crop_comes_from_its_picture(step, seed, size):
    ramp = np.arange(24 * 20 * 3, dtype=np.uint32).reshape(24, 20, 3)
    picture = (ramp % 251).astype(np.uint8)
    frames, qp = CropSampler([picture], size, 3, seed, range(64))(step)
    assert frames.shape == (3, 3, size, size) and qp.shape == (3,) and 0 <= int(qp.min()) <= int(qp.max()) < 64
    found = (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for crop in found:
        places = {
            view[top : top + size, left : left + size].tobytes()
            for view in (picture, picture.transpose(1, 0, 2))
            for top in range(view.shape[0] - size + 1)
            for left in range(view.shape[1] - size + 1)
        }
        turned = [crop, crop[:, ::-1], crop[::-1], crop[::-1, ::-1]]
        assert any(np.ascontiguousarray(t).tobytes() in places for t in turned)


def test_pictures_alone_are_not_trained_on_where_videos_cannot_be_read(corpus, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    files = [corpus / "train" / "nested" / "p0.png", tmp_path / "a.mp4"]
    with pytest.raises(InputError, match="none of 1 training videos can be read, .*frames_per_video=0"):
        pooled(files)(0)
    assert pooled(files, frames_per_video=0)(0)[0].shape == (2, 3, 32, 32)


@pytest.mark.slow
def test_a_pyramid_and_colours_add_to_a_corpus(large):
    plain, more = pooled(large, pool_mb=64), pooled(large, pool_mb=64, pyramid=True, colour=1.0, batch=64)
    assert len(more.sampler(0).pictures) == 3 * len(plain.sampler(0).pictures)
    frames, _ = more(0)
    assert torch.equal((frames * 255).round() / 255, frames)  # 8-bit pictures again
    drawn = pooled(large, pool_mb=64, pyramid=True, batch=64)(0)[0]
    differ = (frames - drawn).abs().amax((1, 2, 3)) > 0.02
    assert 48 < int(differ.sum()) and frames.shape == drawn.shape
    half = pooled(large, pool_mb=64, pyramid=True, colour=0.5, batch=64)(0)[0]
    assert 16 < int((half != drawn).flatten(1).any(1).sum()) < 48


def test_crops_show_every_part_of_a_picture_alike(large):
    """Columns of a gradient, drawn often: their mean is the middle, in any orientation."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    frames, _ = CropSampler([ramp], 40, 512, 0, range(64))(0)
    means = frames.mean((1, 2, 3)) * 255
    assert 94 < float(means.mean()) < 105 and float(means.min()) < 30 and float(means.max()) > 169
