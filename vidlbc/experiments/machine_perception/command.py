"""Compression for machine perception: informed encoders and heads on their latents, beside pictures of equal bytes.

    vidlbc experiment machine-perception experiment=perception_actions data.folder=FOLDER out=OUT

Prints one table and writes metrics.json and a plot. The same command resumes a stopped run.
"""

from pathlib import Path
from typing import Any

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
from vidlbc.train.data.pictures import Source
from vidlbc.train.schedule import Budget


def settings_of(config: DictConfig) -> StudySettings:
    values: Any = OmegaConf.to_container(config, resolve=True)
    data, train, task, stage = values["data"], values["train"], values["task"], dict(values["image_stage"])
    head, probe, low_shot = head_of(values["head"]), values["probe"], values["low_shot"]
    novel = low_shot.pop("novel")
    low_shot["novel"] = tuple(novel) if isinstance(novel, list) else novel
    encoder = EncoderSettings(
        family=stage.pop("family"),
        options=stage,
        pictures=tuple(Source.of(entry) for entry in data["pictures"]),
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
