"""The demo corpus: balanced, whole, repeatable, and unreadable from a single frame; the recipes beside it."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.commands import spoken

REPO = Path(__file__).resolve().parent.parent
SCRIPT = REPO / "datasets" / "make_motions.py"


@pytest.fixture(scope="module")
def motions():
    from vidlbc.data import motions

    return motions


@pytest.fixture(scope="module")
def corpus(motions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    assert motions.make(folder, motions.MotionsSettings(groups=6, frames=8, size=48)) == 48
    return folder


def rows_of(folder):
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.*"))}


@pytest.mark.slow
def test_classes_are_balanced_in_every_split_and_groups_do_not_cross_splits(motions, corpus):
    rows = rows_of(corpus)
    assert list(rows[0]) == ["path", "label", "group", "split"]
    splits = {row["split"] for row in rows}
    assert splits == {"train", "val", "test"}
    for split in splits:
        counts = [sum(r["label"] == name and r["split"] == split for r in rows) for name in motions.MOTIONS]
        assert len(set(counts)) == 1 and counts[0] >= 1
    assert all(len({r["split"] for r in rows if r["group"] == g}) == 1 for g in {r["group"] for r in rows})


def test_every_file_decodes_to_the_frames_asked_for(corpus):
    import av

    for row in rows_of(corpus):
        with av.open(str(corpus / row["path"])) as container:
            stream = container.streams.video[0]
            shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
        assert shapes == [(48, 48, 3)] * 8, row["path"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_pixels(motions, corpus, tmp_path):
    motions.make(tmp_path, motions.MotionsSettings(groups=6, frames=8, size=48))
    assert digests(tmp_path) == digests(corpus)
    first, other = (
        np.stack(list(motions.render(motions.MotionsSettings(groups=6, frames=8, size=48, seed=seed), 0, "left")))
        for seed in (0, 1)
    )
    assert np.abs(first.astype(int) - other).mean() > 5


@pytest.mark.slow
def test_a_second_run_does_nothing_and_an_interrupted_one_is_completed(motions, corpus, tmp_path):
    settings = motions.MotionsSettings(groups=5, frames=8, size=32)
    assert motions.make(tmp_path, settings) == 40
    whole = digests(tmp_path)
    assert motions.make(tmp_path, settings) == 0
    (tmp_path / "up" / "g01.mp4").unlink()
    (tmp_path / "motions.json").unlink()
    assert motions.make(tmp_path, settings) == 40
    assert digests(tmp_path) == whole
    assert json.loads((tmp_path / "motions.json").read_text())["groups"] == 5


def largest_gap(a, b):
    """Kolmogorov-Smirnov distance of two samples."""
    at = np.concatenate([a, b])
    below_a, below_b = (np.searchsorted(np.sort(sample), at, "right") / len(sample) for sample in (a, b))
    return np.abs(below_a - below_b).max()


@pytest.mark.slow
def test_a_random_frame_is_distributed_alike_in_every_class(motions):
    rng = np.random.default_rng(0)
    clips, frames = 4000, 24
    samples = {}
    for name in motions.MOTIONS:
        paths = np.stack([motions.draw_path(rng, name, frames) for _ in range(clips)])
        samples[name] = paths[np.arange(clips), rng.integers(frames, size=clips)]
    limit = 1.95 * np.sqrt(2 / clips)  # p = 0.001 for one comparison
    pairs = [(a, b) for a in samples for b in samples if a < b]
    gaps = [largest_gap(samples[a][:, i], samples[b][:, i]) for a, b in pairs for i in range(3)]
    assert len(gaps) == 84 and max(gaps) < 1.15 * limit  # 84 comparisons: a little more than for one


def test_the_order_of_frames_tells_the_class(motions):
    rng = np.random.default_rng(1)
    for _ in range(200):
        path = {name: motions.draw_path(rng, name, 24) for name in motions.MOTIONS}
        assert path["left"][-1, 0] < path["left"][0, 0] and path["right"][-1, 0] > path["right"][0, 0]
        assert path["up"][-1, 1] < path["up"][0, 1] and path["down"][-1, 1] > path["down"][0, 1]
        assert path["approach"][-1, 2] > path["approach"][0, 2] and path["recede"][-1, 2] < path["recede"][0, 2]
        for name, sign in (("clockwise", 1), ("counterclockwise", -1)):
            step = np.diff(path[name][:, :2], axis=0)
            turning = step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]  # rows grow downwards
            assert (np.sign(turning) == sign).all()
        for name in motions.MOTIONS:  # the blob stays in the picture
            assert (path[name][:, :2] > 0.05).all() and (path[name][:, :2] < 0.95).all()


def ridge_accuracy(train, train_labels, test, test_labels, strength):
    mean = train.mean(0)
    gram = (train - mean) @ (train - mean).T
    targets = np.eye(8)[train_labels] - 1 / 8
    weights = np.linalg.solve(gram + strength * np.trace(gram) / len(gram) * np.eye(len(gram)), targets)
    return float((((test - mean) @ (train - mean).T @ weights).argmax(1) == test_labels).mean())


@pytest.mark.slow
def test_one_frame_classifies_at_chance_and_motion_does_not(motions):
    """Ridge regression on a random frame's pixels against the same on where frame differences lie over time."""
    settings = motions.MotionsSettings(groups=40, frames=12, size=32)
    rng = np.random.default_rng(0)
    single, moving, labels, training = [], [], [], []
    for group in range(settings.groups):
        for label, name in enumerate(motions.MOTIONS):
            clip = np.stack(list(motions.render(settings, group, name))).astype(np.float32).mean(-1)
            small = clip.reshape(12, 16, 2, 16, 2).mean((2, 4))
            single.append(small[rng.integers(12)].ravel())
            change = np.abs(np.diff(clip, axis=0)).reshape(11, 4, 8, 4, 8).mean((2, 4))
            moving.append(np.stack([change[:4].mean(0), change[4:7].mean(0), change[7:].mean(0)]).ravel())
            labels.append(label)
            training.append(motions.split_of(group, settings.groups) != "test")
    x, y, labels, training = np.array(single), np.array(moving), np.array(labels), np.array(training)
    alone, together = (
        ridge_accuracy(f[training], labels[training], f[~training], labels[~training], 0.01) for f in (x, y)
    )
    deviation = (0.125 * 0.875 / (~training).sum()) ** 0.5
    assert abs(alone - 0.125) < 3.5 * deviation
    assert together > 0.125 + 7 * deviation


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--groups", "2"], "groups=2: expected at least 5, so that every split gets one"),
        (["--size", "33"], "size=33: expected an even number of pixels, at least 32"),
        (["--frames", "3"], "frames=3: expected at least 8"),
    ],
)
def test_bad_settings_are_one_line(arguments, message, tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / "x", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: expected a new or empty folder, or an earlier demo corpus\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def commands():
    """Every `vidlbc X key=value ...` that the documents show."""
    found = []
    for page in sorted((REPO / "datasets").glob("*.md")):  # tests/test_readme.py has the others
        for line in page.read_text().splitlines():
            command = line.partition("  #")[0].split()
            if command[:1] == ["vidlbc"] and any("=" in word for word in command):
                found.append((page.name, *spoken(command[1:])))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page, tool, arguments", commands())
def test_documented_commands_are_understood(page, tool, arguments):
    from vidlbc.commands import compose

    compose(tool, arguments)
