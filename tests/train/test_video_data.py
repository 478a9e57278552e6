"""Training clips: from videos and from still pictures, a pure function of the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.codec.small_models import noisy_frames
from vidlbc.train.data.camera_motion import _view, moving_pictures
from vidlbc.train.data.packed import Draw, Packed
from vidlbc.train.data.video_data import ClipSampler, ClipSettings
from vidlbc.video import write_mp4


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    write_mp4(path, noisy_frames(12, 64, 64, seed=2), fps=10)
    return path


def picture(seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray:
    return noisy_frames(1, height, width, seed=seed)[0]


CPU = torch.device("cpu")


def drawn(count: int, seed: int = 0) -> Draw:
    return Draw(count, CPU, generator=torch.Generator().manual_seed(seed))


def test_a_camera_that_moves_by_whole_pixels_shows_the_picture_itself() -> None:
    shown = picture()
    source = torch.from_numpy(shown).permute(2, 0, 1)[None].float().expand(2, -1, -1, -1)
    maps = torch.tensor([[[1.0, 0, 40 + 3 * t + 15.5], [0, 1.0, 20 + 2 * t + 15.5]] for t in range(4)])
    seen = _view(source, torch.stack([maps, maps.flip(0)]), 32).round().permute(0, 1, 3, 4, 2).numpy()
    for clip in (seen[0], seen[1][::-1]):
        for t, frame in enumerate(clip):
            np.testing.assert_array_equal(frame, shown[20 + 2 * t : 52 + 2 * t, 40 + 3 * t : 72 + 3 * t])


def test_moving_pictures_move_and_depend_on_the_draw_alone() -> None:
    pictures = Packed([picture(1), picture(2, 60, 200)])
    rows = torch.arange(12)
    clips = moving_pictures(pictures, 4, 48, drawn(12), rows)
    assert clips.shape == (12, 4, 48, 48, 3) and clips.dtype == torch.uint8
    assert torch.equal(clips, moving_pictures(pictures, 4, 48, drawn(12), rows))
    assert torch.equal(clips[[2, 7]], moving_pictures(pictures, 4, 48, drawn(12), rows[[2, 7]]))
    assert not torch.equal(clips, moving_pictures(pictures, 4, 48, drawn(12, seed=1), rows))
    assert sum(bool((clip[0] != clip[1]).any()) for clip in clips) >= 9
    assert len({clip.numpy().tobytes() for clip in clips}) == 12


def test_a_camera_sees_the_picture_and_not_only_its_corner() -> None:
    """A picture whose left half is dark and right half bright: views of it show either, or both."""
    halves = np.zeros((100, 200, 3), np.uint8)
    halves[:, 100:] = 200
    means = moving_pictures(Packed([halves]), 2, 16, drawn(64), torch.arange(64)).float().mean((1, 2, 3, 4))
    assert int((means < 50).sum()) > 5 and int((means > 150).sum()) > 5


def test_every_second_step_is_large(video: Path) -> None:
    settings = ClipSettings(frames=3, size=32, batch=8, large_size=64)
    sampler = ClipSampler([video], settings, num_qp=64)
    shapes = [tuple(sampler(step)[0].shape) for step in range(3)]
    assert shapes == [(8, 3, 3, 32, 32), (2, 3, 3, 64, 64), (8, 3, 3, 32, 32)]
    # The video is 64 pixels a side: larger crops come from pictures, or else with mirrored borders.
    settings = ClipSettings(frames=3, size=32, batch=4, large_size=80, picture_share=0.0)
    grey = np.full((90, 90, 3), 7, np.uint8)
    assert float(ClipSampler([video], settings, num_qp=64, pictures=[grey])(1)[0].float().mean()) < 16
    assert ClipSampler([video], settings, num_qp=64)(1)[0].shape == (1, 3, 3, 80, 80)


def test_a_picture_smaller_than_the_crop_is_mirrored() -> None:
    clips = moving_pictures(Packed([picture(3, 20, 30)]), 3, 64, drawn(2), torch.arange(2))
    assert clips.shape == (2, 3, 64, 64, 3) and float(clips.float().std()) > 5


def test_steps_are_pure_and_pictures_take_their_share(video: Path) -> None:
    def sampler(share: float) -> ClipSampler:
        settings = ClipSettings(frames=4, size=32, batch=3, picture_share=share)
        return ClipSampler([video], settings, num_qp=64, seed=5, pictures=[np.full((64, 64, 3), 7, np.uint8)])

    first, again = sampler(0.5), sampler(0.5)
    for step in (0, 9, 4):
        frames, qp = first(step)
        assert frames.shape == (3, 4, 3, 32, 32) and frames.dtype == torch.uint8
        assert all(torch.equal(a, b) for a, b in zip((frames, qp), again(step), strict=True))

    def still(share: float) -> int:  # the picture is one grey: what little varies in it is drift and noise
        drawn = torch.cat([sampler(share)(step)[0] for step in range(8)])
        return int((drawn.float().mean((1, 2, 3, 4)) < 12).sum())

    assert still(0.0) == 0 and still(1.0) == 24 and 4 <= still(0.5) <= 20


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_ranks_share_the_batch_of_one_process(video: Path, share: float) -> None:
    def sampler(batch: int, rank: int = 0, world: int = 1) -> ClipSampler:
        settings = ClipSettings(frames=4, size=32, batch=batch, picture_share=share)
        return ClipSampler([video], settings, 64, seed=5, rank=rank, world=world, pictures=[picture(3, 40, 50)])

    for step in (0, 9):
        whole = sampler(4)(step)
        assert len({clip.numpy().tobytes() for clip in whole[0]}) > 1
        for world in (2, 4):
            parts = [sampler(4 // world, rank, world)(step) for rank in range(world)]
            joined = [torch.cat(rows) for rows in zip(*parts, strict=True)]
            assert all(torch.equal(a, b) for a, b in zip(joined, whole, strict=True))
