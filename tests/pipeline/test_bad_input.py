"""Whatever a user gets wrong is one line on stderr and exit status 2, before any work is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vidlbc
from tests.pipeline.conftest import Job, Tool, job_command, listed_videos
from vidlbc.errors import InputError
from vidlbc.pipeline import check

Frames = Callable[..., np.ndarray]
Clip = Callable[..., Path]


@pytest.fixture
def job(call_tool: Tool, motions: Path, small_model: Path, tmp_path: Path) -> Callable[..., str]:
    """The line that the job ends with; that it is one line, with status 2, is checked. Later arguments win."""

    def run(*arguments: str, root: Path = motions, model: Path = small_model, quiet: bool = True) -> str:
        done = call_tool("pretrain_video", *job_command(root, tmp_path / "run", model, *arguments)[1:])
        *before, line = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith("error: "), done.stderr
        assert not quiet or before == []
        return line.removeprefix("error: ")

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("data.root=nowhere", "nowhere: no such file or folder (expected a folder of videos or an annotation list)"),
        ("qp=99", "qp=99: expected an integer from 0 to 63"),
        ("qp=-1", "qp=-1: expected an integer from 0 to 63"),
        ("bitrate=0", "bitrate=0: expected kbit/s above 0 and below 1000000000, or null"),
        ("psnr=200", "psnr=200: expected dB above 0 and below 100, or null"),
        (
            "temporal=foo",
            "unknown temporal stage 'foo': expected one of none, transformer, lstm, or package.module:Class",
        ),
        ("precision=fp64", "precision=fp64: expected one of fp32, bf16"),
        ("device=tpu", "unknown device 'tpu': expected auto, cpu or cuda"),
        ("train.steps=0", "train.steps=0: expected more than 0"),
        ("train.minutes=long", "train.minutes=long: expected a number or null"),
        ("train.frames=1", "train.frames=1: expected a whole number of at least 2"),
        ("train.window_frames=2", "train.window_frames=2: expected a whole number of at least 3"),
        (
            "train.pictures=[nowhere]",
            "data source nowhere: no such file or folder (expected pictures, videos or a list of them)",
        ),
        ("train.ema=1", "train.ema=1.0: expected a number from 0 to below 1"),
        ("train.lr=-1", "train.lr=-1.0: expected a number of at least 0"),
        ("eval.head=resnet", "eval.head=resnet: no such choice; expected one of attentive, custom, linear, lstm"),
        (
            "eval.head.depth=3",
            "unknown option 'eval.head.depth' (in eval.head.depth=3); did you mean eval.head.dropout",
        ),
        ("+eval.head.depth=3", "head 'linear': LinearHead.__init__() got an unexpected keyword argument 'depth'"),
        ("head=linear", "unknown option 'head' (in head=linear); did you mean eval.head"),
        ("eval.epochs=0", "eval.epochs=0: expected a whole number of at least 1"),
        ("eval.rates=[]", "eval.rates=[]: expected at least one number"),
        ("eval.rates=[0.001,-1]", "eval.rates=-1.0: expected a number of at least 0"),
        ("eval.videos=0", "eval.videos=0: expected a whole number of at least 1"),
        ("processes=0", "processes=0: expected a whole number of at least 1"),
        ("launcher=slurm", "launcher=slurm: expected local or ray"),
        ("data.max_side=8", "data.max_side=8: expected a whole number of at least 16"),
        ("data.deadline_s=0", "deadline_s=0.0: expected seconds above 0"),
        ("train.step=3", "unknown option 'train.step' (in train.step=3); did you mean train.steps or train.lstm?"),
        ("frames=3", "unknown option 'frames' (in frames=3); did you mean train.frames?"),
    ],
)
def test_a_value_that_is_not_possible(job: Callable[..., str], tmp_path: Path, argument: str, line: str) -> None:
    found = job(argument)
    assert found == line or ("did you mean" in line and found.startswith(line.partition("; did")[0]))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(job: Callable[..., str]) -> None:
    message = "device 'cuda' was asked for, but torch finds no CUDA GPU: use device=cpu or device=auto"
    assert job("device=cuda") == message


def listed(folder: Path, *rows: tuple[str, str, str]) -> Path:
    """A list over files that are there, but for those called lost."""
    folder.mkdir()
    for name, _, _ in rows:
        if not name.startswith("lost"):
            (folder / name).write_bytes(b"whatever")
    return listed_videos(folder, list(rows))


@pytest.mark.slow
def test_an_unknown_label(job: Callable[..., str], tmp_path: Path) -> None:
    root = listed(tmp_path / "v", ("a.mp4", "run", "train"), ("b.mp4", "jump", "train"), ("c.mp4", "swim", "test"))
    assert job(root=root) == f"{root}: label 'swim' is in test but not in train (c.mp4)"


def test_a_split_without_files(job: Callable[..., str], tmp_path: Path) -> None:
    root = listed(tmp_path / "v", ("a.mp4", "run", "train"), ("b.mp4", "jump", "train"))
    assert job(root=root) == f"{root}: split 'test' has no files (splits found: train)"
    root = listed(tmp_path / "w", ("a.mp4", "run", "train"), ("lost.mp4", "run", "test"))
    first = tmp_path / "w" / "lost.mp4"
    assert job(root=root) == f"{root}: split 'test': none of its 1 files exists (first: {first})"
    root = listed(tmp_path / "x", ("a.mp4", "run", "test"))
    assert job(root=root) == f"{root}: split 'train' has no files (splits found: test)"


def test_folders_and_files_that_hold_no_video(job: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    assert job(root=tmp_path / "v") == f"{tmp_path}/v: no videos (the folder is empty)"
    Image.new("RGB", (64, 64)).save(tmp_path / "v" / "picture.png")
    assert job(root=tmp_path / "v").startswith(f"{tmp_path}/v: no videos (it holds 1 '.png' files; expected ")
    picture = tmp_path / "v" / "picture.png"
    assert job(root=picture).startswith(f"{picture}: not a folder, a list (.csv, ")


@pytest.mark.slow
def test_a_picture_with_the_name_of_a_video(job: Callable[..., str], make_clip: Clip, tmp_path: Path) -> None:
    """Its verdict says what it is; a job whose every training file is one stops with that."""
    for split in ("train", "test"):
        make_clip(tmp_path / "v" / split / "a" / "good.mp4", frames=2, size=(32, 32))
        Image.new("RGB", (64, 64)).save(tmp_path / "v" / split / "a" / "p.png")
        (tmp_path / "v" / split / "a" / "p.png").rename(tmp_path / "v" / split / "a" / "p.mp4")
    (tmp_path / "v" / "train" / "a" / "good.mp4").unlink()
    line = job(root=tmp_path / "v", quiet=False)
    assert line == "none of 1 training videos has 3 readable frames (train/a/p.mp4: is a picture, not a video)"


def test_places_that_will_not_do_for_outputs(job: Callable[..., str], motions: Path, tmp_path: Path) -> None:
    inside = motions.parent / "out"
    line = f"out={inside} lies inside data.root={motions.parent}: its videos would be read as data; put it elsewhere"
    assert job(f"out={inside}", root=motions.parent) == line and not inside.exists()
    (tmp_path / "file").write_text("")
    assert job(f"out={tmp_path}/file") == f"out={tmp_path}/file: cannot make the folder (File exists)"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    for _ in range(100):  # a reader process of the run may take a moment to notice that its parent has ended
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} is still in use ten seconds after the run")


def test_a_disk_that_is_too_small_is_found_before_the_work(job: Callable[..., str], small_disk: Path) -> None:
    line = job(f"out={small_disk}/run")
    assert line == f"out={small_disk}/run: 1 MB free, about 200 MB are needed"


def test_a_disk_that_fills_up(job: Callable[..., str], small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While training saves its checkpoint, and while shards are written: one line, and nothing half written."""
    monkeypatch.setattr(check, "_MINIMUM_FREE", -(2**40))
    line = job(f"out={small_disk}/run", quiet=False)
    assert line.startswith("no space left on the disk") and line.endswith("then run the same command to resume")
    left = [path for path in small_disk.rglob("*") if path.is_file() and path.name.endswith((".tmp", ".safetensors"))]
    assert [path.relative_to(small_disk) for path in left] == [Path("run/model/image_stage/model.safetensors")]

    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(max(0, free - 20_000)))
    line = job(f"out={small_disk}/run2", "temporal=none", quiet=False)
    assert "no space left on the disk" in line or "the disk is full" in line


def test_no_weights_to_start_from(call_tool: Tool, motions: Path, small_model: Path, tmp_path: Path) -> None:
    plain = [f"data.root={motions}", f"out={tmp_path}/run", f"image_stage={small_model}", "train.minutes=null"]
    done = call_tool("pretrain_video", *plain)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1].removeprefix("error: ")
    assert line == "temporal=transformer has no shipped weights to use: set train.minutes or train.steps"


def test_no_model_to_start_from(job: Callable[..., str], small_model: Path, tmp_path: Path) -> None:
    neither = "train.start=again: neither shipped nor scratch, and no model 'again': expected a model folder or one of "
    assert job("train.start=again").startswith(neither)
    empty = f"train.start={small_model}"
    line = f"{empty}: the model has no temporal stage lstm, nor another one with motion to begin with"
    assert job(empty, "temporal=lstm") == line
    assert not (tmp_path / "run").exists()


# ---- models


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "model"))


def test_a_model_that_is_not_there(job: Callable[..., str], tmp_path: Path) -> None:
    assert job("image_stage=nonexistent").startswith("no model 'nonexistent': expected a model folder or one of ")
    (tmp_path / "empty").mkdir()
    stage = tmp_path / "empty" / "image_stage"
    assert job(model=tmp_path / "empty") == f"{stage} is no model folder: {stage}/config.json does not exist"


def edit_config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(stage: Path) -> None:
        path = stage / "config.json"
        config = json.loads(path.read_text())
        changed = change(config)
        path.write_text(json.dumps(config if changed is None else changed))

    return damage


def edit_weights(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(stage: Path) -> None:
        tensors = load_file(stage / "model.safetensors")
        change(tensors)
        save_file(tensors, stage / "model.safetensors")

    return damage


def cut(stage: Path) -> None:
    path = stage / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (cut, "weights file {stage}/model.safetensors is damaged or not safetensors: "),
        (lambda stage: (stage / "model.safetensors").write_bytes(b""), "weights file {stage}/model.safetensors is "),
        (lambda stage: (stage / "model.safetensors").unlink(), "weights file {stage}/model.safetensors does not exist"),
        (lambda stage: (stage / "config.json").write_text("{not json"), "{stage}/config.json is not JSON: "),
        (lambda stage: (stage / "config.json").write_bytes(b"\xff\xfe"), "{stage}/config.json is not JSON: "),
        (edit_config(lambda c: [c]), "{stage}/config.json: expected a JSON object, got a list"),
        (edit_config(lambda c: c.pop("family") and None), "{stage}/config.json: key 'family' is None, expected a str"),
        (edit_config(lambda c: c.update(format=7)), "{stage}/config.json: model format 7, this version reads 1"),
        (edit_config(lambda c: c.update(options=3)), "{stage}/config.json: key 'options' is 3, expected a dict"),
        (
            edit_config(lambda c: c.update(family="vgg")),
            "{stage}/config.json: no network can be built from it (unknown image stage family 'vgg': exp",
        ),
        (
            edit_config(lambda c: c["options"].update(depth=3)),
            "{stage}/config.json: no network can be built from it (image stage family 'lbc': ",
        ),
        (
            edit_config(lambda c: c["options"].update(channels=[2, 4])),
            "{stage}/config.json: no network can be built from it (image stage family 'lbc': channels has 2 en",
        ),
        (edit_config(lambda c: c["options"].update(widths=[8, 16, 16, 24])), "{stage}: the weights do not fit the"),
        (edit_weights(lambda t: t.pop("coding.0")), "{stage}: coding table 0 is missing, expected (3, 64, 2)"),
        (
            edit_weights(lambda t: t.update({"coding.1": torch.zeros(3, 64, 5)})),
            "{stage}: coding table 1 has shape (3, 64, 5), expected (3, 64, 4)",
        ),
        (edit_weights(lambda t: t.pop("project.0.weight")), "{stage}: the weights do not fit the config ("),
    ],
)
def test_a_damaged_model(job: Callable[..., str], model: Path, damage: Callable[[Path], None], line: str) -> None:
    damage(model / "image_stage")
    assert job(model=model).startswith(line.format(stage=model / "image_stage"))


@pytest.mark.slow
def test_a_damaged_temporal_stage(undisturbed: Job, small_model: Path, other_model: Path, tmp_path: Path) -> None:
    assert undisturbed.returncode == 0, undisturbed.stderr
    model = Path(shutil.copytree(undisturbed.out / "model", tmp_path / "model"))
    folder = model / "temporal" / "transformer"
    with pytest.raises(InputError, match="has no temporal stage 'lstm': it has none, transformer"):
        vidlbc.load(model, device="cpu", temporal="lstm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "image_stage"}))
    with pytest.raises(InputError, match="config.json: key 'image_stage' is None, expected a str"):
        vidlbc.load(model, device="cpu")
    (folder / "config.json").write_text(json.dumps({**config, "options": {"context": "two"}}))
    with pytest.raises(InputError, match="config.json: no network can be built from it"):
        vidlbc.load(model, device="cpu")
    (folder / "config.json").write_text(json.dumps(config))
    shutil.rmtree(model / "image_stage")
    shutil.copytree(other_model / "image_stage", model / "image_stage")
    with pytest.raises(InputError, match="was trained for image stage"):
        vidlbc.load(model, device="cpu")


@pytest.mark.slow
def test_bitstreams_of_other_weights(
    call_tool: Tool, undisturbed: Job, small_model: Path, other_model: Path, make_frames: Frames, tmp_path: Path
) -> None:
    codec, other = (vidlbc.load(path, device="cpu") for path in (small_model, other_model))
    data = codec.compress(make_frames(2, (32, 32)))
    (tmp_path / "one.vlbc").write_bytes(data)
    arguments = (f"output={tmp_path}/made", f"model={other_model}", "device=cpu")
    done = call_tool("decode", f"input={tmp_path}/one.vlbc", *arguments)
    line = (
        f"error: {tmp_path}/one.vlbc: bitstream was written with weights {codec.fingerprint} (none), "
        f"these are {other.fingerprint} (none): load the model that wrote it"
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == line
    done = call_tool("decode", f"input={undisturbed.out}/shards", *arguments, "temporal=none")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{undisturbed.out}/shards: written with weights " in done.stderr
    assert done.stderr.strip().endswith(other.fingerprint[:8])

    (tmp_path / "cut.vlbc").write_bytes(data[:-5])
    done = call_tool("decode", f"input={tmp_path}/cut.vlbc", f"output={tmp_path}/made", f"model={small_model}")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/cut.vlbc: ")
    assert not list((tmp_path / "made").glob("*"))
