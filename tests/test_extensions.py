"""A family, a temporal kind, a head, a reader and a corpus format from outside the package, through the commands."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vidlbc.shards import LatentShards

OUTSIDE = '''
from fractions import Fraction
from functools import partial

import numpy as np

from vidlbc.codec.image_stage.lbc import LBC
from vidlbc.codec.temporal_stage.lstm import LSTMPrior
from vidlbc.data.corpus import Corpus, Item
from vidlbc.heads.linear import LinearHead
from vidlbc.video.contract import Picture, VideoInfo


class Thin(LBC):
    """A family: LBC of one width."""

    family = "outside:Thin"

    def __init__(self, width=8):
        four = [1, 1, 1, 1]
        super().__init__([1, 3, 4, 5], [width] * 4, four, four, prior_widths=[32, 32, 32], prior_blocks=1)


class Slow(LSTMPrior):
    """A kind: an LSTM whose readers begin at a value."""

    kind = "outside:Slow"

    def __init__(self, levels, widths, blocks=2, begin=0.0):
        super().__init__(levels, widths, blocks)
        for reader in self.readers:
            reader.bias.data.fill_(begin)


class Flat(LinearHead):
    """A head."""

    def __init__(self, levels, num_classes, grid=4, times=1):
        super().__init__(levels, num_classes, grid, basis=times)


class Numbers:
    """A reader: text files of a number of frames and a grey."""

    name, version = "numbers", "1"

    def __init__(self, path):
        self.path = path
        self.frames, self.grey = map(int, open(path).read().split())

    def _rgb(self, index, max_side):
        picture = np.full((48, 64, 3), self.grey, np.uint8)
        picture[:, (4 * index) % 64 :] += 40
        return picture

    def pictures(self):
        for index in range(self.frames):
            yield Picture(48, 64, index / 12, partial(self._rgb, index))

    def info(self, height, width):
        rate = Fraction(12)
        return VideoInfo(self.path, width, height, self.frames, rate, None, "grey", "rgb24", 0, self.name, self.version)


def read_index(root, labels):
    """A corpus format: root/index.txt, `split label name` a line."""
    rows = [line.split() for line in (root / "index.txt").read_text().splitlines()]
    classes = sorted({label for _, label, _ in rows})
    items = tuple(Item(name, classes.index(label), split=split) for split, label, name in rows)
    return Corpus(items, tuple(classes), "an index", str(root), str(root / "index.txt"))


def read_nothing(root, labels):
    return 3
'''
Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of this process and those that it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "outside.py").write_text(OUTSIDE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


@pytest.mark.slow
def test_one_of_each_through_the_commands(
    outside: Path, call_tool: Tool, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    rows = []
    for number in range(8):
        name, split = f"clips/{number}.mp4", "test" if number > 5 else "train"
        make_clip(tmp_path / "data" / name, frames=6, size=(48, 64), motion=(2.0 - 4 * (number % 2), 0.0), seed=number)
        rows.append(f"{split} {'ab'[number % 2]} {name}")
    (tmp_path / "data" / "index.txt").write_text("\n".join(rows))

    stage = tmp_path / "stage"
    done(
        call_tool(
            "pretrain_image",
            f"data.train={tmp_path}/data/clips",
            f"out={stage}",
            "image_stage=custom",
            "image_stage.family=outside:Thin",
            "+image_stage.width=16",
            "train.minutes=null",
            "train.steps=2",
            "train.size=64",
            "train.batch=2",
            "device=cpu",
        )
    )
    told = json.loads((stage / "image_stage" / "config.json").read_text())
    assert (told["family"], told["options"]) == ("outside:Thin", {"width": 16})

    job = tmp_path / "job"
    done(
        call_tool(
            "pretrain_video",
            f"data.root={tmp_path}/data",
            "data.form=outside:read_index",
            f"out={job}",
            f"image_stage={stage}",
            "temporal=outside:Slow",
            "+train.options.begin=0.125",
            "train.start=scratch",
            "train.minutes=null",
            "train.steps=2",
            "train.size=32",
            "train.frames=3",
            "eval.head=custom",
            "eval.head.kind=outside:Flat",
            "+eval.head.times=2",
            "eval.videos=2",
            "eval.frames=4",
            "eval.epochs=1",
            "device=cpu",
        )
    )
    kind = json.loads((job / "model/temporal/outside:Slow/config.json").read_text())
    assert (kind["kind"], kind["options"]) == ("outside:Slow", {"begin": 0.125})
    metrics = json.loads((job / "metrics.json").read_text())
    assert (metrics["n_videos"], metrics["n_failed"]) == (8, 0) and metrics["top1"] is not None
    shards = LatentShards(job / "shards", mode="frames")
    assert shards.classes == ("a", "b") and len(shards) == 8 and shards[0]["frames"].shape == (6, 48, 64, 3)

    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "a.mp4").write_text("5 100")
    done(
        call_tool(
            "encode",
            f"input={tmp_path}/numbers",
            f"output={tmp_path}/read",
            f"model={job}/model",
            "backend=outside:Numbers",
            "device=cpu",
        )
    )
    (sample,) = LatentShards(tmp_path / "read", mode="frames")
    assert sample["frames"].shape == (5, 48, 64, 3)


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (
            "pretrain_image",
            ["data.train=.", "image_stage=custom", "image_stage.family=outside:Flat"],
            "image stage family 'outside:Flat': expected a class of vidlbc.codec.image_stage.base:ImageStage",
        ),
        ("pretrain_image", ["data.train=.", "image_stage=custom"], "missing value: give image_stage.family=..."),
        ("encode", ["input=.", "form=outside:none"], "form 'outside:none': cannot be loaded (module 'outside' has no"),
        ("encode", ["input=.", "form=lines"], "form=lines: expected auto, or package.module:function"),
        (
            "encode",
            ["input=.", "form=outside:read_nothing"],
            "form=outside:read_nothing: gave a int, expected",
        ),
        (
            "pretrain_video",
            ["data.root=.", "temporal=nothere:A"],
            "temporal stage 'nothere:A': cannot be loaded",
        ),
    ],
)
def test_what_is_none_of_them_is_told_in_one_line(
    outside: Path, call_tool: Tool, make_clip: Callable[..., Path], tmp_path: Path, command, arguments, told
) -> None:
    make_clip(tmp_path / "a.mp4", frames=3, size=(32, 48))
    ended = call_tool(command, f"out{'' if command != 'encode' else 'put'}={tmp_path}/out", *arguments)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(f"error: {told}")
