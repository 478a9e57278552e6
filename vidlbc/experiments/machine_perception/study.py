"""Compression for machine perception (Codevilla et al., arXiv 2111.02249) on clips: the study from start to end.

    clips, pictures --> encoders (naive, informed)                        out/encoders/NAME: model folders
    every clip --> bitstreams of equal bytes: latents, x264, JPEG         out/media/qpQ/NAME
    copies of training clips, changed and coded alike                     for the heads to train on
    frozen media --> the same network on each, several seeds              out/heads/qpQ/NAME/...
                 --> the linear probe on each
    --> top-1 with intervals, paired differences, low-shot curves         out/metrics.json, out/plots/*.png

The first encoder's bytes at each QP of `probe.qps` are the target: every other codec's setting is chosen to come
nearest to it on a sample of the clips, and the true bytes of all clips are told.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidlbc.codec.inputs import check_qp
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet, ClipSettings, load_clips
from vidlbc.experiments.machine_perception.copies import CopySettings, make_copies
from vidlbc.experiments.machine_perception.encoder import BASE, EncoderSettings, HeadSettings, check_name, train_encoder
from vidlbc.experiments.machine_perception.lowshot import LowShotSettings, novel_classes
from vidlbc.experiments.machine_perception.matching import Media, OutOfReach
from vidlbc.experiments.machine_perception.media import Medium, describe
from vidlbc.experiments.machine_perception.probe import ProbeSettings
from vidlbc.experiments.machine_perception.recognition import Correct, Recognition
from vidlbc.experiments.machine_perception.report import plot_shots, score, tables
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request

ANCHORS = ("x264", "jpeg", "rgb")


@dataclass(frozen=True)
class StudySettings:
    """`encoders`: names (see machine_perception_encoder), the first one sets the rates; `only`: one to train and stop.

    `anchors`: pictures to compare with; `media`: heads of these media alone are trained, then the run stops;
    `coded_every`: every how many-th frame of a clip is coded; `sample`: every how many-th clip settings are chosen on;
    `ablation`: (name, head) pairs tried on the first encoder's latents. Raises InputError.
    """

    actions: str
    clips: ClipSettings
    cache: Path | None
    out: Path
    encoder: EncoderSettings
    encoders: tuple[str, ...]
    only: str | None = None
    qps: tuple[int, ...] = (24,)
    anchors: tuple[str, ...] = ANCHORS
    media: tuple[str, ...] | None = None
    coded_every: int = 4
    sample: int = 5
    copies: CopySettings = field(default_factory=CopySettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    low_shot: LowShotSettings = field(default_factory=LowShotSettings)
    ablation: tuple[tuple[str, HeadSettings], ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.encoders, *([self.only] if self.only else [])):
            check_name(name)
        if not self.encoders or self.encoders[0].endswith(BASE):
            raise InputError(f"encoders={list(self.encoders)}: expected at least one, the first not *{BASE}")
        for name in self.anchors:
            if name not in ANCHORS:
                raise InputError(f"anchors: unknown {name!r}, expected some of {', '.join(ANCHORS)}")
        for name in self.media or ():
            if name not in (*self.encoders, *self.anchors):
                raise InputError(f"media: {name!r} is neither among encoders nor among anchors")
        for qp in self.qps:
            check_qp(qp)
        if self.coded_every < 1 or self.sample < 1:
            raise InputError("probe.coded_every and probe.sample: expected at least 1")


def run_study(settings: StudySettings) -> dict[str, Any] | None:
    """Run or resume; the figures of metrics.json, or None where only a part was asked for. Raises InputError."""
    s = settings
    clips = load_clips(s.actions, s.clips, s.cache or s.out / "cache")
    novel = novel_classes(clips, s.low_shot.novel)
    base = [label for label in range(len(clips.classes)) if label not in novel]
    for name in (s.only,) if s.only else s.encoders:
        folder = train_encoder(name, s.encoder, clips, base, s.out)
        print(f"encoder {name}: {folder}", flush=True)
    return None if s.only else Study(s, clips, novel).run()


class Study:
    """The measurements, once the encoders are there."""

    def __init__(self, settings: StudySettings, clips: ClipSet, novel: list[int]) -> None:
        s = settings
        self.settings, self.clips, self.novel = settings, clips, novel
        coded = [clip[:: s.coded_every] for clip in clips.clips]
        test = [i for i, split in enumerate(clips.splits) if split == "test" and clips.labels[i] >= 0]
        if not test:
            raise InputError(f"data.actions={s.actions}: no labelled clip in the test split")
        train = [i for i, split in enumerate(clips.splits) if split == "train" and clips.labels[i] >= 0]
        copies = make_copies(coded, train, s.copies, s.encoder.seed)
        wanted = {f"copies.{name}": value for name, value in asdict(s.copies).items()}
        wanted |= {"probe.coded_every": s.coded_every, "probe.kept": s.probe.kept, "head.levels": s.encoder.head.levels}
        keep_request(s.out / "media" / "request.json", wanted, s.out, write=True)
        self.media = Media(s.out, coded, copies.clips, test, s.encoder.head, s.probe.kept, s.sample)
        self.recognition = Recognition(s.out, clips, novel, s.encoder.head, s.probe, s.low_shot, copies)

    def run(self) -> dict[str, Any] | None:
        s = self.settings
        rates = [self._rate(qp) for qp in s.qps]
        if s.media is not None:
            return None
        figures = {
            "first": s.encoders[0],
            "clips": len(self.clips),
            "rates": rates,
            "shots": list(s.low_shot.shots),
            "novel": [self.clips.classes[i] for i in self.novel],
            "failed": len(self.clips.failed),
            "ablation": self._ablation(),
        }
        write_atomic(s.out / "metrics.json", dump_json(figures, indent=1))
        print(tables(figures))
        for rate in rates:
            for kind in ("resnet", "linear"):
                if rate[kind]["low_shot"]:
                    path = s.out / "plots" / f"low_shot_{kind}_qp{rate['qp']}.png"
                    plot_shots(path, rate[kind]["low_shot"], s.low_shot.shots, 1 / len(self.novel))
        print(f"\nfigures: {s.out / 'metrics.json'}")
        return figures

    def _rate(self, qp: int) -> dict[str, Any]:
        """All media at the bytes of the first encoder at `qp`, and what is recognised on them."""
        s, first = self.settings, self.settings.encoders[0]
        target = self.media.first(first, qp)
        told: dict[str, Any] = {"qp": qp, "target": target.bytes, "media": {}}
        told |= {kind: {"full": {}, "low_shot": {}} for kind in ("resnet", "linear")}
        right: dict[tuple[str, str], Correct] = {}
        for name in (*s.encoders, *s.anchors):
            if s.media is not None and name not in s.media:
                continue
            try:
                medium = target if name == first else self.media.like(name, first, qp)
            except OutOfReach as error:
                print(f"left out: {error}", flush=True)
                continue
            told["media"][name] = describe(medium, self.media.pixels)
            for (kind, what), found in self._recognised(medium, target, qp).items():
                right |= {(name, f"{kind} {what} {part}"): correct for part, correct in found.items()}
                entries = {
                    part: score(correct, None if name == first else right.get((first, f"{kind} {what} {part}")))
                    for part, correct in found.items()
                }
                told[kind][what][name] = entries if what == "low_shot" else entries[""]
        return told

    def _recognised(self, medium: Medium, target: Medium, qp: int) -> dict[tuple[str, str], dict[str, Correct]]:
        """By (resnet | linear, full | low_shot) and by shots: see Recognition. An encoder that was informed by the base
        classes alone is measured on the novel ones alone, and one that was informed by all never on those."""
        name, find = medium.name, self.recognition
        folder = self.settings.out / "heads" / ("rgb" if name == "rgb" else f"qp{qp}/{name}")
        found: dict[tuple[str, str], dict[str, Correct]] = {}
        summary = find.summary(medium, target.levels)
        if not name.endswith(BASE):
            found["resnet", "full"] = {"": find.resnet(medium, folder / "full")}
            found["linear", "full"] = {"": find.linear(summary)[0]}
        if self.novel and (name.endswith(BASE) or name in ("naive", *ANCHORS)):
            few = {
                "resnet": find.resnet_low_shot(medium, folder / "base"),
                "linear": find.linear_low_shot(summary),
            }
            found |= {(kind, "low_shot"): {str(k): v for k, v in by.items()} for kind, by in few.items()}
        return found

    def _ablation(self) -> dict[str, Any]:
        """Heads of other architectures on the first encoder's latents (Tables 2 and 3), full data."""
        s, first = self.settings, self.settings.encoders[0]
        told: dict[str, Any] = {}
        for name, head in s.ablation:
            medium = self.media.first(first, s.qps[0])
            folder = s.out / "heads" / f"qp{s.qps[0]}" / first / f"ablation-{name}"
            model = head.build(medium.levels, len(self.clips.classes))
            parameters = sum(p.numel() for p in model.parameters())
            told[name] = score(self.recognition.resnet(medium, folder, head)) | {"parameters": parameters}
        return told
