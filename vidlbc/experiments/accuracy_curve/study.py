"""Accuracy against true bits: the same probe on latents, decoded frames, x264 at the same bytes, and source pixels.

    corpus --encode_corpus--> shards at every QP                     out/shards/KIND-qpQ: bitstreams
       bitstreams --> latents, decoded frames --> tokens             of every labelled video, one decoding pass
       their symbols --> the other kinds                             out/sizes: true bytes of each
    source frames --> x264 at each video's bytes --> decoded         out/sizes: bytes and CRF of each
    source frames, at the encoder's size and as they lie on disk
       tokens --> run_probe, one budget for all                      out/probes
       --> points, paired differences, reading speed                 out/points.json, points.csv, metrics.json, plots

Kinds share symbols, and so pictures, latents and accuracy: the first of them is encoded and probed, the others cost a
transcoding.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vidlbc.codec import models
from vidlbc.codec.codec import Codec
from vidlbc.codec.inputs import check_qp, pick_device
from vidlbc.codec.load import load
from vidlbc.codec.temporal_stage import KINDS
from vidlbc.errors import InputError
from vidlbc.evaluate.probe.views import ViewPlan
from vidlbc.experiments.accuracy_curve.media import (
    DECODED,
    FULL,
    LATENTS,
    PIXELS,
    X264_MEDIUM,
    Features,
    Media,
    Videos,
    videos_of,
)
from vidlbc.experiments.accuracy_curve.points import NAMES, CurvePoint, differences
from vidlbc.experiments.accuracy_curve.probes import Probes
from vidlbc.experiments.accuracy_curve.report import write_curve
from vidlbc.heads.build import HEAD_KINDS
from vidlbc.pipeline.check import (
    check_output,
    corpus_with_splits,
    evaluation_split,
    recognition_obstacle,
    require_number,
)
from vidlbc.pipeline.reading_speed import reading_speed
from vidlbc.pipeline.report import environment
from vidlbc.pipeline.settings import EvaluationSettings
from vidlbc.run.request import alone, keep_request
from vidlbc.shards import (
    Content,
    Corpus,
    EncodingSettings,
    LatentShards,
    contents_of,
    encode_corpus,
    known_contents,
    make_plan,
)


@dataclass(frozen=True)
class CurveSettings:
    """`temporal`: kinds in order; the first is what x264 is matched to. `split`: test, or val to choose settings on.

    `every`: only every n-th frame is used, by all inputs but the full-size pixels. `full_pixels`: source pixels at the
    file's own size and rate too. `speed_clips`: clips that reading is timed on, 0 leaves it out. Raises InputError.
    """

    root: str
    out: Path
    model: str = "default"
    temporal: tuple[str, ...] = ("transformer", "lstm", "none")
    qps: tuple[int, ...] = (0, 8, 16, 24, 32)
    heads: tuple[str, ...] = ("linear",)
    probe: EvaluationSettings = field(default_factory=EvaluationSettings)
    labels: str | None = None
    fold: int = 1
    holdout: float = 0.2
    split: str | None = None
    max_side: int | None = 128
    every: int | None = 3
    clip_frames: int = 256
    deadline_s: float = 60.0
    x264: bool = True
    full_pixels: bool = True
    speed_clips: int = 8
    speed_rounds: int = 3
    device: str = "auto"
    precision: str = "fp32"
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in (("temporal", self.temporal), ("qps", self.qps), ("eval.heads", self.heads)):
            if not values or len(set(values)) != len(values):
                raise InputError(f"{name}={list(values)}: expected at least one, none twice")
        for qp in self.qps:
            check_qp(qp)
        for name, values, known in (("temporal", self.temporal, KINDS), ("eval.heads", self.heads, HEAD_KINDS)):
            for value in values:
                if value not in known:
                    raise InputError(f"{name}: unknown {value!r}, expected some of {', '.join(known)}")
        if self.split not in (None, "val", "test"):
            raise InputError(f"data.split={self.split}: expected val, test or null")
        for name, number, least in (
            ("eval.frames", self.probe.frames, 1),
            ("eval.views", self.probe.views, 1),
            ("eval.grid", self.probe.grid, 1),
            ("eval.epochs", self.probe.epochs, 1),
            ("speed.clips", self.speed_clips, 0),
            ("speed.rounds", self.speed_rounds, 1),
            ("processes", self.processes, 1),
            ("data.fold", self.fold, 1),
        ):
            require_number(name, number, least, whole=True)
        for name, numbers in (("eval.rates", self.probe.rates), ("eval.decays", self.probe.decays)):
            if not numbers:
                raise InputError(f"{name}=[]: expected at least one number")
            for each in numbers:
                require_number(name, each, 0)
        self.shards("transformer", self.qps[0])

    def shards(self, kind: str, qp: int) -> EncodingSettings:
        """How the corpus is encoded."""
        folder = Path(self.model)
        return EncodingSettings(
            qp=qp,
            clip_frames=self.clip_frames,
            max_side=self.max_side,
            every=self.every,
            model=str(folder.resolve()) if folder.is_dir() else self.model,
            temporal=kind,
            precision=self.precision,
            deadline_s=self.deadline_s,
        )


def run_curve(settings: CurveSettings) -> dict[str, Any]:
    """Run or resume; the figures of metrics.json. Raises InputError for whatever stands in the way."""
    s = settings
    pick_device(s.device)
    kinds = _kinds(s)
    first = s.out / "shards" / f"{kinds[0]}-qp{s.qps[0]}"
    corpus, contents = corpus_with_splits(s.root, s.labels, s.fold, s.holdout, first)
    split = s.split or evaluation_split(corpus)
    if obstacle := recognition_obstacle(corpus, split):
        raise InputError(f"data.root={s.root}: {obstacle}")
    splits = tuple(name for name in corpus.splits if name in ("train", "val", split))
    corpus = replace(corpus, items=tuple(item for item in corpus.items if item.split in splits))
    corpus.require("train", split)
    check_output(s.out, s.root, corpus)
    with alone(s.out):
        codecs = {kind: load(s.model, s.device, kind, s.precision) for kind in kinds}
        keep_request(s.out / "request.json", _request(s, codecs[kinds[0]], split), s.out, write=True)
        print(corpus.label_map(), file=sys.stderr)
        contents = contents or contents_of(corpus, known_contents(first, corpus))
        return _Curve(s, corpus, contents, splits, split, codecs).run()


def _kinds(s: CurveSettings) -> tuple[str, ...]:
    """Those that the model has; a line for each that it lacks."""
    there = models.kinds_of(models.find_model(s.model))
    for kind in s.temporal:
        if kind not in there:
            print(f"left out: model {s.model} has no temporal stage {kind!r}", file=sys.stderr)
    kinds = tuple(kind for kind in s.temporal if kind in there)
    if not kinds:
        raise InputError(f"temporal={list(s.temporal)}: model {s.model} has {', '.join(there)}")
    return kinds


def _request(s: CurveSettings, codec: Codec, split: str) -> dict[str, Any]:
    """What may not change between two runs into one folder; QPs, kinds and heads may be added."""
    wanted: dict[str, Any] = {"data.root": s.root, "data.split": split, "model": codec.image.digest.hex()[:16]}
    wanted |= {f"data.{name}": getattr(s, name) for name in ("labels", "fold", "holdout", "max_side", "every")}
    wanted |= {"temporal[0]": codec.kind, "seed": s.seed}
    names = ("frames", "views", "grid", "epochs", "rates", "decays")
    return wanted | {f"eval.{name}": value for name, value in asdict(s.probe).items() if name in names}


class _Curve:
    """The measurements, once everything was checked."""

    def __init__(
        self,
        settings: CurveSettings,
        corpus: Corpus,
        contents: Mapping[str, Content],
        splits: tuple[str, ...],
        split: str,
        codecs: Mapping[str, Codec],
    ) -> None:
        s = self.settings = settings
        self.corpus, self.contents, self.splits, self.split, self.codecs = corpus, contents, splits, split, codecs
        self.main = next(iter(codecs))  # the kind that is encoded
        plan = ViewPlan(frames=s.probe.frames, views=s.probe.views)
        levels = [(level.channels, level.stride) for level in codecs[self.main].levels]
        self.media = Media(s.out, splits, plan, s.probe.grid, levels)
        self.probes = Probes(s.out, s.heads, s.probe, corpus.classes, split, s.seed, s.device)

    def run(self) -> dict[str, Any]:
        s = self.settings
        for qp in s.qps:
            self._coded(qp)
            name = f"{X264_MEDIUM}-qp{qp}"
            if s.x264 and self.probes.missing(name):
                self._fit(name, self.media.x264(name, self._shards(qp)))
        for name in self._references():
            if self.probes.missing(name):
                self._fit(name, self.media.pixels(name, self._shards(s.qps[0])))
        points = self._points()
        told = {
            "data": s.root,
            "videos": len(self.videos.splits),
            "split": self.split,
            "max_side": s.max_side,
            "every": s.every,
            "model": s.model,
            "temporal": list(self.codecs),
            "eval": asdict(s.probe),
            "fingerprints": {kind: codec.fingerprint for kind, codec in self.codecs.items()},
            "chosen_on": self.probes.result(PIXELS, s.heads[0])["holdout"],
            "source_bytes": sum(self.videos.source_bytes.values()),
        }
        figures = {
            "settings": told,
            "points": [point.told() for point in points],
            "differences": differences(points),
            "speed": self._speed(),
            "environment": environment(self.codecs[self.main].device),
        }
        write_curve(s.out, figures, 1 / len(self.corpus.classes))
        return figures

    def _references(self) -> list[str]:
        return [PIXELS, FULL] if self.settings.full_pixels else [PIXELS]

    def _folder(self, qp: int) -> Path:
        return self.settings.out / "shards" / f"{self.main}-qp{qp}"

    def _shards(self, qp: int) -> dict[str, LatentShards]:
        codec = self.codecs[self.main]
        return {part: LatentShards(self._folder(qp), part, codec=codec) for part in self.splits}

    @cached_property
    def videos(self) -> Videos:
        return videos_of(self._shards(self.settings.qps[0]).values())

    def _fit(self, name: str, features: Features) -> None:
        self.probes.fit(name, features)
        self.media.drop(name)

    def _coded(self, qp: int) -> None:
        """Shards of the first kind, sizes of the others, probes on latents and decoded frames."""
        s, kind = self.settings, self.main
        codec = self.codecs[kind]
        plan = make_plan(self.corpus, self._folder(qp), codec, s.shards(kind, qp), contents=self.contents)
        manifest, _ = encode_corpus(
            plan, processes=s.processes, device=s.device, codec=codec if s.processes == 1 else None
        )
        for file in manifest.troubled:
            print(f"{file['status']}: {file['path']}: {file['reason']}", file=sys.stderr)
        inputs = (LATENTS, DECODED) if s.probe.decoded else (LATENTS,)
        names = [name for name in (f"{i}-{kind}-qp{qp}" for i in inputs) if self.probes.missing(name)]
        others = {f"{other}-qp{qp}": self.codecs[other] for other in self.codecs if other != kind}
        for name, features in self.media.coded(names, self._shards(qp), others).items():
            self._fit(name, features)

    def _points(self) -> list[CurvePoint]:
        """By head and medium, in rising order of QP; source pixels last."""
        s, first, points = self.settings, self.main, []

        def add(medium: str, source: str, head: str, qp: int | None, sizes: Mapping[str, int]) -> None:
            found = self.probes.result(source, head)
            points.append(CurvePoint.of(medium, source, head, qp, sizes, self.videos, self.split, found))

        for head in s.heads:
            for qp in s.qps:
                stored = videos_of(self._shards(qp).values()).bytes
                for kind in self.codecs:
                    sizes = stored if kind == first else self.media.sizes(f"{kind}-qp{qp}")
                    add(f"latents, {kind}", f"{LATENTS}-{first}-qp{qp}", head, qp, sizes)
                if s.probe.decoded:
                    add(f"decoded frames, {first}", f"{DECODED}-{first}-qp{qp}", head, qp, stored)
                if s.x264:
                    name = f"{X264_MEDIUM}-qp{qp}"
                    add("x264 medium", name, head, qp, self.media.sizes(name))
            for name in self._references():
                add(NAMES[name], name, head, None, self.videos.source_bytes)
        return points

    def _speed(self) -> list[dict[str, Any]]:
        s = self.settings
        if not s.speed_clips:
            return []
        qp = s.qps[len(s.qps) // 2]
        return reading_speed(self._folder(qp), self.codecs, self.split, s.speed_clips, s.speed_rounds)
