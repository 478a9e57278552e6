"""Points of rate and distortion on disk, written after every clip, so that a rerun adds what is missing.

OUT/request.json    data, frames, precision and verify; a run with others is refused
OUT/points.json     {"points": [...]}, see `rate_distortion.Point`
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError
from vidlbc.evaluate.rate_distortion.measure import Point
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.request import keep_request


class PointStore:
    """Kinds, QPs and clips may be added from run to run; weights, data and settings stay."""

    def __init__(self, out: Path, request: Mapping[str, Any], weights: Mapping[str, str]):
        """`weights`: {kind: fingerprint, or another codec's settings} of this run.

        Raises InputError where `out` holds another run's figures.
        """
        self.path = out / "points.json"
        self.points: list[Point] = []
        try:
            keep_request(out / "request.json", request, out, write=True)
        except OSError as error:
            raise InputError(f"out={out}: cannot write here ({error.strerror})") from None
        if self.path.is_file():
            self.points = _read(self.path)
        for point in self.points:
            now = weights.get(point.kind, point.weights)
            if now != point.weights:
                was, now = (text if " " in text else f"{text[:8]}..." for text in (point.weights, now))
                raise InputError(
                    f"{self.path} holds figures of other weights or settings ({point.kind}: {was}, these are {now}): "
                    "choose another out="
                )

    def has(self, clip: str, kind: str, qp: int) -> bool:
        return any((p.clip, p.kind, p.qp) == (clip, kind, qp) for p in self.points)

    def add(self, points: list[Point]) -> None:
        """On disk when this returns."""
        self.points += points
        write_atomic(self.path, dump_json({"points": [point.to_json() for point in self.points]}, indent=1))


def _read(path: Path) -> list[Point]:
    try:
        return [Point.from_json(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["points"]]
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is no file of rate and distortion points: choose another out=") from None
