"""From a node's folders to a model that loads: weights as a trainer leaves them, collected, damaged, joined."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import vidlbc
from tests.codec.small_models import IMAGE_OPTIONS, fill, noisy_frames, save_small_model, small_image_stage
from tests.offline.plans import make_plan, make_root
from vidlbc.codec import models
from vidlbc.errors import InputError
from vidlbc.offline import weights
from vidlbc.offline.collect import collect
from vidlbc.offline.join import join
from vidlbc.offline.results import Limits, newest
from vidlbc.offline.state import CUT, RUNNING, Record, Root
from vidlbc.run.tensor_files import save_tensors

LIMITS = Limits(part=1 << 17, parts=40, total=8 << 20)
META = {"step": 7, "seconds": 1.5, "skipped": 0, "progress": 0.5}


def trained_image(out: Path, seed: int = 3) -> Path:
    """What `pretrain_image` leaves while it trains."""
    stage = small_image_stage(seed)
    save_tensors(out / "training" / "average.safetensors", stage.state_dict(), META)
    request = {"image_stage": {"family": "lbc", **IMAGE_OPTIONS}, "init": None, "grow": False}
    (out / "training" / "request.json").write_text(json.dumps(request))
    (out / "training" / "log.jsonl").write_text('{"step": 5, "loss": 2.5}\n')
    (out / "training" / "validation.jsonl").write_text('{"step": 7, "cost": 2.25}\n{"step": 8, "co')
    return out


def trained_temporal(out: Path, image: Path, seed: int = 4) -> Path:
    """What `pretrain_video` leaves while it trains on the image stage of a model folder."""
    shutil.copytree(image / "image_stage", out / "model" / "image_stage")
    stage = models.build_temporal("lstm", models.load_image_stage(image / "image_stage").stage)
    fill(stage, seed)
    save_tensors(out / "training" / "average.safetensors", stage.state_dict(), META)
    (out / "training" / "stage.json").write_text(json.dumps({"kind": "lstm", "options": {}}))
    return out


@pytest.fixture
def root(tmp_path: Path) -> Root:
    plan = make_plan({"name": "image"}, {"name": "temporal", "run": "tools/pretrain_video.py"}, {"name": "later"})
    root = make_root(tmp_path / "root", plan, time.time() - 100)
    record(root, image=Record(RUNNING, out=str(root.path / "out" / "image"), started=time.time() - 90))
    trained_image(root.path / "out" / "image")
    return root


def record(root: Root, **changed: Record) -> None:
    plan, _, _ = root.pack()
    root.write_records({**root.records(plan), **changed})


def files_of(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found
    return found


def saved(folder: Path, seed: int = 3) -> Path:
    """The small stage as training would save it at its end."""
    models.save_image_stage(small_image_stage(seed), folder, {"family": "lbc", "options": IMAGE_OPTIONS})
    return folder


def test_weights_of_a_run_at_work_become_the_model_that_its_end_would_have_saved(root, tmp_path):
    collect(root, tmp_path / "results", LIMITS)
    run, step, entry = join(tmp_path / "results", tmp_path / "model")
    assert step.name == "image" and run.generation.number == 1
    assert files_of(tmp_path / "model" / "image_stage") == files_of(saved(tmp_path / "expected"))
    codec = vidlbc.load(tmp_path / "model", "cpu")
    frames = noisy_frames(2, 32, 48)
    assert codec.decompress(codec.compress(frames)).shape == frames.shape
    assert "| image | 1.0 | running |" in entry and '"cost": 2.25' in entry
    told = (tmp_path / "model" / "README.md").read_text()
    assert told.startswith("---\nlicense: apache-2.0\n") and "- torch: none" in told and codec.fingerprint in told
    assert (tmp_path / "model" / "run" / "image" / "log.jsonl").is_file()


@pytest.mark.slow
def test_a_step_that_was_stopped_is_built_on_and_both_come_home(root, tmp_path):
    """The image stage is made of its average on the node, as the runner does; then the temporal stage trains on it."""
    out = root.path / "out"
    assert weights.finish(weights.IMAGE, out / "image") == 7
    assert weights.finish(weights.IMAGE, out / "image") is None  # it is whole now
    trained_temporal(out / "temporal", out / "image")
    record(root, image=Record(CUT, out=str(out / "image")), temporal=Record(RUNNING, out=str(out / "temporal")))
    collect(root, tmp_path / "results", LIMITS)
    names = newest(tmp_path / "results").files
    assert "image/model/image_stage/model.safetensors" in names and "temporal/average.safetensors" in names
    assert not any(name.startswith("temporal/model") for name in names)  # its image stage is that of the other step
    _, step, _ = join(tmp_path / "results", tmp_path / "model", log=tmp_path / "log.md")
    assert step.name == "temporal"
    assert files_of(tmp_path / "model" / "image_stage") == files_of(saved(tmp_path / "expected"))
    # On the node its end would have given the same bytes.
    assert weights.finish(weights.VIDEO, out / "temporal") == 7
    assert files_of(tmp_path / "model" / "temporal") == files_of(out / "temporal" / "model" / "temporal")
    collect(root, tmp_path / "results", LIMITS)
    join(tmp_path / "results", tmp_path / "model", log=tmp_path / "log.md")
    assert files_of(tmp_path / "model" / "temporal") == files_of(out / "temporal" / "model" / "temporal")
    assert (tmp_path / "log.md").read_text().count("## 2") == 2


def test_an_image_stage_from_elsewhere_comes_along(root, tmp_path):
    other = save_small_model(tmp_path / "other", 9, kinds=())
    out = trained_temporal(root.path / "out" / "temporal", other)
    record(root, temporal=Record(RUNNING, out=str(out)))
    collect(root, tmp_path / "results", LIMITS)
    join(tmp_path / "results", tmp_path / "model")
    assert files_of(tmp_path / "model" / "image_stage") == files_of(other / "image_stage")


def test_weights_that_do_not_fit_or_are_half_written_cost_only_themselves(root, tmp_path):
    average = root.path / "out" / "image" / "training" / "average.safetensors"
    average.write_bytes(average.read_bytes()[:500])
    collect(root, tmp_path / "results", LIMITS)
    files = newest(tmp_path / "results").files
    assert b"damaged or not safetensors" in files["image/no-weights.txt"] and "image/log.jsonl" in files
    with pytest.raises(InputError, match="holds no weights yet"):
        join(tmp_path / "results", tmp_path / "model")


def test_an_average_that_does_not_fit_its_request_is_told(root, tmp_path):
    average = root.path / "out" / "image" / "training" / "average.safetensors"
    save_tensors(average, {"prior.odd": torch.zeros(2)}, META)
    collect(root, tmp_path / "results", LIMITS)
    with pytest.raises(InputError, match="the averaged weights do not fit their request"):
        join(tmp_path / "results", tmp_path / "model")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"step": "later"}, "step=later: expected one that left weights: image"),
        ({"out": "taken"}, "exists and is no joined model"),
        ({"results": "nowhere"}, "no such folder"),
    ],
)
def test_what_join_cannot_do_is_told_in_one_line(root, tmp_path, given: dict[str, Any], told):
    collect(root, tmp_path / "results", LIMITS)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("")
    results, out = tmp_path / given.get("results", "results"), tmp_path / given.get("out", "model")
    with pytest.raises(InputError) as caught:
        join(results, out, given.get("step"))
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "taken" / "thesis.txt").is_file()


def test_where_a_part_is_damaged_the_generation_before_is_joined(root, tmp_path):
    for _ in range(2):
        collect(root, tmp_path / "results", LIMITS)
    (tmp_path / "results" / "results-0002.0").write_bytes(b"")
    run, _, _ = join(tmp_path / "results", tmp_path / "model")
    assert run.generation.number == 1 and "results-0002.0: damaged" in run.generation.passed_over
