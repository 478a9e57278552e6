"""What reads untrusted bytes: container, range decoder, shard reader, symbol cache. Each takes one case to its end.

A case is a function of (corpus, seed, number). Targets are called with a folder of their own, to put files in.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import vidlbc
from vidlbc.errors import ShardError
from vidlbc.qa.fuzz.corpus import LAYERED, Corpus, own_codec
from vidlbc.qa.fuzz.mutate_files import Files, mutate_entry, mutate_shards
from vidlbc.qa.fuzz.mutate_stream import Draw, mutate_stream
from vidlbc.shards.decode import clip_rate, videos_of
from vidlbc.shards.manifest import gather
from vidlbc.shards.plan import Plan
from vidlbc.shards.reader import LatentShards
from vidlbc.shards.symbol_cache import SymbolCache

# How often of 20 numbers each is drawn.
SHARES = {"container": 5, "decoder": 8, "shards": 6, "cache": 1}
_WAYS = ("symbols", "base", "latents", "decompress", "padded", "lengths", "batch", "references", "span")
_MODES = ("bitstream", "symbols", "latents", "frames")


@dataclass(frozen=True)
class Case:
    """`files`: by relative path, what the target is given; `options`: how it reads them."""

    target: str
    files: Files
    options: dict[str, Any] = field(default_factory=dict)


def make_case(corpus: Corpus, seed: int, number: int, targets: tuple[str, ...] = tuple(SHARES)) -> Case:
    draw: Draw = np.random.Generator(np.random.Philox(key=[seed, number]))
    shares = np.array([SHARES[name] for name in targets], float)
    target = targets[draw.choice(len(targets), p=shares / shares.sum())]
    if target in ("container", "decoder"):
        name, data = mutate_stream(draw, corpus.streams)
        ways = [way for way in _WAYS if _is_one(way, name)]
        return Case(target, {"mutated.vlbc": data}, {"name": name, "way": ways[draw.integers(len(ways))]})
    options = draw_options(draw)
    if target == "cache":
        return Case(target, {"mutated.symbols": mutate_entry(draw, corpus.entry)}, options)
    return Case(target, mutate_shards(draw, corpus.shards, corpus.streams), options)


def valid_cases(corpus: Corpus) -> list[Case]:
    """Every way to read what is whole: what it takes is the measure of the others."""
    cases = [
        Case(target, {"mutated.vlbc": data}, {"name": name, "way": way})
        for name, data in corpus.streams.items()
        for target, way in [("container", ""), *[("decoder", way) for way in _WAYS]]
        if _is_one(way, name)
    ]
    options = [{"mode": mode, "base": False, "cache": False} for mode in _MODES]
    options += [{"mode": "latents", "base": base, "cache": True} for base in (False, True)]
    return cases + [Case("shards", {}, o) for o in options] + [Case("cache", {"mutated.symbols": corpus.entry}, {})]


def _is_one(way: str, name: str) -> bool:
    """Can stream `name` be read that way?"""
    return (way != "base" or name in LAYERED) and (way != "references" or name.startswith("moved"))


def draw_options(draw: Draw) -> dict[str, Any]:
    """How `LatentShards` is opened."""
    mode = _MODES[draw.integers(len(_MODES))]
    base = mode != "frames" and not draw.integers(3)
    cache = mode in ("symbols", "latents") and not draw.integers(3)
    split = (None, "train", "test")[draw.integers(3)]
    verify, partial = bool(draw.integers(2)), bool(draw.integers(2))
    return {"mode": mode, "base": base, "cache": cache, "split": split, "verify": verify, "partial": partial}


def run_case(corpus: Corpus, case: Case, folder: Path) -> None:
    """Raises what the target raises: VidlbcError where it refuses."""
    TARGETS[case.target](corpus, case, folder)


def _container(corpus: Corpus, case: Case, folder: Path) -> None:
    data = _only(case)
    path = folder / "mutated.vlbc"
    path.write_bytes(data)
    with open(path, "rb") as file:
        vidlbc.inspect(file)
    vidlbc.inspect(data)


def _decoder(corpus: Corpus, case: Case, folder: Path) -> None:
    data, name, way = _only(case), case.options["name"], case.options["way"]
    codec = own_codec(corpus, name, data)
    if way == "symbols":
        codec.symbols(io.BytesIO(data))
    elif way == "base":
        codec.symbols(data, base=True)
    elif way == "latents":
        codec.latents(data)
    elif way == "padded":
        codec.padded_symbols(data)
    elif way == "lengths":
        codec.code_lengths(data, lambda level, bits: None)
    elif way == "span":
        codec.decompress(data, (0, 1))
    elif way == "batch":
        codec.symbols([corpus.streams[name], data])
    else:
        shown = copy.copy(codec)
        shown.shows_references = codec.moves and way == "references"
        for _ in shown.decompress_stream(data):
            pass


def _shards(corpus: Corpus, case: Case, folder: Path) -> None:
    """Opens the folder, reads all of its clips, and what the tools ask of it besides."""
    root = folder / "shards"
    with _in_place(root, corpus.shards, case.files):
        options = dict(case.options)
        if options.get("cache"):
            options["cache"] = _emptied(folder / "cache")
        else:
            options.pop("cache", None)
        shards = LatentShards(root, codec=corpus.shard_codec, shuffle=False, **options)
        try:
            for _, rows in videos_of(shards):
                clip_rate(shards, rows[0])
            problems = [_read(shards, index) for index in range(min(len(shards), 8))]
        finally:
            shards.close()
        if any(problems):
            raise ShardError(next(filter(None, problems)))
        gather(Plan.load(root))


def _read(shards: LatentShards, index: int) -> str:
    """One clip that cannot be read is no reason to leave the others unread."""
    try:
        _ = shards[index]
    except vidlbc.VidlbcError as error:
        return str(error)
    return ""


def _cache(corpus: Corpus, case: Case, folder: Path) -> None:
    """A damaged entry is as good as none: reading a clip gives its symbols all the same."""
    root = folder / "shards"
    with _in_place(root, corpus.shards, {}):
        cache = SymbolCache(_emptied(folder / "cache"))
        shards = LatentShards(root, mode="symbols", codec=corpus.shard_codec, shuffle=False, cache=cache.folder)
        name = shards.meta(0)["sha256"]
        path = cache.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_only(case))
        cache.get(name)
        _ = shards[0]
        shards.close()


TARGETS: dict[str, Callable[[Corpus, Case, Path], None]] = {
    "container": _container,
    "decoder": _decoder,
    "shards": _shards,
    "cache": _cache,
}


def _only(case: Case) -> bytes:
    (data,) = case.files.values()
    return data or b""


class _in_place:
    """The files of a folder, some of them others for the time being."""

    def __init__(self, root: Path, files: Mapping[str, bytes], changed: Files):
        self.root, self.files, self.changed = root, files, changed

    def __enter__(self) -> None:
        if not self.root.is_dir():
            for name, data in self.files.items():
                self._write(name, data)
        for name, other in self.changed.items():
            self._write(name, other)

    def __exit__(self, *_: object) -> None:
        for name in self.changed:
            self._write(name, self.files[name])

    def _write(self, name: str, data: bytes | None) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)


def _emptied(folder: Path) -> Path:
    for path in folder.rglob("*.symbols"):
        path.unlink()
    return folder
