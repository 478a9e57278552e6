"""Averaged weights of a training run, running or stopped, made into the files of a model folder.

OUT/training/average.safetensors + the run's request --> OUT/image_stage        (tools/pretrain_image.py)
                                                     --> OUT/model/temporal/KIND (tools/pretrain_video.py)
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.errors import InputError
from vidlbc.pipeline.train import STAGE
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tensor_files import load_tensors

IMAGE, VIDEO = "tools/pretrain_image.py", "tools/pretrain_video.py"
AVERAGE = "training/average.safetensors"


def trains(run: str) -> bool:
    """Does a step of that tool leave weights?"""
    return run in (IMAGE, VIDEO)


def model_folder(run: str, out: Path) -> Path:
    """What {NAME} of a step stands for: its model folder, or `out` where it trains none."""
    return out / "model" if run == VIDEO else out


def is_model(run: str, out: Path) -> bool:
    """Is the model of a training step whole? Its last file is there."""
    if run == IMAGE:
        return (out / "config.json").is_file()
    return any((out / "model").glob("temporal/*/model.safetensors"))


def has_weights(run: str, out: Path) -> bool:
    return is_model(run, out) or (out / AVERAGE).is_file()


def about(run: str, out: Path) -> dict[str, Any]:
    """What builds the stage that is trained: {"image": {family, options}}, or {"temporal": {kind, options}, "of": the
    digest of its image stage}. Raises InputError where the run has not begun.
    """
    place = out / "training" / ("request.json" if run == IMAGE else STAGE)
    try:
        written = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: not written by a training run ({error})") from None
    if run == IMAGE:
        return {"image": _image_config(written)}
    of = models.stored_digest(out / "model" / "image_stage")
    return {"temporal": written, "of": of.hex()}


def _image_config(request: Mapping[str, Any]) -> dict[str, Any]:
    if request.get("init") and not request.get("grow"):
        config = json.loads((models.find_model(request["init"]) / "image_stage" / "config.json").read_text())
        return {"family": config["family"], "options": config.get("options", {})}
    options = dict(request["image_stage"])
    return {"family": options.pop("family"), "options": options}


def as_stored(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Averaged weights in the types of a model folder: transforms of an image stage in float16, all else in float32."""
    if "image" not in described:
        return dict(tensors)
    return {name: models.as_stored(name, tensor) for name, tensor in tensors.items()}


def save_model(described: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path, image: Path | None) -> None:
    """Write a model folder whole: `image`: the image stage's folder that a temporal stage is of.

    Raises InputError where the weights do not fit.
    """
    plain = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    kind = "none"
    if "image" in described:
        config = described["image"]
        stage = build_image_stage(config["family"], **config["options"])
        _load(stage, plain, folder)
        models.save_image_stage(stage, folder / "image_stage", config)
    else:
        assert image is not None
        config, kind = described["temporal"], described["temporal"]["kind"]
        if image != folder / "image_stage":
            shutil.copytree(image, folder / "image_stage", dirs_exist_ok=True)
        model = models.load_image_stage(folder / "image_stage")
        temporal = models.build_temporal(kind, model.stage, **config["options"])
        _load(temporal, plain, folder)
        models.save_temporal(temporal, folder / "temporal" / kind, config, model.digest)
    write_atomic(folder / "config.json", dump_json({"format": models.FORMAT, "temporal": kind}, indent=1))


def _load(stage: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    wanted = stage.state_dict()  # buffers that are no part of a model may come beside it
    try:
        stage.load_state_dict({name: tensor for name, tensor in tensors.items() if name in wanted})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{where}: the averaged weights do not fit their request ({reason})") from None
    stage.eval().requires_grad_(False)


def finish(run: str, out: Path) -> int | None:
    """Where a run was stopped before it wrote its model: make it of the averaged weights; their step, or None."""
    if is_model(run, out) or not (out / AVERAGE).is_file():
        return None
    tensors, meta = load_tensors(out / AVERAGE)
    folder = model_folder(run, out)
    save_model(about(run, out), tensors, folder, folder / "image_stage" if run == VIDEO else None)
    return int(meta["step"])
