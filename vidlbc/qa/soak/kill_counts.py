"""What kills did to a folder of shards, counted against the folder of an undisturbed run."""

import hashlib
import json
import random
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from vidlbc.shards.layout import MANIFEST, ShardFiles, read_stats

# Of the manifest, what does not depend on the folder's place and on when the runs were.
_MANIFEST_FILES = ("labels.json", "manifest.parquet", "manifest.json", "summary.txt")


@dataclass
class KillCounts:
    """`kills`: by victim and stage (`stage_of`); `runs`: those that were killed or ended while kills were left, and the
    last; `retaken`: finished shards that were taken away so that there was work again. All else must be 0:

    `lost`, `doubled`: clips, after the last run; `different`: its shards and manifest files that have other bytes than
    the undisturbed run's; `torn`: files with other bytes under a final name after a kill; `undone`: shards that were
    done before a kill and not after; `left`: temporary files after the last run.
    """

    shards: int
    clips: int
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: int = 0
    retaken: int = 0
    seconds: float = 0.0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    torn: int = 0
    undone: int = 0
    left: int = 0
    done: set[int] = field(default_factory=set, repr=False)

    @property
    def wrong(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("lost", "doubled", "different", "torn", "undone", "left")}

    def take_away(self, out: Path, draw: random.Random) -> None:
        """Half of the finished shards, as a lost disk would."""
        for index in draw.sample(sorted(self.done), (len(self.done) + 1) // 2):
            files = ShardFiles(out, index)
            for path in (files.stats, files.parquet, files.tar):
                path.unlink()
            self.done.discard(index)
            self.retaken += 1

    def as_json(self) -> dict[str, Any]:
        rows = [{"victim": v, "stage": s, "kills": n} for (v, s), n in sorted(self.kills.items())]
        return {**{name: value for name, value in asdict(self).items() if name != "done"}, "kills": rows}


@dataclass(frozen=True)
class Calm:
    """An undisturbed run: digests of its shards' and its manifest's files, its clips by key,
    the median seconds of a shard."""

    files: dict[str, str]
    manifest: dict[str, str]
    clips: Counter[str]
    shards: int
    shard_seconds: float

    @classmethod
    def of(cls, folder: Path) -> "Calm":
        runs = (folder / MANIFEST / "runs.jsonl").read_text().splitlines()
        seconds = median([json.loads(line)["seconds"] for line in runs] or [0.0])
        return cls(_shard_files(folder), _manifest(folder), _clips(folder), len(done_shards(folder)), seconds)

    def check(self, out: Path, counts: KillCounts) -> None:
        """After a kill: what bears a final name is whole, and what was done is done."""
        now = done_shards(out)
        counts.undone += len(counts.done - now)
        counts.done = now
        counts.torn += sum(self.files.get(name) != digest for name, digest in _shard_files(out).items())

    def compare(self, out: Path, counts: KillCounts) -> None:
        """After the last run."""
        clips = _clips(out)
        counts.lost = sum((self.clips - clips).values())
        counts.doubled = sum((clips - self.clips).values())
        counts.different = sum(
            there.get(name) != here.get(name)
            for there, here in ((self.files, _shard_files(out)), (self.manifest, _manifest(out)))
            for name in there.keys() | here.keys()
        )
        counts.left = len([*out.glob(".*.tmp"), *(out / MANIFEST).glob(".*.tmp")])


def done_shards(folder: Path) -> set[int]:
    numbers = (int(path.name.partition("_")[0]) for path in folder.glob("[0-9]*_stats.json"))
    return {number for number in numbers if read_stats(ShardFiles(folder, number)) is not None}


def stage_of(out: Path, shards: int) -> str:
    """What the folder shows of the moment of a kill: the latest thing that was going on in it."""
    work = [path for path in out.glob(".[0-9]*.tmp") if path.is_dir()]
    if not work:
        return "manifest" if len(done_shards(out)) == shards else "between shards"
    for path in work:
        stem = path.name[1 : -len(".tmp")]
        if (out / f"{stem}.tar").exists() and not (path / f"{stem}.tar").exists():
            return "renaming files"
        if (path / f"{stem}.parquet").exists():
            return "writing a table"
    return "encoding"


def _shard_files(folder: Path) -> dict[str, str]:
    return _digests(path for path in folder.glob("[0-9]*") if path.is_file())


def _manifest(folder: Path) -> dict[str, str]:
    return _digests(path for name in _MANIFEST_FILES if (path := folder / MANIFEST / name).is_file())


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _clips(folder: Path) -> Counter[str]:
    """Keys of the bitstreams in all tars."""
    keys: Counter[str] = Counter()
    for path in folder.glob("[0-9]*.tar"):
        with tarfile.open(path) as tar:
            keys.update(name.partition(".")[0] for name in tar.getnames() if name.endswith(".vlbc"))
    return keys
