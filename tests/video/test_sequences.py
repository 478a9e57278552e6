"""Videos that are no video file: folders of numbered pictures, animated WebP."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidlbc.data.content import content_of
from vidlbc.errors import InputError
from vidlbc.shards import read_annotations
from vidlbc.video import VideoReader, examine, open_source
from vidlbc.video.sequences import is_animated_webp, numbered_pictures

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 255, (12, 24, 32, 3), dtype=np.uint8)


def frame_folder(folder: Path, name: str = "img_{:05d}.png", first: int = 1, count: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(PICTURES[index]).save(folder / name.format(first + index))
    return folder


def read(path: Path, **options: object) -> tuple[np.ndarray, VideoReader]:
    reader = VideoReader(path, **options)  # type: ignore[arg-type]
    return np.concatenate(list(reader.blocks())), reader


@pytest.mark.parametrize(
    ("name", "first"), [("img_{:05d}.png", 1), ("{}.png", 8), ("frame-{:03d}.BMP", 0), ("v2_{:02d}.tiff", 95)]
)
def test_a_folder_of_numbered_pictures_is_a_video(tmp_path: Path, name: str, first: int) -> None:
    """In the order of the numbers, which need no zeros in front: 8, 9, 10."""
    folder = frame_folder(tmp_path / "clip", name, first)
    (folder / "notes.txt").write_text("what else lies there does not matter")
    frames, reader = read(folder, picture_fps=12.5)
    assert np.array_equal(frames, PICTURES) and str(reader.verdict) == "ok"
    assert reader.seconds == pytest.approx([index / 12.5 for index in range(12)])
    assert reader.info is not None and (reader.info.fps, reader.info.frames) == (Fraction(25, 2), 12)
    assert np.array_equal(open_source(folder).frames_at([3, 7]), PICTURES[[3, 7]])
    assert np.array_equal(read(folder, backend="decord")[0], PICTURES)


def test_what_is_no_such_folder(tmp_path: Path) -> None:
    for name, files in {
        "gap": ["a1.png", "a2.png", "a4.png"],
        "names": ["a1.png", "b2.png", "a3.png"],
        "kinds": ["a1.png", "a2.jpg", "a3.png"],
        "twice": ["a1.png", "a01.png", "a2.png", "a3.png"],
        "two": ["a1.png", "a2.png"],
        "loose": ["a1.png", "a2.png", "a3.png", "cover.png"],
        "empty": [],
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            Image.fromarray(PICTURES[0]).save(tmp_path / name / file)
        assert numbered_pictures(tmp_path / name) == []
        assert str(examine(tmp_path / name)[1]) == "unreadable: is a folder, not a video file"
    for beside in ("film.mp4", "folder/x.txt"):  # it would be lost
        folder = frame_folder(tmp_path / beside.replace("/", "_"))
        (folder / beside).parent.mkdir(exist_ok=True)
        (folder / beside).write_text("x")
        assert numbered_pictures(folder) == []
    with pytest.raises(InputError, match="picture_fps=0: expected frames a second above 0"):
        VideoReader(frame_folder(tmp_path / "clip"), picture_fps=0)


def test_a_damaged_picture_ends_the_good_part(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "clip")
    path = folder / "img_00006.png"
    path.write_bytes(path.read_bytes()[:300])
    frames, reader = read(folder)
    assert np.array_equal(frames, PICTURES[:5])
    assert str(reader.verdict).startswith("damaged (5 frames): img_00006.png does not decode")
    frame_folder(folder)
    Image.fromarray(PICTURES[0][:20]).save(folder / "img_00004.png")
    assert str(examine(folder)[1]).startswith("damaged (3 frames): frame 3 is 32x20, the frames before it 32x24")


def test_pictures_of_every_mode(tmp_path: Path) -> None:
    grey = Image.fromarray(PICTURES[0, ..., 0])
    deep = Image.fromarray(PICTURES[0, ..., 0].astype(np.uint16) << 8)
    clear = Image.fromarray(np.dstack([PICTURES[0], np.full((24, 32), 255, np.uint8)]))
    for name, picture in (("grey", grey), ("deep", deep), ("clear", clear), ("palette", grey.convert("P"))):
        folder = tmp_path / name
        folder.mkdir()
        for number in (1, 2, 3):
            picture.save(folder / f"{number}.png")
        frames, _ = read(folder)
        expected = PICTURES[0] if name == "clear" else np.repeat(PICTURES[0, ..., :1], 3, axis=2)
        assert np.array_equal(frames, np.stack([expected] * 3)), name


def test_an_animated_webp_is_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    first, *rest = [Image.fromarray(picture) for picture in PICTURES[:4]]
    first.save(path, save_all=True, append_images=rest, duration=[40, 40, 900, 40], lossless=True)
    assert is_animated_webp(path)
    frames, reader = read(path)
    assert np.array_equal(frames, PICTURES[:4])
    assert reader.seconds == pytest.approx([0, 0.04, 0.08, 0.98]) and "variable frame rate" in str(reader.verdict)
    still = tmp_path / "b.webp"
    first.save(still)
    assert not is_animated_webp(still) and str(examine(still)[1]) == "unreadable: is a picture, not a video"


def test_they_are_found_in_a_corpus(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for place in ("wave/one", "wave/two", "walk/three"):
        frame_folder(root / place)
    first, *rest = [Image.fromarray(picture) for picture in PICTURES[:3]]
    first.save(root / "walk" / "a.webp", save_all=True, append_images=rest, duration=40)
    first.save(root / "walk" / "poster.webp")
    corpus = read_annotations(root)
    assert {item.path: corpus.classes[item.label or 0] for item in corpus.items} == {
        "wave/one": "wave",
        "wave/two": "wave",
        "walk/three": "walk",
        "walk/a.webp": "walk",
    }
    (root / "walk" / "film.mp4").write_text("x")  # beside video files, folders of pictures are their thumbnails
    assert {item.path for item in read_annotations(root).items} == {"walk/film.mp4", "walk/a.webp"}
    (root / "walk" / "film.mp4").unlink()
    (root / "labels.csv").write_text("path,label\nwave/one,wave\nwalk/three,walk\n")
    assert len(read_annotations(root).items) == 2
    assert [item.path for item in read_annotations(root / "wave" / "one").items] == ["one"]
    content = content_of(root, "wave/one")
    assert content == content_of(root, "wave/two") and content.size > 0 and not content.problem
    Image.fromarray(PICTURES[0]).save(root / "wave" / "two" / "img_00013.png")
    assert content != content_of(root, "wave/two")
    assert content_of(root, "wave").problem == "a folder, not a video file"
