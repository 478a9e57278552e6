"""Compression for machine perception: informed encoders and heads on their latents, beside pictures of equal bytes.

    vidlbc experiment machine-perception experiment=perception_actions data.folder=FOLDER out=OUT

Prints one table and writes metrics.json and a plot. The same command resumes a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSettings
from vidlbc.experiments.machine_perception.copies import CopySettings
from vidlbc.experiments.machine_perception.data import TaskSettings
from vidlbc.experiments.machine_perception.encoder import EncoderSettings, HeadSettings
from vidlbc.experiments.machine_perception.lowshot import LowShotSettings
from vidlbc.experiments.machine_perception.probe import ProbeSettings
from vidlbc.experiments.machine_perception.study import StudySettings, run_study
from vidlbc.heads.resnet import ResNetSettings
from vidlbc.run.options import Many, option, required, section
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.schedule import Budget


@dataclass
class DataOptions:
    """`data.*`."""

    actions: str = required("labelled clips with splits: an annotation list or folder")
    pictures: Many = option(
        [], "[a,b,...]: folders, files, patterns, lists (their train split) to train the codec on besides"
    )
    cache: str | None = option(None, "folder of the clips that were read; null is out/cache")
    size: int = option(128, "pixels of a clip's side; every codec codes these clips")
    frames: int = option(48, "frames of a clip at most")
    every: int = option(2, "every how many-th frame of the video")


@dataclass
class TrainOptions:
    """`train.*`."""

    steps: int = option(1500, "budget; the paper: 70 epochs of 400,000 pictures")
    minutes: float | None = option(None, "the same in minutes; whichever ends first; null: steps alone")
    lr: float = option(0.001, "peak learning rate, cosine decay; the paper: 5e-5, a tenth of it every 30 epochs")
    ema: float = option(0.995, "decay of the moving average of the weights, which is what is kept")
    size: int = option(128, "pixels of a crop's side")
    batch: int = option(6, "crops a step; the paper: 72")
    per_clip: int = option(4, "frames of each training clip among the codec's pictures")
    bf16: bool = option(
        True, "autocast of the codec in training, twice as fast where the processor has bf16 arithmetic"
    )
    seed: int = option(0, "of everything random")


@dataclass
class TaskOptions:
    """`task.*`."""

    weight: float = option(
        1.0, "lambda_t; the paper: 10 for classification beside lambda_d 100 (0.4 bit/pixel) or 10 (1.0)"
    )
    head_steps: int = option(800, "of the head alone, first: one that knows nothing tells the encoder nothing")
    clips: int = option(8, "clips a step; the paper: 256 pictures")
    frames: int = option(5, "frames of a clip, one of each equal part")
    shift: int = option(12, "a clip is moved by up to so many pixels")
    colour: float = option(0.15, "its channels' gain and offset change by up to this")


@dataclass
class HeadOptions:
    """`head.*`."""

    width: int = option(8, "planes of layer 2; 64 in the paper (ResNet-101)")
    depths: list[int] = option([1, 1, 1, 1], "blocks of layers 2 to 5; [3, 4, 23, 3] in the paper (Table 6)")
    stem: str = option(
        "subpixel", "subpixel (sResNet) or truncated (cResNet) on latents; pictures get the ResNet's own"
    )
    shuffles: int = option(2, "pixel shuffles of the sub-pixel stem, 1 or 2 (Table 2)")
    residual: bool = option(True, "skip connections in the sub-pixel stem (Table 2)")
    activation: str = option("silu", "relu, mish or silu (Table 2)")
    norm: str = option("group", "batch, as in the paper, or group, which suits small batches")
    temporal: str = option("lstm", "over the frames of a clip: mean or lstm")
    change: bool = option(True, "every frame is read with its difference to the one before")
    state: int = option(48, "channels of the LSTM in each direction")
    dropout: float = option(0.2, "before the classifier")
    levels: list[int] | None = option([0], "latents that are read, 0 is the finest; null is all of them")
    stride: int | None = option(None, "grid that several levels are brought to; null is that of the finest read")


@dataclass
class CopiesOptions:
    """`copies.*`."""

    count: int = option(8, "copies a clip; 0 leaves them out")
    scale: float = option(0.15, "zoomed by 1 +- up to this")
    shift: float = option(0.08, "moved by up to this share of the side")
    colour: float = option(0.15, "gain and offset of the channels change by up to this")


@dataclass
class ProbeOptions:
    """`probe.*`."""

    qps: list[int] = option(
        [24], "of the first encoder: where all media are compared; the paper: 0.4 and 1.0 bit/pixel"
    )
    coded_every: int = option(4, "every how many-th frame of a clip is coded, by every codec")
    sample: int = option(5, "every how many-th clip the settings of equal bytes are chosen on")
    steps: int = option(2000, "of a head's training")
    batch: int = option(12, "clips a step; the paper: 256 pictures")
    lrs: list[float] = option(
        [0.003], "learning rates; several: the best on val, with the first seed, is used; the paper: SGD, 0.1"
    )
    weight_decay: float = option(0.05, "of AdamW")
    ema: float = option(0.98, "decay of the moving average of the weights")
    seeds: int = option(1, "heads whose answers are averaged")
    kept: int = option(8, "evenly spread frames of a clip that are kept decoded")
    frames: int = option(4, "frames of a view; kept / frames views are averaged in a test")
    shift: int = option(1, "training views are moved by up to so many cells")
    cell: int = option(16, "pixels of a cell: the stride of the latents, for pictures too")


@dataclass
class Options:
    """See `--help`."""

    choices: ClassVar[dict[str, str]] = {"image_stage": "codevilla"}
    data: DataOptions = section(DataOptions)
    out: str = required("folder of everything")
    encoders: list[str] = option(
        ["naive", "action"],
        "naive, class, action, class_base, action_base; the first one's bytes are what all others match",
    )
    only: str | None = option(
        None, "an encoder to train and stop at, so that several machines can share the work; null runs all"
    )
    train: TrainOptions = section(TrainOptions, "of every encoder")
    task: TaskOptions = section(TaskOptions, "of the informed encoders")
    head: HeadOptions = section(HeadOptions, "of the encoders' tasks and of every measurement")
    anchors: list[str] = option(
        ["x264", "jpeg", "rgb"], "pictures to compare with: x264, jpeg (each frame), rgb (uncompressed)"
    )
    media: list[str] | None = option(
        None, "some of the encoders and anchors: their heads alone are trained, so that machines share the work"
    )
    copies: CopiesOptions = section(
        CopiesOptions, "of every training clip, changed and then coded, for the heads; never counted in a rate"
    )
    probe: ProbeOptions = section(ProbeOptions, "heads on frozen media")
    low_shot: LowShotSettings = section(LowShotSettings, "on classes that neither encoder nor head was informed of")
    ablation: list[Any] = option(
        [], "[{name: A, stem: ..., shuffles: ..., ...}]: heads tried on the first encoder's latents (Table 2)"
    )


def settings_of(config: DictConfig) -> StudySettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, train, task, stage = values["data"], values["train"], values["task"], dict(values["image_stage"])
    head, probe, low_shot = head_of(values["head"]), values["probe"], values["low_shot"]
    novel = low_shot.pop("novel")
    low_shot["novel"] = tuple(novel) if isinstance(novel, list) else novel
    encoder = EncoderSettings(
        family=stage.pop("family"),
        options=stage,
        pictures=tuple(PictureSource.of(entry) for entry in data["pictures"]),
        budget=Budget(train.pop("steps"), train.pop("minutes")),
        weight=task.pop("weight"),
        task=TaskSettings(**task),
        head=head,
        **train,
    )
    return StudySettings(
        actions=data["actions"],
        clips=ClipSettings(data["size"], data["frames"], data["every"]),
        cache=Path(data["cache"]) if data["cache"] else None,
        out=Path(config.out),
        encoder=encoder,
        encoders=tuple(values["encoders"]),
        only=values["only"],
        anchors=tuple(values["anchors"]),
        media=None if values["media"] is None else tuple(values["media"]),
        qps=tuple(probe.pop("qps")),
        coded_every=probe.pop("coded_every"),
        sample=probe.pop("sample"),
        copies=CopySettings(**values["copies"]),
        probe=ProbeSettings(**{**probe, "lrs": tuple(probe["lrs"])}),
        low_shot=LowShotSettings(**{**low_shot, "shots": tuple(low_shot["shots"])}),
        ablation=tuple(variant_of(entry, values["head"]) for entry in values["ablation"]),
    )


def head_of(values: dict[str, Any]) -> HeadSettings:
    own = {name: values[name] for name in ("temporal", "state", "dropout", "stride", "change")}
    net = {name: value for name, value in values.items() if name not in {*own, "levels"}}
    levels = None if values["levels"] is None else tuple(values["levels"])
    return HeadSettings(ResNetSettings(**{**net, "depths": tuple(net["depths"])}), levels=levels, **own)


def variant_of(entry: Any, head: dict[str, Any]) -> tuple[str, HeadSettings]:
    """An entry of `ablation`: a name, and the options of head that differ."""
    if not isinstance(entry, dict) or "name" not in entry:
        raise InputError(f"ablation: {entry!r}, expected {{name: ..., options of head ...}}")
    changed = {name: value for name, value in entry.items() if name != "name"}
    unknown = sorted(set(changed) - set(head))
    if unknown:
        raise InputError(f"ablation: {entry['name']} sets {unknown[0]}, expected some of {', '.join(head)}")
    return str(entry["name"]), head_of({**head, **changed})


def main(config: DictConfig) -> None:
    run_study(settings_of(config))
