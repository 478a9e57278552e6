"""Rate and distortion of a folder of clips under this codec and others: measure what is missing, then the tables.

clips x (kinds x QPs, anchors x qualities) --measure what OUT lacks--> points.json, points.csv
    --> tables, Bjontegaard differences (bd_rate.json), rd.png                          vidlbc evaluate runs it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from vidlbc.codec.codec import Codec
from vidlbc.codec.inputs import check_qp
from vidlbc.errors import InputError, VideoError
from vidlbc.evaluate.codecs import Anchor
from vidlbc.evaluate.rate_distortion.clips import Clip, find_clips
from vidlbc.evaluate.rate_distortion.measure import Point, measure_anchor, measure_clip
from vidlbc.evaluate.rate_distortion.point_store import PointStore
from vidlbc.run.progress import progress_bar


@dataclass(frozen=True)
class EvaluateSettings:
    """`qps` for the kinds, `qualities` of other codecs by name (left out: their own), at most `frames` of a clip (None:
    all). Raises InputError."""

    data: Path
    out: Path
    qps: tuple[int, ...] = (32,)
    qualities: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    frames: int | None = 64
    verify: bool = True
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for qp in self.qps:
            check_qp(qp)
        if self.frames is not None and self.frames < 1:
            raise InputError(f"frames={self.frames}: expected at least 1, or null for all")


class Evaluation(NamedTuple):
    """Points in the order of the clips; `problems`: {clip: why} of what was left out, or measured in part."""

    points: list[Point]
    problems: dict[str, str]


def evaluate_clips(
    settings: EvaluateSettings, codecs: Mapping[str, Codec], anchors: Mapping[str, Anchor] | None = None
) -> Evaluation:
    """Measure what `out` lacks.

    Raises InputError where there is nothing to measure, a quality is not on its codec's scale, or `out` holds another
    run's figures.
    """
    anchors = anchors or {}
    wanted = [(kind, qp) for kind in codecs for qp in settings.qps]
    for name, anchor in anchors.items():
        for quality in settings.qualities.get(name, anchor.qualities):
            anchor.check(quality)
            wanted.append((name, quality))
    if not wanted:
        raise InputError("nothing to measure: give codecs=[...], and temporal=[...] and qp=[...] for vidlbc")
    clips = find_clips(settings.data)
    request = {name: getattr(settings, name) for name in ("frames", "precision", "verify")}
    request["data"] = str(settings.data.resolve())
    weights = {kind: codec.picture_fingerprint for kind, codec in codecs.items()}
    weights |= {name: anchor.settings for name, anchor in anchors.items()}
    store = PointStore(settings.out, request, weights)
    problems: dict[str, str] = {}
    for clip in progress_bar(clips, desc="evaluate", unit="clip"):
        missing = [key for key in wanted if not store.has(clip.name, *key)]
        if missing:
            try:
                store.add(_measure(clip, missing, codecs, anchors, settings))
            except (InputError, VideoError) as error:
                problems[clip.name] = f"left out: {str(error).removeprefix(f'{clip.path}: ')}"
    points = [p for clip in clips for p in store.points if p.clip == clip.name and (p.kind, p.qp) in wanted]
    problems |= {p.clip: f"{p.damage}; its good frames are measured" for p in points if p.damage}
    if not points:
        first = next(f"{name}: {why}" for name, why in problems.items())
        raise InputError(f"data={settings.data}: none of {len(clips)} clips can be measured; {first}")
    return Evaluation(points, problems)


def _measure(
    clip: Clip,
    missing: Sequence[tuple[str, int]],
    codecs: Mapping[str, Codec],
    anchors: Mapping[str, Anchor],
    settings: EvaluateSettings,
) -> list[Point]:
    footage = clip.read(settings.frames)
    points: list[Point] = []
    for qp in settings.qps:
        kinds = {kind: codec for kind, codec in codecs.items() if (kind, qp) in missing}
        if kinds:
            points += measure_clip(clip.name, footage.frames, kinds, qp, settings.verify, footage.fps)
    for name, anchor in anchors.items():
        chosen = [quality for kind, quality in missing if kind == name]
        points += [measure_anchor(clip.name, footage.frames, anchor, quality, footage.fps) for quality in chosen]
    return [replace(point, damage=footage.damage) for point in points]
