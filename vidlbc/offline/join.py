"""Results that came home, made into a model folder: checked, joined, loaded, with a card and an entry for the log.

results --newest whole generation--> steps' weights --the last trained step, or step=--> OUT, for vidlbc.load

OUT/                  the model
OUT/README.md         the card
OUT/run/              state.json and every step's figures and print, as they came
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from vidlbc.codec import models
from vidlbc.codec.load import load
from vidlbc.errors import InputError
from vidlbc.offline import weights
from vidlbc.offline.card import card, log_entry
from vidlbc.offline.plan import Step
from vidlbc.offline.run import Run, read_run
from vidlbc.run.atomic_files import write_atomic


def join(results: Path, out: Path, step: str | None = None, log: Path | None = None) -> tuple[Run, Step, str]:
    """Write OUT and, with `log`, append to it; the run, the step whose model it is, the entry. Raises InputError."""
    run = read_run(results)
    chosen = _step(run, step)
    if out.exists() and any(out.iterdir()) and not (out / "run" / "state.json").is_file():
        raise InputError(f"out={out}: exists and is no joined model; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        made = Path(work) / "model"
        _build(run, chosen, made, Path(work))
        codec = load(made, "cpu")  # proves that every file is there and fits
        for name, data in run.generation.files.items():
            if "/model/" not in name and not name.endswith(".safetensors"):
                _write(made / "run" / name, data)
        (made / "README.md").write_text(card(out.name, run, chosen, codec))
        shutil.rmtree(out, ignore_errors=True)
        os.replace(made, out)
    entry = log_entry(out, run, chosen)
    if log is not None:
        with open(log, "a") as file:
            file.write("\n" + entry)
    return run, chosen, entry


def _step(run: Run, name: str | None) -> Step:
    there = [step for step in run.plan.steps if weights.trains(step.run) and run.has_weights(step)]
    if not there:
        raise InputError(f"generation {run.generation.number} holds no weights yet: no training had saved any")
    if name is None:
        return there[-1]
    for step in there:
        if step.name == name:
            return step
    raise InputError(f"step={name}: expected one that left weights: {', '.join(step.name for step in there)}")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _build(run: Run, step: Step, folder: Path, work: Path) -> None:
    """The model folder of a step: its own files, or made of its averaged weights."""
    own = run.files(f"{step.name}/model/")
    finished = step.run == weights.IMAGE and own or any(name.startswith("temporal/") for name in own)
    about: dict[str, Any] = {}
    for name, data in own.items():
        _write(folder / name, data)
    if not finished:
        about = json.loads(run.files(f"{step.name}/")["about.json"])
    image = None
    if step.run == weights.VIDEO:
        wanted = about.get("of") or _image_of(folder)
        image = _image_stage(run, wanted, folder, work)
        if finished:
            shutil.copytree(image, folder / "image_stage", dirs_exist_ok=True)
    if finished:
        kinds = sorted(path.name for path in (folder / "temporal").glob("*"))
        described = {"format": models.FORMAT, "temporal": kinds[0] if kinds else "none"}
        write_atomic(folder / "config.json", (json.dumps(described, indent=1) + "\n").encode())
        return
    try:
        tensors = load_safetensors(run.files(f"{step.name}/")["average.safetensors"])
    except SafetensorError as error:
        raise InputError(f"{step.name}/average.safetensors: not safetensors ({error})") from None
    weights.save_model(about, tensors, folder, image)


def _image_of(folder: Path) -> str:
    """Digest of the image stage that a temporal stage was trained for."""
    config = next((folder / "temporal").glob("*/config.json"))
    return str(json.loads(config.read_text())["image_stage"])


def _image_stage(run: Run, digest: str, folder: Path, work: Path) -> Path:
    """Of that digest: what came with the step, an image step's, or a shipped model's. Raises InputError."""
    candidates = [folder / "image_stage"]
    for step in run.plan.steps:
        if step.run == weights.IMAGE and run.has_weights(step):
            _build(run, step, work / step.name, work)
            candidates.append(work / step.name / "image_stage")
    candidates += [path / "image_stage" for path in models.shipped()]
    for candidate in candidates:
        if (candidate / "model.safetensors").is_file() and models.stored_digest(candidate).hex() == digest:
            return candidate
    raise InputError(f"the image stage {digest[:12]} that the temporal stage was trained for did not come home")
