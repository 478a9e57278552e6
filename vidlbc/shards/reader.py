"""Samples from a folder of shards: by index, straight from their offsets; or in an order that can be resumed.

00000.parquet ... --> table of clips --index--> offset --pread--> bitstream --codec--> symbols | latents | frames
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from vidlbc.codec.bitstream import Reader, cut, inspect
from vidlbc.errors import InputError, ShardError, WeightsMismatch
from vidlbc.shards.layout import MANIFEST, ShardFiles, read_stats
from vidlbc.shards.loader import Sample, ShardLoader
from vidlbc.shards.order import Permutation
from vidlbc.shards.plan import Plan
from vidlbc.shards.symbol_cache import SymbolCache
from vidlbc.shards.table import ClipRow, filled

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["bitstream", "symbols", "latents", "frames"]

_OPEN_FILES = 64


class LatentShards:
    """The clips of a shard folder, map-style and iterable.

    A sample is `key`, `label` (-1 where unlabelled), `label_name`, `meta` (the clip's Parquet row), `bitstream` (bytes)
    and, by `mode`, `symbols` (int32, one (T, C_l, H_l, W_l) a level), `latents` (the same, float32, dequantised) or
    `frames` (uint8 (T, H, W, 3)). No value is None, which torch's collate functions refuse: numbers that are not known
    are -1 or nan, texts "", and `meta` has no `times` (`meta(i)` has the row as it is stored).

    `shards[i]` is clip i in stored order. Iterating gives epoch `epoch` in the order that (seed, epoch, place) decides
    (`shuffle=False`: stored order), from `position` on; rank r of `world` takes places r, r + world, ..., so all ranks
    together see the one order. `loader` does the same in batches, with worker processes.

    Raises InputError for bad values, ShardError for a folder that is no shard folder, unfinished (unless `partial`) or
    damaged, WeightsMismatch for a codec of other weights.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        mode: Mode = "bitstream",
        codec: Any = None,
        seed: int = 0,
        *,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        even: bool = False,
        verify: bool = True,
        partial: bool = False,
        base: bool = False,
        cache: str | Path | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """`even` drops the last n % world samples: all ranks take as many steps. `verify` checks every sha256.

        `base`: read the base layer's bytes alone; bitstreams, symbols and latents are then those of the base.
        `cache`: a folder where decoded symbols are kept, so that a later epoch, run or process reads them and decodes
        nothing (modes symbols and latents). Several sets may share one.
        `transform`: takes what the mode names and gives what a sample has in its place; frames come to it as
        torchvision's transforms want them, a uint8 tensor (T, 3, H, W).
        """
        if mode not in get_args(Mode):
            raise InputError(f"mode={mode}: expected one of {', '.join(get_args(Mode))}")
        if not 0 <= rank < world:
            raise InputError(f"rank={rank}, world={world}: expected 0 <= rank < world")
        if base and mode == "frames":
            raise InputError("mode=frames needs the whole bitstream: a base layer alone gives symbols or latents")
        if cache is not None and mode not in ("symbols", "latents"):
            raise InputError(f"mode={mode}: a cache keeps symbols, expected mode=symbols or mode=latents with it")
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"{path!r}: expected the path of a folder of shards")
        self.base, self.transform = base, transform
        self.cache = None if cache is None else SymbolCache(cache)
        self.folder = Path(path)
        self.split, self.mode, self.seed = split, mode, seed
        self.shuffle, self.rank, self.world, self.even, self.verify = shuffle, rank, world, even, verify
        self.epoch = 0
        self.position = 0  # samples of this epoch consumed by all ranks together
        if not self.folder.is_dir():
            raise ShardError(f"{self.folder}: no such folder{_hint(self.folder)}")
        self.plan = Plan.load(self.folder)
        self.classes = self.plan.classes
        self.table = _read_table(self.plan, split, partial)
        self._codec = codec
        if codec is not None and codec.fingerprint != self.plan.fingerprint:
            raise WeightsMismatch(
                f"{self.folder}: written with weights {self.plan.fingerprint[:8]},"
                f" the codec at hand has {codec.fingerprint[:8]}"
            )
        self._open: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Sample:
        return self._sample(index, None)

    def span(self, index: int, start: int, stop: int) -> Sample:
        """`shards[index]`, but of its frames [start, stop) alone: decoding begins at the last key frame before them
        (vidlbc.cut; shards that were encoded with `keyint` have one at that interval). `bitstream` is what is decoded.

        Raises InputError where the clip has no such frames.
        """
        return self._sample(index, (start, stop))

    def _sample(self, index: int, span: tuple[int, int] | None) -> Sample:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"clip {index}: {self.folder} holds {n}")
        meta = self.meta(index % n)
        data = self._read(meta)
        whole, here = data, slice(None)
        if span is not None:
            part = cut(data, *span, self.base)
            data, here = part.data, part.place(*span)
        sample: Sample = {
            "key": meta["key"],
            "label": -1 if meta["label"] is None else meta["label"],
            "label_name": meta["label_name"] or "",
            "meta": filled(meta),
            "bitstream": data,
        }
        if self.cache is not None:
            levels = self._from_cache(self.cache, meta, whole)
            sample[self.mode] = levels if span is None else [level[span[0] : span[1]] for level in levels]
        elif self.mode == "symbols":
            sample["symbols"] = [level[here] for level in self.codec.symbols(data, **self._layer)]
        elif self.mode == "latents":
            sample["latents"] = [level[here] for level in self.codec.latents(data, **self._layer)]
        elif self.mode == "frames":
            sample["frames"] = self.codec.decompress(data)[here]
        if self.transform is not None:
            content = sample[self.mode]
            if self.mode == "frames":
                import torch

                content = torch.from_numpy(content).permute(0, 3, 1, 2)
            sample[self.mode] = self.transform(content)
        return sample

    def _from_cache(self, cache: SymbolCache, meta: ClipRow, data: bytes) -> Any:
        """What the mode asks for, from symbols that the cache has or is given."""
        name = (meta["base_sha256"] or "") if self.base else meta["sha256"]
        header, frames = Reader(data).header, meta["frames"]
        symbols = cache.get(name)
        if symbols is None or not self.codec.fits(symbols, header, frames, **self._layer):
            symbols = self.codec.padded_symbols(data, **self._layer)
            if not self.codec.fits(symbols, header, frames, **self._layer):
                raise ShardError(f"{self.folder / meta['tar']}: clip {meta['key']}: holds not {frames} frames")
            cache.put(name, symbols)
        if self.mode == "symbols":
            return self.codec.unpadded(symbols, header.height, header.width)
        qps = inspect(data).qps if header.copies else header.qp
        return self.codec.crop(self.codec.dequantise(symbols, qps), header.height, header.width)

    def meta(self, index: int) -> ClipRow:
        """The Parquet row of clip `index`; no bitstream is read."""
        return cast(ClipRow, self.table.slice(index, 1).to_pylist()[0])

    def root_of(self, meta: Mapping[str, Any]) -> str:
        """The folder that the source of a clip's row is relative to."""
        return self.plan.part(int(Path(meta["tar"]).stem))[0].root

    def bitstream(self, index: int) -> bytes:
        """The bitstream of clip `index`, checked, not decoded."""
        return self._read(self.meta(index))

    @property
    def codec(self) -> Any:
        """The codec given, or the one that the shards name, loaded when first needed."""
        if self._codec is None:
            from vidlbc.shards.encode import load_codec

            self._codec = load_codec(self.plan)
            if self._codec.fingerprint != self.plan.fingerprint:
                raise WeightsMismatch(
                    f"{self.folder}: written with weights {self.plan.fingerprint[:8]},"
                    f" model '{self.plan.settings.model}' now has {self._codec.fingerprint[:8]}; give codec=..."
                )
        return self._codec

    @property
    def on_gpu(self) -> bool:
        """Whether a codec has been loaded, or was given, that decodes on a GPU."""
        device = getattr(self._codec, "device", None)
        return device is not None and device.type != "cpu"

    def order(self, epoch: int | None = None) -> Permutation | range:
        """Clip index by place, for all ranks together; a pure function of (seed, epoch, place)."""
        n = len(self) - (len(self) % self.world if self.even else 0)
        if not self.shuffle:
            return range(n)
        permutation = Permutation(len(self), self.seed, self.epoch if epoch is None else epoch)
        permutation_cut = _Prefix(permutation, n) if n < len(self) else permutation
        return cast(Permutation, permutation_cut)

    def places(self) -> Iterator[int]:
        """This rank's clip indices for the rest of the current epoch."""
        order = self.order()
        for place in range(self.position + self.rank, len(order), self.world):
            yield order[place]

    def __iter__(self) -> Iterator[Sample]:
        for index in self.places():
            sample = self[index]
            self.position += self.world  # consumed once handed out: a state taken now resumes after it
            yield sample
        self.next_epoch()

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.position = 0

    def loader(self, batch_size: int, num_workers: int = 0, **options: Any) -> ShardLoader:
        """Batches (lists of samples, or what `collate_fn` makes of them) of this rank, through a torch DataLoader."""
        return ShardLoader(self, batch_size, num_workers, **options)

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands: plain JSON, the same on all ranks, and independent of their number."""
        place = {"seed": self.seed, "epoch": self.epoch, "position": self.position}
        return {**place, "clips": len(self), "split": self.split}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, at any world size. Raises InputError when the set is not the same."""
        if (state["clips"], state["split"]) != (len(self), self.split):
            raise InputError(
                f"{self.folder}: the state is of {state['clips']} clips of split {state['split']},"
                f" this is {len(self)} of {self.split}"
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]

    @property
    def _layer(self) -> dict[str, bool]:
        return {"base": True} if self.base else {}

    def _read(self, meta: ClipRow) -> bytes:
        where = f"{self.folder / meta['tar']}: clip {meta['key']}"
        size, sha256 = meta["bytes"], meta["sha256"]
        if self.base:
            if meta["base_bytes"] is None or meta["base_sha256"] is None:
                raise ShardError(f"{where}: has no base layer; its model writes none")
            size, sha256 = meta["base_bytes"], meta["base_sha256"]
        try:
            # pread has no file position: forked workers may share the descriptor
            data = os.pread(self._descriptor(meta["tar"]), size, meta["offset"])
        except FileNotFoundError:
            raise ShardError(f"{where}: the tar is missing") from None
        except OSError as error:
            raise ShardError(f"{where}: cannot be read ({error.strerror})") from None
        if len(data) != size:
            raise ShardError(f"{where}: {len(data)} of {size} bytes; the tar is truncated")
        if self.verify and hashlib.sha256(data).hexdigest() != sha256:
            raise ShardError(f"{where}: damaged (its sha256 is not the one recorded)")
        return data

    def _descriptor(self, name: str) -> int:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[name] = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[name]

    def close(self) -> None:
        """Close the tars; reading opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if "_open" in self.__dict__:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        # A descriptor means nothing in another process. The codec goes as bytes: torch would send each of its tensors
        # by a descriptor of its own, more than a fork server takes. Nothing of a file is unpickled.
        codec = None if self._codec is None else pickle.dumps(self._codec)
        return {**self.__dict__, "_open": OrderedDict(), "_codec": codec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        codec = state["_codec"]
        self.__dict__.update(state, _codec=None if codec is None else pickle.loads(codec))


class _Prefix:
    """The first n places of a permutation."""

    def __init__(self, permutation: Permutation, n: int) -> None:
        self._permutation, self._n = permutation, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, place: int) -> int:
        return self._permutation[place]


def _read_table(plan: Plan, split: str | None, partial: bool) -> pa.Table:
    import pyarrow as pa

    from vidlbc.shards.checked_table import read_clips
    from vidlbc.shards.table import shard_table

    tables = []
    missing = []
    for index, shard in enumerate(plan.shards):
        if split is not None and shard.split != split:
            continue
        files = ShardFiles(Path(plan.output), index)
        if read_stats(files) is None:
            missing.append(files.stem)
            if files.stats.exists():
                raise ShardError(
                    f"{files.tar}: the tar or its table is missing or not as long as recorded; encode again"
                )
            continue
        tables.append(read_clips(files, len(plan.classes), plan.settings.clip_frames))
    if missing and not partial:
        raise ShardError(
            f"{plan.output}: {len(missing)} of {len(missing) + len(tables)} shards are not finished"
            f" (first {missing[0]}); run the encoding again, or read what is there with partial=True"
        )
    if split is not None and not tables and not missing:
        found = sorted({str(shard.split) for shard in plan.shards})
        raise ShardError(f"{plan.output}: no split '{split}' (splits here: {', '.join(found)})")
    return pa.concat_tables(tables) if tables else shard_table([])


def _hint(folder: Path) -> str:
    """`LatentShards("out/train")`: the split is an argument, not a folder."""
    if (folder.parent / MANIFEST / "plan.json").is_file():
        return f"; did you mean LatentShards('{folder.parent}', split='{folder.name}')?"
    return ""
