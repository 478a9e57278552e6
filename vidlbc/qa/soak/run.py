"""Rounds until so many symbols were compared."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from vidlbc.codec import models
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError, VidlbcError
from vidlbc.evaluate.rate_distortion.clips import find_clips
from vidlbc.qa.soak.conditions import INSTRUCTIONS, Conditions
from vidlbc.qa.soak.worker import Entry, SoakRequest
from vidlbc.run.atomic_files import dump_json, write_atomic


@dataclass(frozen=True)
class SoakSettings:
    """`kinds` of the model; `frames`: at most so many of a clip and round, coded `length` at a time."""

    data: Path
    out: Path
    model: str
    kinds: tuple[str, ...]
    symbols: int
    encoding: Sequence[Conditions]
    decoding: Sequence[Conditions]
    frames: int = 48
    length: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError."""
        for name in ("symbols", "frames", "length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        if not (self.kinds and self.encoding and self.decoding):
            raise InputError("nothing to do: give at least one kind, device, precision, thread count and batch size")


@dataclass
class Tally:
    """Of one pair of conditions."""

    clips: int = 0
    symbols: int = 0
    mismatches: int = 0  # symbols of the clips that decode to something else, or to an error
    kinds: set[str] = field(default_factory=set)


def run_soak(settings: SoakSettings, on_round: Callable[[int], None] = lambda symbols: None) -> dict[str, Tally]:
    """{"encoder -> decoder": Tally}; `out`/soak.json holds the same, and `out`/mismatches the bitstreams that failed.

    Which clip, kind, QP and conditions a round takes is a function of (seed, round). Raises InputError where there are
    no clips, VidlbcError where a process fails.
    """
    clips = find_clips(settings.data)
    folder = models.find_model(settings.model)
    for kind in settings.kinds:
        if kind not in models.kinds_of(folder):
            known = ", ".join(models.kinds_of(folder))
            raise InputError(f"model {settings.model} has no temporal stage {kind!r}: it has {known}")
    tallies: dict[str, Tally] = {}
    compared = number = 0
    while compared < settings.symbols:
        draw = np.random.Generator(np.random.Philox(key=[settings.seed, number]))
        clip = clips[number % len(clips)].path
        kind = settings.kinds[number % len(settings.kinds)]
        encoder, decoder = (c[int(draw.integers(len(c)))] for c in (settings.encoding, settings.decoding))
        qp, rdo, far = int(draw.integers(NUM_QP)), bool(draw.integers(2)), bool(draw.integers(2))
        tally = tallies.setdefault(f"{encoder} -> {decoder}", Tally())
        with tempfile.TemporaryDirectory(prefix="vidlbc-soak-") as work:
            base = SoakRequest(model=settings.model, kind=kind, folder=work)
            told = replace(
                base, video=str(clip), frames=settings.frames, length=settings.length, qp=qp, rdo=rdo, far=far
            )
            written = _in_process(told, encoder)
            read = _in_process(replace(base, count=len(written)), decoder)
            for place, (mine, theirs) in enumerate(zip(written, read, strict=True)):
                tally.clips, tally.symbols = tally.clips + 1, tally.symbols + mine[1]
                compared += mine[1]
                if mine != theirs:
                    tally.mismatches += mine[1]
                    name = f"{clip.stem}-{kind}-qp{qp}-{number}-{place}.vlbc"
                    write_atomic(settings.out / "mismatches" / name, (Path(work) / f"{place:04d}.vlbc").read_bytes())
        tally.kinds.add(kind)
        number += 1
        _write(settings, tallies)
        on_round(sum(count for _, count in written))
    return tallies


def _in_process(request: SoakRequest, conditions: Conditions) -> list[Entry]:
    """Of each clip. Raises VidlbcError where the process fails."""
    c = conditions
    request = replace(request, device=c.device, precision=c.precision, threads=c.threads, batch=c.batch)
    environment = {**os.environ, **INSTRUCTIONS[conditions.instructions], "OMP_NUM_THREADS": str(conditions.threads)}
    command = [sys.executable, "-m", "vidlbc.qa.soak.worker"]
    asked = json.dumps(asdict(request))
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        way = f"encoding {request.video}" if request.video else "decoding"
        raise VidlbcError(f"{way} ({request.kind}; {conditions}) failed: {reason}")
    return [(str(digest), int(count)) for digest, count in json.loads(done.stdout.splitlines()[-1])]


def _write(settings: SoakSettings, tallies: Mapping[str, Tally]) -> None:
    rows = {name: {**asdict(tally), "kinds": sorted(tally.kinds)} for name, tally in tallies.items()}
    write_atomic(settings.out / "soak.json", dump_json(rows, indent=1))
