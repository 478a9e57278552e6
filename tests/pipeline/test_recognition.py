"""A video that was cut into several clips is recognised by views over all of it, the same as in one clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import save_small_model
from tests.pipeline.conftest import listed_videos
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError, VideoError
from vidlbc.evaluate import FeatureSet
from vidlbc.pipeline.recognition import INPUTS, features_of, labelled_videos, recognise
from vidlbc.pipeline.settings import EvaluationSettings
from vidlbc.pipeline.sources import source_frames, source_frames_at
from vidlbc.shards import EncodingSettings, LatentShards, encode_corpus, make_plan, read_annotations

Clip = Callable[..., Path]


@pytest.fixture
def codec(small_model: Path) -> Codec:
    return vidlbc.load(small_model, device="cpu")


@pytest.fixture
def corpus(make_clip: Clip, tmp_path: Path) -> Path:
    """Two test videos, of 30 and 7 frames, and two of train."""
    test, train = [("a/long.mp4", 30), ("b/short.mp4", 7)], [("a/train.mp4", 12), ("b/train.mp4", 3)]
    names = [(*video, "test") for video in test] + [(*video, "train") for video in train]
    for seed, (name, frames, _) in enumerate(names):
        make_clip(tmp_path / "videos" / name, frames=frames, size=(40, 48), seed=seed)
    return listed_videos(tmp_path / "videos", [(name, name[0], split) for name, _, split in names])


def encoded(corpus: Path, out: Path, codec: Codec, clip_frames: int) -> LatentShards:
    plan = make_plan(read_annotations(corpus), out, codec, EncodingSettings(clip_frames=clip_frames))
    encode_corpus(plan, codec=codec, bar=False)
    return LatentShards(out, "test", codec=codec)


def features(shards: LatentShards, codec: Codec, cache: Path) -> dict[str, FeatureSet]:
    settings = EvaluationSettings(frames=6, views=2, grid=2)
    return features_of(shards, "test", codec, settings, list(INPUTS), cache)


@pytest.mark.slow
def test_views_spread_over_all_clips_of_a_video(corpus: Path, codec: Codec, tmp_path: Path) -> None:
    whole = encoded(corpus, tmp_path / "whole", codec, 256)
    cut = encoded(corpus, tmp_path / "cut", codec, 8)
    assert (len(whole), len(cut)) == (2, 5)
    videos = {video.first["source"]: video for video in labelled_videos(cut)}
    counts = {name: (len(video.clips), video.frames) for name, video in videos.items()}
    assert counts == {"a/long.mp4": (4, 30), "b/short.mp4": (1, 7)}
    assert [row["start"] for _, row in videos["a/long.mp4"].clips] == [0, 8, 16, 24]

    one, several = features(whole, codec, tmp_path / "one"), features(cut, codec, tmp_path / "several")
    assert one.keys() == several.keys() == set(INPUTS)
    for name in INPUTS:
        assert len(several[name]) == 2
        # Without temporal context symbols do not depend on where a clip was cut; keys do, so videos may change places.
        order = np.argsort(one[name].labels.numpy()), np.argsort(several[name].labels.numpy())
        assert torch.equal(one[name].tokens[order[0]], several[name].tokens[order[1]])
    # The last frames of the long video count: other than those of its first clip.
    first_clip = one["latents"].tokens[0].float()
    assert not torch.equal(first_clip[:, 0], first_clip[:, -1])


@pytest.mark.slow
def test_features_are_kept(corpus: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = encoded(corpus, tmp_path / "shards", codec, 8)
    first = features(shards, codec, tmp_path / "cache")
    monkeypatch.setattr(Codec, "padded_symbols", lambda *args: pytest.fail("decoded again"))
    again = features(shards, codec, tmp_path / "cache")
    assert all(torch.equal(first[name].tokens, again[name].tokens) for name in INPUTS)


@pytest.mark.slow
def test_a_source_that_is_gone_costs_its_pixels_only(corpus: Path, codec: Codec, tmp_path: Path) -> None:
    shards = encoded(corpus, tmp_path / "shards", codec, 8)
    (corpus.parent / "b" / "short.mp4").unlink()
    found = features(shards, codec, tmp_path / "cache")
    assert {name: (len(part), len(part.failed)) for name, part in found.items()} == {
        "latents": (2, 0),
        "decoded": (2, 0),
        "pixels": (1, 1),
    }


def test_source_frames_are_the_encoded_ones_or_an_error(
    corpus: Path, codec: Codec, make_clip: Clip, tmp_path: Path
) -> None:
    shards = encoded(corpus, tmp_path / "shards", codec, 8)
    row = next(video.first for video in labelled_videos(shards) if video.frames == 30)
    chosen = np.array([0, 7, 8, 17, 29])
    picked = source_frames_at(shards, row, 30, chosen)
    assert picked.shape == (5, 40, 48, 3) and np.array_equal(picked[:2], source_frames(shards, row)[[0, 7]])
    make_clip(corpus.parent / "a" / "long.mp4", frames=20, size=(40, 48))
    with pytest.raises(VideoError, match="a/long.mp4: 20 frames, 30 were encoded: did the file change?"):
        source_frames_at(shards, row, 30, chosen)
    make_clip(corpus.parent / "a" / "long.mp4", frames=30, size=(48, 40))
    with pytest.raises(VideoError, match="a/long.mp4: "):
        source_frames_at(shards, row, 30, chosen)


def test_a_probe_can_read_the_base_layer_alone(make_clip: Clip, tmp_path: Path) -> None:
    """The same tokens as from the base's levels of the whole stream, from its bytes only."""
    layered = vidlbc.load(save_small_model(tmp_path / "model", kinds=("lstm",), base_levels=2), device="cpu")
    make_clip(tmp_path / "videos" / "a" / "one.mp4", frames=6, size=(40, 48))
    corpus = listed_videos(tmp_path / "videos", [("a/one.mp4", "a", "test")])
    whole = encoded(corpus, tmp_path / "shards", layered, 256)
    alone = LatentShards(tmp_path / "shards", "test", codec=layered, base=True)
    settings = EvaluationSettings(frames=4, views=1, grid=2, base=True)
    beside = features_of(whole, "test", layered, settings, ["latents", "decoded"], tmp_path / "a")
    base = features_of(alone, "test", layered, settings, ["latents"], tmp_path / "b")
    assert torch.equal(base["latents"].tokens, beside["latents"].tokens)
    assert base["latents"].levels == tuple((level.channels, level.stride) for level in layered.levels[2:])
    with pytest.raises(InputError, match="^eval.base=true: the image stage has no base layer$"):
        recognise(
            tmp_path / "shards",
            vidlbc.load(save_small_model(tmp_path / "plain"), device="cpu"),
            settings,
            tmp_path / "c",
        )
