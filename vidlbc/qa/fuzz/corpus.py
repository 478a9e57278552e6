"""What is mutated: valid bitstreams of every kind and format version, a shard folder and a cache entry, made here.

FOLDER/models/{plain,layered,moved}    small untrained models
FOLDER/streams/NAME.vlbc         their bitstreams
FOLDER/shards/                   two shards, by the layered model
FOLDER/entry.symbols             of the shards' first clip
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidlbc.codec import models
from vidlbc.codec.bitstream import Reader
from vidlbc.codec.codec import Codec
from vidlbc.codec.entropy.coder import SYMBOL_LIMIT
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.load import load
from vidlbc.qa.fuzz.far import far_encoder
from vidlbc.run.atomic_files import write_atomic
from vidlbc.shards.encode import encode_shard
from vidlbc.shards.manifest import write_manifest
from vidlbc.shards.plan import Plan, make_plan
from vidlbc.shards.reader import LatentShards
from vidlbc.shards.resume import begin
from vidlbc.shards.settings import EncodingSettings
from vidlbc.shards.symbol_cache import SymbolCache

HEIGHT, WIDTH, FRAMES = 20, 37, 5
_IMAGE: dict[str, Any] = {
    "channels": [1, 3, 4, 5],
    "widths": [8, 8, 8, 8],
    "encoder_blocks": [1, 1, 1, 1],
    "decoder_blocks": [1, 1, 1, 1],
    "prior_widths": [32, 32, 32],
    "prior_blocks": 1,
    "variants": {"short": [1, 2, 0, 3]},
}
_TEMPORAL: dict[str, dict[str, Any]] = {"lstm": {}, "transformer": {"context": 2, "margin": 2}}
_MOTION = {name: _IMAGE[name] for name in ("widths", "encoder_blocks", "decoder_blocks")} | {"fusion": 8}
_MOVED: dict[str, dict[str, Any]] = {"lstm": {"motion": _MOTION}, "transformer": {"context": 2, "motion": _MOTION}}
_COPIES = {kind: options | {"motion": options["motion"] | {"copies": True}} for kind, options in _MOVED.items()}
# Name: model, kind, options of `compress_stream`; format versions 2 to 6.
STREAMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "none": ("plain", "none", {}),
    "lstm": ("plain", "lstm", {"fps": Fraction(30000, 1001)}),
    "transformer": ("plain", "transformer", {}),
    "transformer_no_context": ("plain", "transformer", {"context": False}),
    "lstm_variant": ("plain", "lstm", {"variant": "short"}),
    "none_layers": ("layered", "none", {"variant": "short"}),
    "transformer_layers": ("layered", "transformer", {}),
    "transformer_skip": ("plain", "transformer", {"rdo": True, "skip": 40}),
    "moved_lstm": ("moved", "lstm", {}),
    "moved_transformer": ("moved", "transformer", {"variant": "short", "rdo": True}),
    "moved_no_context": ("moved", "lstm", {"context": False}),
    "copies_lstm": ("copies", "lstm", {"rdo": True}),
    "copies_transformer": ("copies", "transformer", {"variant": "short", "rdo": True}),
}
REPEATING = ("copies_lstm",)  # those with a frame that is the one before
FADING = ("copies_transformer",)  # those with one that is darker than the first
LONG = "lstm"  # the one that has two packets
LAYERED = tuple(name for name, (model, _, _) in STREAMS.items() if model == "layered")
# Streams whose symbols are as large as they get, which no picture has; and whose codec they are of.
EXTREME = {"transformer_extreme": "transformer", "moved_extreme": "moved_lstm"}
_SHARDS = ("layered", "transformer")


@dataclass(frozen=True)
class Corpus:
    """A folder that `make_corpus` has made."""

    folder: Path

    @cached_property
    def streams(self) -> dict[str, bytes]:
        return {name: (self.folder / "streams" / f"{name}.vlbc").read_bytes() for name in (*STREAMS, *EXTREME)}

    @cached_property
    def shards(self) -> dict[str, bytes]:
        """Every file of the shard folder, by its relative path."""
        root = self.folder / "shards"
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    @cached_property
    def entry(self) -> bytes:
        """Of the cache: the symbols of the shards' first clip."""
        return (self.folder / "entry.symbols").read_bytes()

    @cached_property
    def codecs(self) -> dict[str, Codec]:
        """By the name of the stream."""
        made: dict[tuple[str, str], Codec] = {}
        for model, kind, _ in STREAMS.values():
            if (model, kind) not in made:
                made[model, kind] = load(self.folder / "models" / model, "cpu", kind)
        known = {name: made[model, kind] for name, (model, kind, _) in STREAMS.items()}
        return known | {name: known[own] for name, own in EXTREME.items()}

    @cached_property
    def shard_codec(self) -> Codec:
        return self.codecs["transformer_layers"]


def make_corpus(folder: Path) -> Corpus:
    """The corpus in `folder`, made where it is not there yet: the same under one version of torch and of this code."""
    corpus = Corpus(folder)
    if (folder / "entry.symbols").is_file():
        return corpus
    shutil.rmtree(folder, ignore_errors=True)
    _save_model(folder / "models" / "plain", ("lstm", "transformer"))
    _save_model(folder / "models" / "layered", ("transformer",), base_levels=2)
    _save_model(folder / "models" / "moved", ("lstm", "transformer"), _MOVED)
    _save_model(folder / "models" / "copies", ("lstm", "transformer"), _COPIES)
    for name, (_, _, options) in STREAMS.items():
        frames = _frames(18 if name == LONG else FRAMES, len(name))
        if name in REPEATING:
            frames[2] = frames[1]
        if name in FADING:
            frames[1:] = frames[1:] // 2 + 30
        path = folder / "streams" / f"{name}.vlbc"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as sink:
            _encoder(corpus, name).compress_stream([frames], sink, qp=20, **options)
    for name in EXTREME:
        write_atomic(folder / "streams" / f"{name}.vlbc", _extreme(_encoder(corpus, name)))
    plan = _write_shards(folder, corpus.shard_codec)
    shards = LatentShards(plan.output, mode="symbols", codec=corpus.shard_codec, shuffle=False)
    cache = SymbolCache(folder / "cache")
    name = shards.meta(0)["sha256"]
    cache.put(name, corpus.shard_codec.padded_symbols(shards.bitstream(0)))
    write_atomic(folder / "entry.symbols", cache.path(name).read_bytes())  # last: it says that the corpus is whole
    return corpus


def own_codec(corpus: Corpus, name: str, data: bytes) -> Codec:
    """The codec that `data` names, or that of stream `name`."""
    try:
        fingerprint = Reader(data).header.fingerprint.hex()
    except Exception:  # whatever is wrong with it is the target's to say
        return corpus.codecs[name]
    return next((c for c in corpus.codecs.values() if c.fingerprint == fingerprint), corpus.codecs[name])


@torch.no_grad()
def _save_model(
    folder: Path, kinds: tuple[str, ...], temporal: dict[str, dict[str, Any]] = _TEMPORAL, **options: Any
) -> None:
    image_options = _IMAGE | options
    torch.manual_seed(0)
    stage = build_image_stage("lbc", **image_options)
    _stir(stage)
    models.save_image_stage(stage, folder / "image_stage", {"family": "lbc", "options": image_options})
    image = models.load_image_stage(folder / "image_stage")
    for kind in kinds:
        described = {"kind": kind, "options": temporal[kind]}
        made = models.build_temporal(kind, image.stage, **temporal[kind])
        _stir(made)
        models.save_temporal(made, folder / "temporal" / kind, described, image.digest)
    (folder / "config.json").write_text(json.dumps({"format": models.FORMAT, "temporal": kinds[-1]}))


def _stir(module: nn.Module) -> None:
    """Weights that start at zero would hide whatever is behind them."""
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1 and not name.endswith("log2_gain"):
            parameter.add_(torch.randn_like(parameter) * parameter[0].numel() ** -0.5)


def _encoder(corpus: Corpus, name: str) -> Codec:
    return far_encoder(corpus.codecs[name]) if name.startswith(("moved", "copies")) else corpus.codecs[name]


def _frames(count: int, seed: int) -> np.ndarray:
    """uint8 (count, H, W, 3): noise that drifts."""
    noise = np.random.Generator(np.random.Philox(seed)).integers(0, 256, (HEIGHT + count, WIDTH + count, 3), np.uint8)
    return np.stack([noise[t : t + HEIGHT, t : t + WIDTH] for t in range(count)])


def _extreme(codec: Codec) -> bytes:
    draw = np.random.Generator(np.random.Philox(0))
    symbols = codec.analyse(_frames(2, 0), 20)
    large = [torch.from_numpy(draw.choice([-SYMBOL_LIMIT, 0, SYMBOL_LIMIT], q.shape).astype(np.int32)) for q in symbols]
    return codec.compress_symbols(large, 20, HEIGHT, WIDTH)[0]


def _write_shards(folder: Path, codec: Codec) -> Plan:
    from vidlbc.data.annotations.families import read_annotations
    from vidlbc.video import write_mp4

    for number, place in enumerate(("train/a", "train/b", "test/a")):
        path = folder / "videos" / place / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, _frames(3, number)[:, :20, :36], 25)
    model, kind = _SHARDS
    settings = EncodingSettings(qp=20, model=str(folder / "models" / model), temporal=kind)
    plan = begin(make_plan(read_annotations(folder / "videos"), folder / "shards", codec, settings))
    for index in range(len(plan.shards)):
        encode_shard(plan, index, codec)
    write_manifest(plan)
    return plan
