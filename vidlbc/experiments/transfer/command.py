"""Transfer of a compression model to other tasks, against the same network from random weights and from a transform.

    vidlbc experiment transfer experiment=transfer_default data.folder=DATA out=FOLDER

Classification from f, boundaries and super-resolution from f and g. The same command resumes a stopped run.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.transfer.classes import ClassSettings
from vidlbc.experiments.transfer.dense import DenseSettings
from vidlbc.experiments.transfer.study import (
    BoundariesPart,
    ClassesPart,
    ResolutionPart,
    TransferSettings,
    run_transfer,
)
from vidlbc.run.options import Many, option, required, section
from vidlbc.train.data.pictures import PictureSource


@dataclass
class DataOptions:
    """`data.*`."""

    cache: str | None = option(None, "where read clips are kept; null is OUT/cache")
    segmentation: str | None = option(
        None, "folder of NAME_boundaries.png, the mean of the annotators; null only where boundaries are left out"
    )


@dataclass
class ClassesOptions:
    """`classes.*`."""

    sets: list[Any] | None = option(
        None, "annotation lists by name, e.g. [{actions: FOLDER/labels.csv}]; null leaves the task out"
    )
    contestants: list[str] = option(
        ["pretrained/frozen", "klt/frozen", "random/frozen", "pretrained/tuned", "klt/tuned", "random/tuned"],
        "the rows",
    )
    clips: ClipSettings = section(ClipSettings)
    train: ClassSettings = section(ClassSettings)


@dataclass
class BoundariesOptions:
    """`boundaries.*`."""

    train: Many | None = option(None, "pictures: folders, files, patterns; null leaves the task out")
    test: Many | None = option(None, "the same: pictures to measure on; null only where the task is left out")
    pictures: int | None = option(None, "at most so many test pictures, evenly spread; null is all")
    contestants: list[str] = option(
        ["pretrained/frozen", "klt/frozen", "random/frozen", "pretrained/tuned", "random/tuned"], "the rows"
    )
    training: DenseSettings = section(partial(DenseSettings, batch=4, size=160))


@dataclass
class SuperResolutionOptions:
    """`super_resolution.*`."""

    train: Many | None = option(None, "pictures: folders, files, patterns; null leaves the task out")
    test: list[Any] | None = option(
        None, "[{NAME: pictures}, ...]: sets to measure on; null only where the task is left out"
    )
    pictures: int | None = option(None, "at most so many of each test set, evenly spread; null is all")
    scale: int = option(2, "bicubic down by this, and up again")
    contestants: list[str] = option(
        ["pretrained/frozen", "pretrained/frozen+identity", "pretrained/tuned", "klt/tuned", "random/tuned"], "the rows"
    )
    training: DenseSettings = section(partial(DenseSettings, batch=8, size=96))


@dataclass
class Options:
    """See `--help`."""

    model: str = option("default", "shipped model or model folder, of family lbc")
    out: str = required("folder of the checkpoints, metrics.json, table and pictures")
    data: DataOptions = section(DataOptions)
    classes: ClassesOptions = section(ClassesOptions)
    boundaries: BoundariesOptions = section(BoundariesOptions)
    super_resolution: SuperResolutionOptions = section(SuperResolutionOptions)


def settings_of(config: DictConfig) -> TransferSettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    classes, boundaries, resolution = (values[name] for name in ("classes", "boundaries", "super_resolution"))
    out = Path(config.out)
    return TransferSettings(
        out,
        config.model,
        _classes(classes, values["data"]["cache"]) if classes["sets"] else None,
        _boundaries(boundaries, values["data"]["segmentation"]) if boundaries["train"] else None,
        _resolution(resolution) if resolution["train"] else None,
    )


def _classes(part: dict[str, Any], cache: str | None) -> ClassesPart:
    settings = ClassSettings(**{**part["train"], "strides": tuple(part["train"]["strides"])})
    place = None if cache is None else Path(cache)
    sets, clips = _named("classes.sets", part["sets"]), ClipSettings(**part["clips"])
    return ClassesPart(tuple(part["contestants"]), sets, clips, settings, place)


def _boundaries(part: dict[str, Any], segmentation: str | None) -> BoundariesPart:
    if segmentation is None or part["test"] is None:
        raise InputError("boundaries.train is given: boundaries.test and data.segmentation are needed too")
    return BoundariesPart(
        tuple(part["contestants"]),
        _sources(part["train"]),
        _sources(part["test"]),
        Path(segmentation),
        DenseSettings(**part["training"]),
        part["pictures"],
    )


def _resolution(part: dict[str, Any]) -> ResolutionPart:
    if part["test"] is None:
        raise InputError("super_resolution.train is given: super_resolution.test is needed too")
    test = {name: _sources(place) for name, place in _named("super_resolution.test", part["test"]).items()}
    settings = DenseSettings(**part["training"])
    return ResolutionPart(
        tuple(part["contestants"]), _sources(part["train"]), test, part["scale"], settings, part["pictures"]
    )


def _named(option: str, entries: Any) -> dict[str, Any]:
    """[{name: place}, ...] as one mapping."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{option}={entries}: expected [{{NAME: PLACE}}, ...]")
    return {name: place for entry in entries for name, place in entry.items()}


def _sources(entries: Any) -> tuple[PictureSource, ...]:
    return tuple(PictureSource.of(entry) for entry in (entries if isinstance(entries, list) else [entries]))


def main(config: DictConfig) -> None:
    settings = settings_of(config)
    run_transfer(settings)
    print(f"\nevery figure: {settings.out / 'metrics.json'}")
